"""Kills at random moments over all commands, alone and two or three at once: equal ends, nothing lost, nothing left."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
from kill_samples import COMMANDS, Kills

KILLS = int(os.environ.get("PRETEXT_KILLS", "0"))
"""Number of kills of commands drawn at random; the figures in docs/reliability.md are of 200. 0 kills each command
once or twice, but the suite and its report, which take long: `test_run_all` kills these."""
SEED = int(os.environ.get("PRETEXT_KILLS_SEED", "0"))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_kills_lose_nothing_and_leave_nothing(tmp_path):
    kills = Kills(tmp_path, SEED)
    drawn, done, trials = random.Random(SEED), 0, 0
    each_once = [name for name in COMMANDS if name not in ("suite", "report")]
    try:
        while done < KILLS if KILLS else trials < len(each_once):
            done += kills.trial(drawn, KILLS - done) if KILLS else kills.trial(drawn, 2, each_once[trials])
            trials += 1
            print(f"{done} kills, {len(kills.faults)} faults {kills.faults[-1:]}", flush=True)
    finally:
        kills.starter.close()
    by_command, by_signal = Counter(), Counter()
    for what, count in kills.killed.items():
        command, number = what.split()
        by_command[command] += count
        by_signal[number] += count
    print(f"seed {SEED}: {done} kills in {trials} trials; {dict(by_command)}; {dict(by_signal)}")
    assert not kills.faults, "\n".join(kills.faults)
    assert done >= (KILLS or 4)

"""Kills at random moments over all commands, alone and two or three at once: equal ends, nothing lost, nothing left."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
from kill_samples import Kills

KILLS = int(os.environ.get("PRETEXT_KILLS", "8"))
"""Number of kills; the figures in docs/reliability.md are of 200."""
SEED = int(os.environ.get("PRETEXT_KILLS_SEED", "0"))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_kills_lose_nothing_and_leave_nothing(tmp_path):
    kills = Kills(tmp_path, SEED)
    drawn, done, trials = random.Random(SEED), 0, Counter()
    try:
        while done < KILLS:
            done += kills.trial(drawn, KILLS - done)
            trials["all"] += 1
            print(f"{done} kills, {len(kills.faults)} faults {kills.faults[-1:]}", flush=True)
    finally:
        kills.starter.close()
    by_command, by_signal = Counter(), Counter()
    for what, count in kills.killed.items():
        command, number = what.split()
        by_command[command] += count
        by_signal[number] += count
    print(f"seed {SEED}: {done} kills in {trials['all']} trials; {dict(by_command)}; {dict(by_signal)}")
    assert not kills.faults, "\n".join(kills.faults)

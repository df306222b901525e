"""`pretext train` as torchrun starts it, two real processes: a full disk, a lock, a kill, and what differs."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from functools import partial

import pytest
import torch.distributed as dist
from starting_samples import Starter
from training_samples import ENCODER, pictures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # two processes each


class Pair:
    """Two processes that one command line starts; this process holds their store, as torchrun's agent does."""

    def __init__(self, starter, folder, words, *, second=(), at_most=None, **of_second):
        """Start them.

        Args:
            starter: Starts each.
            folder: Where their output goes.
            words: The command line.
            second: More words for process 1.
            at_most: Bytes that a file may have; a larger one fails to be written, as on a full disk.
            **of_second: Environment of process 1 alone.
        """
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(minutes=5))
        self.starter, self.processes, self.logs = starter, [], []
        for rank in range(2):
            environment = {
                "PRETEXT_CACHE": os.environ["PRETEXT_CACHE"],
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.store.port),
                "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0",
            } | (of_second if rank else {})  # fmt: skip
            self.logs.append(folder / f"{self.store.port}-{rank}.log")
            of_this = ["pretext", *words, *(second if rank else ())]
            self.processes.append(starter.start(of_this, self.logs[-1], environment, at_most=at_most))

    def end(self):
        """Wait for both; return their exit codes, and all lines that say how they ended."""
        try:
            codes = [self.starter.end(process) for process in self.processes]
        finally:
            self.kill(*(rank for rank in range(2) if self.starter.code(self.processes[rank]) is None))
        lines = [line for log in self.logs for line in log.read_text().splitlines()]
        assert not any("Traceback" in line for line in lines), lines
        return codes, [line for line in lines if line.startswith(("error: ", "stopped")) or "trained by" in line]

    def kill(self, *ranks):
        for rank in ranks:
            os.kill(self.processes[rank], signal.SIGKILL)

    def run(self):
        return all(self.starter.code(process) is None for process in self.processes)

    def wait_until(self, reached):
        while not reached():
            assert self.run(), self.end()
            time.sleep(0.05)


@pytest.fixture(scope="module")
def starter(tmp_path_factory):
    starter = Starter(tmp_path_factory.mktemp("starter"), ["pretext.training.loop", "pretext.__main__", "tensorboard"])
    yield starter
    starter.close()


@pytest.fixture
def pair(starter, tmp_path):
    """Start a pair."""
    return partial(Pair, starter, tmp_path)


def words(data, out, *more, steps=6):
    return [
        *f"train autoencoder --data {data} --encoder {ENCODER} --image-size 32 --steps {steps} --batch-size 8".split(),
        *f"--device cpu --workers 0 --samples 0 --checkpoint-seconds 0 --out {out}".split(),
        *more,
    ]


def test_a_full_disk_ends_both_in_one_line_and_the_same_command_goes_on(tmp_path, own_cache, pair):
    data, out = pictures(tmp_path / "data"), tmp_path / "out"
    codes, said = pair(words(data, out), at_most=150_000).end()
    assert codes == [2, 2]
    (line,) = said
    assert line.startswith(f"error: {out}/checkpoint.safetensors: File too large; free some space")
    assert sorted(file.name for file in out.iterdir()) == [".lock", "log.jsonl"]
    codes, said = pair(words(data, out)).end()
    assert codes == [0, 0] and len(said) == 1 and "trained by" in said[0]


def test_a_second_pair_in_the_folder_is_refused_and_a_killed_pair_leaves_no_lock(tmp_path, pair):
    data, out = pictures(tmp_path / "data"), tmp_path / "out"
    first = pair(words(data, out, steps=100_000))
    first.wait_until((out / "checkpoint.safetensors").exists)
    codes, said = pair(words(data, out, steps=100_000)).end()
    assert codes == [2, 2]
    assert said == [f"error: {out}: another process is training in this folder; wait for it, or give another --out"]
    assert first.run()
    first.kill(1)  # the other one sees it
    codes, said = first.end()
    assert codes == [2, -signal.SIGKILL]
    assert len(said) == 1 and said[0].startswith("error: process 0: another process has ended")
    third = pair(words(data, out, steps=100_000))
    before = (out / "log.jsonl").stat().st_ino
    # a new start writes the log anew, under the lock
    third.wait_until(lambda: (out / "log.jsonl").stat().st_ino != before)
    third.kill(0, 1)
    assert third.end() == ([-signal.SIGKILL] * 2, [])
    codes, said = pair(words(data, tmp_path / "other")).end()
    assert codes == [0, 0]


@pytest.mark.parametrize(
    ("alone", "message"),
    [
        (
            {"PRETEXT_PACK_GB": "0"},
            "error: process 1 of 2 has packed (PRETEXT_PACK_GB) = False, and process 0 has True",
        ),
        ({"PRETEXT_PACK_GB": "much"}, "error: PRETEXT_PACK_GB=much: expected a number of gigabytes"),
        ("--data", "error: process 1 of 2 has data_fingerprint = "),
        ("--seed", "error: process 1 of 2 has train_config = "),
    ],
    ids=["packed and streamed", "a fault of the second alone", "other data", "other settings"],
)
def test_what_differs_between_the_processes_ends_both_in_one_line_before_any_step(alone, message, tmp_path, pair):
    data, out = pictures(tmp_path / "data"), tmp_path / "out"
    if alone == "--data":
        both = pair(words(data, out), second=["--data", pictures(tmp_path / "other", [3])])
    elif alone == "--seed":
        both = pair(words(data, out), second=["--seed", "1"])
    else:
        both = pair(words(data, out), **alone)
    codes, said = both.end()
    assert codes == [2, 2] and not out.exists()
    assert len(said) == 1 and said[0].startswith(message)


def test_a_missing_folder_is_one_line_of_both(tmp_path, pair):
    codes, said = pair(words(f"folder:{tmp_path}/none", tmp_path / "out")).end()
    assert (codes, said) == ([2, 2], [f"error: folder:{tmp_path}/none: no such folder"])


def test_two_processes_watch_track_and_keep_like_one_that_does_not(tmp_path, pair):
    data, made = pictures(tmp_path / "data"), {}
    flags = ["--watch", "rankme", "--watch-every", "2", "--track", "tensorboard", "--keep", "2", "--log-every", "2"]
    for name, more in (("plain", []), ("watched", flags)):
        codes, said = pair(words(data, tmp_path / name, *more)).end()
        assert codes == [0, 0], said
        made[name] = (tmp_path / name / "encoder.safetensors").read_bytes()
    assert made["plain"] == made["watched"]
    assert sorted(file.stem for file in (tmp_path / "watched" / "kept").iterdir()) == [
        f"step-{step:07d}" for step in (2, 4, 6)
    ]
    assert len((tmp_path / "watched" / "log.jsonl").read_text().splitlines()) == 6  # three losses, three measurements
    assert len(list((tmp_path / "watched" / "tensorboard").iterdir())) == 1

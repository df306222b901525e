"""One lock per cell: exclusive between processes, free after a crash, and not disturbed by a look at it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

from benchmarks.records.locks import cell_lock, is_locked

DIES = """
import os, signal, sys
from pathlib import Path
from benchmarks.records.locks import cell_lock
with cell_lock(Path(sys.argv[1]), "c") as held:
    print(held, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
COUNTS = """
import os, sys
from pathlib import Path
from benchmarks.records.locks import cell_lock
out = Path(sys.argv[1])
won = 0
while won < 50:
    with cell_lock(out, "c") as held:
        if not held:
            continue
        os.close(os.open(out / "held", os.O_CREAT | os.O_EXCL))  # fails if another process is in here
        (out / "count").write_text(str(int((out / "count").read_text()) + 1))
        (out / "held").unlink()
        won += 1
"""


def test_a_lock_excludes_every_other_holder(tmp_path):
    assert not is_locked(tmp_path, "c")
    with cell_lock(tmp_path, "c") as held:
        assert held
        assert is_locked(tmp_path, "c")
        assert not is_locked(tmp_path, "other")
        with cell_lock(tmp_path, "c") as second:
            assert not second
        assert is_locked(tmp_path, "c")  # the failed attempt has freed nothing
        with cell_lock(tmp_path, "other") as other:
            assert other
    assert not is_locked(tmp_path, "c")
    with cell_lock(tmp_path, "c") as held:
        assert held


def test_the_lock_of_a_dead_process_is_free(tmp_path):
    dead = subprocess.run([sys.executable, "-c", DIES, str(tmp_path)], capture_output=True, text=True, check=False)
    assert dead.stdout.strip() == "True"
    assert dead.returncode == -signal.SIGKILL
    assert not is_locked(tmp_path, "c")
    with cell_lock(tmp_path, "c") as held:
        assert held


def test_two_processes_never_hold_one_lock_while_others_look_at_it(tmp_path):
    (tmp_path / "count").write_text("0")
    runs = [subprocess.Popen([sys.executable, "-c", COUNTS, str(tmp_path)], stderr=subprocess.PIPE) for _ in range(3)]
    while any(run.poll() is None for run in runs):
        is_locked(tmp_path, "c")
    assert [run.communicate()[1] for run in runs] == [b""] * 3
    assert [run.returncode for run in runs] == [0] * 3
    assert (tmp_path / "count").read_text() == "150"


def test_a_look_at_a_free_lock_never_makes_a_run_pass_the_cell_over(tmp_path):
    with cell_lock(tmp_path, "c"):
        pass
    ended = threading.Event()

    def look():
        while not ended.is_set():
            is_locked(tmp_path, "c")

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(100):
            with cell_lock(tmp_path, "c") as held:
                assert held
    finally:
        ended.set()
        looking.join()


def test_a_look_needs_no_right_to_write(tmp_path):
    with cell_lock(tmp_path, "c"):
        (file,) = (tmp_path / ".locks").iterdir()
        file.chmod(0o444)
        assert is_locked(tmp_path, "c")
    assert not is_locked(tmp_path, "c")

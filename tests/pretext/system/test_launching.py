"""Processes that are started together, for real: they find each other, fail in one voice, and end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from pretext.system import launching
from pretext.system.distributed import everyones, join_processes, one_voice, rank
from pretext.system.errors import UserError
from pretext.system.launching import launch
from pretext.system.stopping import stop_politely

pytestmark = pytest.mark.slow


def meet(folder):
    """Write what each process knows of all."""
    join_processes(torch.device("cpu"))
    (folder / str(rank())).write_text(f"{everyones(rank())} {dist.get_backend()} {os.environ['LOCAL_RANK']}")


def refuse(both):
    """Raise in process 1, or in both."""
    with one_voice():
        join_processes(torch.device("cpu"))
        if both or rank() == 1:
            raise UserError("this data cannot be used")
        everyones(None)


def wrong():
    join_processes(torch.device("cpu"))
    if rank() == 1:
        raise ValueError("a bad day")
    everyones(None)


def die():
    join_processes(torch.device("cpu"))
    if rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    everyones(None)


def work(folder):
    """Work until a signal comes, then save."""
    with stop_politely() as stop:
        os.kill(os.getpid(), signal.SIGUSR2)  # as SLURM may at any time
        (folder / f"at work {os.environ['RANK']}").write_text(str(os.getpid()))
        while not stop.requested:
            time.sleep(0.02)
    (folder / f"saved {os.environ['RANK']}").touch()
    raise KeyboardInterrupt


def launch_work(folder):
    launch(work, 2, folder)


def at_work(folder: Path) -> list[int]:
    """Return the numbers of both processes once they are at work."""
    deadline = time.monotonic() + 60
    while len(found := [*folder.glob("at work *")]) < 2 or not all(file.read_text() for file in found):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [int(file.read_text()) for file in found]


def test_all_find_each_other_and_the_environment_stays(tmp_path):
    before = dict(os.environ)
    launch(meet, 2, tmp_path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "0": "[0, 1] gloo 0",
        "1": "[0, 1] gloo 1",
    }
    assert dict(os.environ) == before


@pytest.mark.parametrize("both", [True, False])
def test_what_a_process_refuses_is_raised_once(both):
    with pytest.raises(UserError, match=r"^this data cannot be used$"):
        launch(refuse, 2, both)


def test_an_error_says_its_kind_and_where_it_came_from():
    with pytest.raises(RuntimeError, match="ValueError: a bad day") as caught:
        launch(wrong, 2)
    assert str(caught.value) == "ValueError: a bad day"
    assert "in wrong" in caught.value.__notes__[0]


def test_a_killed_process_is_named_by_its_signal():
    with pytest.raises(RuntimeError, match="ended by signal SIGKILL; if memory ran out, start fewer processes"):
        launch(die, 2)


def test_a_signal_reaches_all_and_they_save(tmp_path):
    def stop():
        at_work(tmp_path)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(KeyboardInterrupt):
        launch(work, 2, tmp_path)
    assert len([*tmp_path.glob("saved *")]) == 2


def test_they_end_with_a_parent_that_is_killed(tmp_path):
    parent = multiprocessing.get_context("spawn").Process(target=launch_work, args=(tmp_path,))
    parent.start()
    numbers = at_work(tmp_path)
    parent.kill()
    parent.join()
    deadline = time.monotonic() + launching.END_S
    while any(Path(f"/proc/{number}").exists() for number in numbers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len([*tmp_path.glob("saved *")]) == 2

"""Start several processes on this machine that train together, as torchrun does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import torch.distributed as dist

from pretext.system.distributed import end_at_once
from pretext.system.errors import InputError
from pretext.system.stopping import Stop, stop_politely

OTHERS_S = 10.0
"""Seconds that the other processes get to notice that one has ended."""
END_S = 30.0
"""Seconds that a process gets to save its step after SIGTERM."""
HOST = "127.0.0.1"
LAST = -100
"""Priority of what a process does after multiprocessing has given back its semaphores."""


def launch(function: Callable[..., object], count: int, *args: object) -> None:
    """Call a function in several new processes that find each other as those of torchrun do; wait until they end.

    SIGINT, SIGTERM and SIGHUP are passed on to them. SIGUSR2, by which SLURM announces the end to all processes of a
    job, does nothing in them: the process that has started them decides what it means.

    Args:
        function: A function of a module; its processes are told apart by `distributed.rank`.
        count: Number of processes.
        *args: Its arguments.

    Raises:
        Exception: What the first of the processes to fail has raised.
        KeyboardInterrupt: If they were stopped by a signal.
    """
    distributed: Any = dist
    store = distributed.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)  # it finds a free port and keeps it
    common = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": HOST, "MASTER_PORT": store.port}
    common |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": 0}
    context = multiprocessing.get_context("spawn")
    started: dict[BaseProcess, Connection] = {}
    try:
        with stop_politely() as stop:
            for number in range(count):
                ours, theirs = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(target=_call, args=(theirs, function, args))
                own = common | {"RANK": number, "LOCAL_RANK": number}
                with variables_set({name: str(value) for name, value in own.items()}), _blocked(signal.SIGUSR2):
                    process.start()
                theirs.close()
                started[process] = ours
            failed = _first_failure([*started], stop)
            if failed is not None:
                _raise(failed, started[failed])
    finally:
        for process, connection in started.items():
            process.kill()
            process.join()
            connection.close()


@contextmanager
def _blocked(number: signal.Signals) -> Iterator[None]:
    """Block a signal, also in the processes that are started meanwhile, from their first moment to their end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _first_failure(processes: list[BaseProcess], stop: Stop) -> BaseProcess | None:
    """Wait until all processes have ended; return the first that failed, if one did."""
    running, failed = list(processes), None
    terminate_at = kill_at = float("inf")
    while running:
        wait([process.sentinel for process in running], timeout=0.2)
        now = time.monotonic()
        ended = [process for process in running if process.exitcode is not None]
        running = [process for process in running if process not in ended]
        new = [process for process in ended if process.exitcode]
        if new and failed is None:
            failed, terminate_at = new[0], min(terminate_at, now + OTHERS_S)
        if stop.requested:
            terminate_at = min(terminate_at, now)
        if now >= terminate_at and kill_at == float("inf"):
            kill_at = now + END_S
            for process in running:
                process.terminate()
        if now >= kill_at:
            for process in running:
                process.kill()
    return failed


def _raise(failed: BaseProcess, connection: Connection) -> None:
    """Raise what a process has said that it met."""
    try:
        error, trace = connection.recv() if connection.poll() else (None, "")
    except EOFError:  # it ended without a word
        error, trace = None, ""
    if isinstance(error, BaseException):
        if trace:
            error.add_note(trace)
        raise error
    code = failed.exitcode or 0
    hint = "; if memory ran out, start fewer processes" if code == -signal.SIGKILL else ""
    raise RuntimeError(f"one of the processes that train together ended by {cause_of(code)}{hint}")


def cause_of(code: int) -> str:
    """Return what an exit code says of the end of a process: `signal SIGKILL`, or `exit code 1`."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _call(connection: Connection, function: Callable[..., object], args: tuple[object, ...]) -> None:
    """Call the function in a new process, and send what it raises."""
    threading.Thread(target=exit_with_parent, args=(END_S,), daemon=True).start()
    code = 0
    try:
        function(*args)
    except SystemExit as end:  # another process reports the reason
        code = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        code = 130
        connection.send((KeyboardInterrupt(), ""))
    except (InputError, OSError) as error:
        code = 2
        connection.send((error, ""))
    except Exception as error:
        code = 1
        connection.send((RuntimeError(f"{type(error).__name__}: {error}"), traceback.format_exc()))
    connection.close()
    Finalize(None, end_at_once, args=(code,), exitpriority=LAST)
    raise SystemExit(code)


def exit_with_parent(grace_s: float) -> None:
    """Wait for the end of the process that has started this one; then end this one: SIGTERM lets it save its step.

    Args:
        grace_s: Seconds that it gets for that.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os._exit(1)


@contextmanager
def variables_set(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables, and restore them on exit."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

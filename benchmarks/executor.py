"""Executors compute cells. The schedule uses only `Executor`; `LocalProcesses` is its implementation."""

from __future__ import annotations

import dataclasses
import errno
import multiprocessing
import os
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal, final

from benchmarks.cells import Cell
from benchmarks.computing import compute
from benchmarks.locks import cell_lock
from benchmarks.results import write_failure

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""One thread per worker: on two cores, two processes with two threads each are fifty times slower. The number of
threads also decides the order of sums, so a fixed number gives a cell the same value in every run."""
GRACE_S = 30.0
"""Seconds that a worker gets to write its checkpoint after SIGTERM."""
UNUSABLE = {errno.ENOSPC, errno.EROFS, errno.EDQUOT}
"""Errors after which nothing more can be written, so the whole run ends."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a cell."""

    cell: str
    state: Literal["done", "failed", "busy", "unusable"]
    """`busy`: another process computes it; `unusable`: the results folder cannot be written."""
    seconds: float
    """Wall-clock time; 0 if another process computed the cell."""
    error: str = ""
    """The error in one line."""


def run_cell(cell: Cell, out: Path) -> Outcome:
    """Compute a cell, unless it is done or another process computes it.

    An exception of the cell is written to OUT/failures and not raised.
    """
    start = time.monotonic()
    try:
        with cell_lock(out, cell.name) as held:
            if not held:
                return Outcome(cell.name, "busy", 0.0)
            if cell.is_done(out):
                return Outcome(cell.name, "done", 0.0)
            try:
                compute(cell, out)
            except Exception as error:
                if isinstance(error, OSError) and error.errno in UNUSABLE:
                    raise
                write_failure(out, cell.name, error, pretext=cell.pretext, probe=cell.probe, seed=cell.seed)
                first = (str(error).splitlines() or [""])[0]
                return Outcome(cell.name, "failed", time.monotonic() - start, f"{type(error).__name__}: {first}")
    except OSError as error:  # the lock, the result or the failure could not be written
        return Outcome(cell.name, "unusable", time.monotonic() - start, f"{error.filename or out}: {error.strerror}")
    return Outcome(cell.name, "done", time.monotonic() - start)


class Executor(ABC):
    """Computes cells and reports their outcomes."""

    threads: int
    """Threads per worker."""

    @abstractmethod
    def free(self) -> int:
        """Return the number of free workers."""

    @abstractmethod
    def start(self, cell: Cell) -> None:
        """Start a cell on a free worker."""

    @abstractmethod
    def outcomes(self, timeout: float) -> list[Outcome]:
        """Return the outcomes since the last call; wait up to `timeout` seconds for the first."""

    @abstractmethod
    def stop(self) -> None:
        """Stop all workers; running cells get time to write a checkpoint."""


@dataclasses.dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    cell: Cell | None = None
    since: float = 0.0


@final
class LocalProcesses(Executor):
    """A pool of worker processes on this machine, started on demand.

    The output of a worker goes to OUT/logs/CELL.log. If a worker dies, for example out of memory, its cell fails
    and a new worker replaces it. Without a GPU, each worker has one thread.

    Args:
        out: The results folder.
        workers: Maximum number of worker processes.
    """

    def __init__(self, out: Path, workers: int) -> None:
        import torch

        from pretext.system.device import device_of

        one_thread = device_of("auto").type == "cpu"
        self.out, self.workers, self.threads = out, workers, 1 if one_thread else torch.get_num_threads()
        self._environment = ONE_THREAD if one_thread else {}
        self._pool: list[_Worker] = []

    def free(self) -> int:
        """See `Executor`."""
        return self.workers - sum(worker.cell is not None for worker in self._pool)

    def start(self, cell: Cell) -> None:
        """See `Executor`."""
        worker = next((worker for worker in self._pool if worker.cell is None), None) or self._start_worker()
        worker.cell, worker.since = cell, time.monotonic()
        worker.connection.send(cell)

    def outcomes(self, timeout: float) -> list[Outcome]:
        """See `Executor`."""
        busy = [worker for worker in self._pool if worker.cell is not None]
        if not busy:
            time.sleep(timeout)
            return []
        ready = set(wait([worker.connection for worker in busy], timeout))
        return [self._receive(worker) for worker in busy if worker.connection in ready]

    def stop(self) -> None:
        """See `Executor`."""
        for worker in self._pool:
            worker.connection.close()
            if worker.cell is not None:
                worker.process.terminate()
        deadline = time.monotonic() + GRACE_S
        for worker in self._pool:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._pool = []

    def _receive(self, worker: _Worker) -> Outcome:
        """Return the outcome of a worker's cell; a dead worker leaves the pool."""
        cell, worker.cell = worker.cell, None
        assert cell is not None
        try:
            outcome: Outcome = worker.connection.recv()
            return outcome
        except (EOFError, OSError):
            worker.process.join()
            worker.connection.close()
            self._pool.remove(worker)
        code = worker.process.exitcode or 0
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = "; if memory ran out, use fewer --workers" if code == -signal.SIGKILL else ""
        error = f"the worker process died ({cause}){hint}; see logs/{cell.name}.log"
        write_failure(self.out, cell.name, error, pretext=cell.pretext, probe=cell.probe, seed=cell.seed)
        return Outcome(cell.name, "failed", time.monotonic() - worker.since, error)

    def _start_worker(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        # not a daemon: a daemon could not start data loader processes
        process = context.Process(target=_work, args=(theirs, self.out), daemon=False)
        with _environment(self._environment):  # torch reads it at import in the child
            process.start()
        theirs.close()
        self._pool.append(_Worker(process, ours))
        return self._pool[-1]


def _work(connection: Connection, out: Path) -> None:
    """Compute cells until the parent closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    while True:
        try:
            cell: Cell = connection.recv()
        except (EOFError, OSError):
            return
        _print_to(out / "logs" / f"{cell.name}.log")
        connection.send(run_cell(cell, out))


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)  # a training run writes its checkpoint first
    time.sleep(GRACE_S)
    os._exit(1)


def _print_to(path: Path) -> None:
    """Redirect the output of this process and its libraries to a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    except OSError:  # the cell's outcome will report a full disk
        descriptor = os.open(os.devnull, os.O_WRONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
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

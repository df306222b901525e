"""Where cells are computed. `Executor` is all that the suite knows; local processes are one kind of it."""

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
"""Two processes of two threads on two cores are fifty times slower than two of one, and the number of threads decides
in which order sums are taken: with it fixed, a cell has the same value on every run."""
GRACE_S = 30.0
"""What a worker is given to write its checkpoint when it is told to stop."""
UNUSABLE = {errno.ENOSPC, errno.EROFS, errno.EDQUOT}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a cell went."""

    cell: str
    state: Literal["done", "failed", "busy", "unusable"]
    """`busy`: another process computes it; `unusable`: nothing can be written any more."""
    seconds: float
    error: str = ""


def run_cell(cell: Cell, out: Path) -> Outcome:
    """Compute a cell unless it is done or somebody else does; a failure is written down, not raised."""
    start = time.monotonic()
    try:
        with cell_lock(out, cell.name) as mine:
            if not mine:
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
    except OSError as error:  # the lock, the result or the record of a failure could not be written
        return Outcome(cell.name, "unusable", time.monotonic() - start, f"{error.filename or out}: {error.strerror}")
    return Outcome(cell.name, "done", time.monotonic() - start)


class Executor(ABC):
    """Takes cells, gives outcomes."""

    threads: int
    """Of each worker."""

    @abstractmethod
    def free(self) -> int:
        """Return how many cells could be started now."""

    @abstractmethod
    def start(self, cell: Cell) -> None:
        """Begin a cell; there is room for it."""

    @abstractmethod
    def outcomes(self, timeout: float) -> list[Outcome]:
        """Return what has ended since the last call; wait up to `timeout` seconds for the first."""

    @abstractmethod
    def stop(self) -> None:
        """End, giving what still runs time to write its checkpoint."""


@final
class InProcess(Executor):
    """Computes each cell here and now: for tests and debuggers."""

    def __init__(self, out: Path) -> None:
        import torch

        self.out, self.threads = out, torch.get_num_threads()
        self._ended: list[Outcome] = []

    def free(self) -> int:
        """See `Executor`."""
        return 0 if self._ended else 1

    def start(self, cell: Cell) -> None:
        """See `Executor`."""
        self._ended.append(run_cell(cell, self.out))

    def outcomes(self, timeout: float) -> list[Outcome]:
        """See `Executor`."""
        ended, self._ended = self._ended, []
        if not ended:
            time.sleep(timeout)
        return ended

    def stop(self) -> None:
        """See `Executor`."""


@dataclasses.dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    cell: Cell | None = None
    since: float = 0.0


@final
class LocalProcesses(Executor):
    """Worker processes on this machine, started when they are first needed.

    What a worker prints goes to OUT/logs/CELL.log. A worker that dies, of lack of memory for one, fails its
    cell and is replaced. Without a GPU, each has one thread.
    """

    def __init__(self, out: Path, workers: int) -> None:
        import torch

        from pretext.system.device import device_of

        one_thread = device_of("auto").type == "cpu"
        self.out, self.workers, self.threads = out, workers, 1 if one_thread else torch.get_num_threads()
        self._environment = ONE_THREAD if one_thread else {}
        self._crew: list[_Worker] = []

    def free(self) -> int:
        """See `Executor`."""
        return self.workers - sum(worker.cell is not None for worker in self._crew)

    def start(self, cell: Cell) -> None:
        """See `Executor`."""
        worker = next((worker for worker in self._crew if worker.cell is None), None) or self._hire()
        worker.cell, worker.since = cell, time.monotonic()
        worker.connection.send(cell)

    def outcomes(self, timeout: float) -> list[Outcome]:
        """See `Executor`."""
        busy = [worker for worker in self._crew if worker.cell is not None]
        if not busy:
            time.sleep(timeout)
            return []
        ready = set(wait([worker.connection for worker in busy], timeout))
        return [self._heard(worker) for worker in busy if worker.connection in ready]

    def stop(self) -> None:
        """See `Executor`."""
        for worker in self._crew:
            worker.connection.close()
            if worker.cell is not None:
                worker.process.terminate()
        deadline = time.monotonic() + GRACE_S
        for worker in self._crew:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._crew = []

    def _heard(self, worker: _Worker) -> Outcome:
        cell, worker.cell = worker.cell, None
        assert cell is not None
        try:
            outcome: Outcome = worker.connection.recv()
            return outcome
        except (EOFError, OSError):
            worker.process.join()
            worker.connection.close()
            self._crew.remove(worker)
        code = worker.process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = "; out of memory? try fewer --workers" if code == -signal.SIGKILL else ""
        error = f"the worker process died ({how}){hint}; see logs/{cell.name}.log"
        write_failure(self.out, cell.name, error, pretext=cell.pretext, probe=cell.probe, seed=cell.seed)
        return Outcome(cell.name, "failed", time.monotonic() - worker.since, error)

    def _hire(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        # no daemon: a probe may want loading processes of its own
        process = context.Process(target=_work, args=(theirs, self.out), daemon=False)
        with _environment(self._environment):  # the child's torch reads it when it is imported
            process.start()
        theirs.close()
        self._crew.append(_Worker(process, ours))
        return self._crew[-1]


def _work(connection: Connection, out: Path) -> None:
    """Compute cells until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches everyone; the parent decides
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    while True:
        try:
            cell: Cell = connection.recv()
        except (EOFError, OSError):
            return
        _print_to(out / "logs" / f"{cell.name}.log")
        connection.send(run_cell(cell, out))


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)  # a training run writes its checkpoint first
    time.sleep(GRACE_S)
    os._exit(1)


def _print_to(path: Path) -> None:
    """Send what this process and its libraries print to a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    except OSError:  # a full disk shows in the cell's outcome
        descriptor = os.open(os.devnull, os.O_WRONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
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

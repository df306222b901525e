"""The interface of executors, the outcome of a cell, and how a cell is run on any machine."""

from __future__ import annotations

import dataclasses
import errno
import gc
import os
import socket
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

from benchmarks.executors.computing import compute
from benchmarks.planning.cells import Cell
from benchmarks.records.locks import cell_lock
from benchmarks.records.results import write_failure

ROOT = Path(__file__).parents[2]
"""The folder that holds the packages: workers on other machines import them from there."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""One thread per worker: on two cores, two processes with two threads each are fifty times slower. The number of
threads also decides the order of sums, so a fixed number gives a cell the same value in every run."""
GRACE_S = 30.0
"""Seconds that a worker gets to write its checkpoint after SIGTERM."""
RETRIES = 3
"""Times that a cell is started again after a node, a worker or a job was lost."""
UNUSABLE = {errno.ENOSPC, errno.EROFS, errno.EDQUOT}
"""Errors after which nothing more can be written, so the whole run ends."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a cell."""

    cell: str
    state: Literal["done", "failed", "busy", "stopped", "unusable"]
    """`busy`: another process computes it; `stopped`: it has to start again, from its checkpoint if it has one;
    `unusable`: the results folder cannot be written."""
    seconds: float
    """Wall-clock time; 0 if another process computed the cell."""
    error: str = ""
    """The error in one line."""


class Executor(ABC):
    """Computes cells and reports their outcomes."""

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Options of the executor; most have none."""

    package: ClassVar[str] = ""
    """The Python package that it needs, if any; the extra that installs it has the executor's name."""
    workers: int
    """Number of cells at the same time."""
    threads: int
    """Threads per worker."""
    counts_processes: bool = False
    """Whether a cell that several processes train takes the places of as many cells."""

    @abstractmethod
    def __init__(self, out: Path, workers: int | None, config: Any) -> None:
        """Get ready to compute cells.

        Args:
            out: The results folder.
            workers: Maximum number of cells at the same time; None chooses it.
            config: The executor's `Config`.
        """

    @abstractmethod
    def fits(self, cell: Cell) -> bool:
        """Return whether there is room to start a cell now."""

    @abstractmethod
    def start(self, cell: Cell) -> None:
        """Start a cell on a free worker."""

    @abstractmethod
    def outcomes(self, timeout: float) -> list[Outcome]:
        """Return the outcomes since the last call; wait up to `timeout` seconds for the first."""

    @abstractmethod
    def stop(self) -> None:
        """Stop all workers; running cells get time to write a checkpoint."""


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
                return failed(cell, out, error, time.monotonic() - start)
    except OSError as error:  # the lock, the result or the failure could not be written
        reason = f"{error.filename or out}: {error.strerror}; free some space and run the same command again"
        return Outcome(cell.name, "unusable", time.monotonic() - start, reason)
    return Outcome(cell.name, "done", time.monotonic() - start)


def failed(cell: Cell, out: Path, error: BaseException | str, seconds: float) -> Outcome:
    """Write the failure of a cell to OUT/failures, and return its outcome."""
    write_failure(out, cell.name, error, pretext=cell.pretext, probe=cell.probe, seed=cell.seed)
    first = (str(error).splitlines() or [""])[0]
    reason = first if isinstance(error, str) else f"{type(error).__name__}: {first}"
    return Outcome(cell.name, "failed", seconds, reason)


def node_variables(*, gpu: bool) -> dict[str, str]:
    """Return the environment variables of a process that computes cells on a node of a cluster."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {name: value for name, value in os.environ.items() if name.startswith("PRETEXT_")}
    return {"PYTHONPATH": os.pathsep.join(path), **settings, **({} if gpu else ONE_THREAD)}


def run_on_node(cell: Cell, out: Path, folder: Path) -> Outcome:
    """Compute a cell on any node of a cluster; its output goes to OUT/logs/CELL.log.

    A node that does not see OUT reports it as unusable. See `run_cell`.

    Args:
        cell: The cell.
        out: The results folder, as an absolute path.
        folder: The working directory of the command, from which paths of data sets and files start.
    """
    if not (out / "plan.json").is_file():
        reason = f"{out} is not on node {socket.gethostname()}; give an --out that all nodes share"
        return Outcome(cell.name, "unusable", 0.0, reason)
    if folder.is_dir():
        os.chdir(folder)
    return run_in_worker(cell, out)


def run_in_worker(cell: Cell, out: Path) -> Outcome:
    """Compute a cell in a process that computes several; its output goes to OUT/logs/CELL.log. See `run_cell`."""
    print_to(out / "logs" / f"{cell.name}.log")
    gc.collect()  # objects that refer to each other keep the arrays of an earlier cell until Python looks for them
    return run_cell(cell, out)


def print_to(path: Path) -> None:
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

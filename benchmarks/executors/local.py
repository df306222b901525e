"""Worker processes on this machine, one per GPU or as many as cores and memory allow."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, final

from benchmarks.executors.base import GRACE_S, ONE_THREAD, Executor, Outcome, failed, run_in_worker
from benchmarks.planning.cells import Cell
from pretext.system.errors import UserError
from pretext.system.launching import cause_of, exit_with_parent, variables_set

WORKER_BYTES = 1.2e9
"""Memory in bytes that a worker of the laptop profile may need."""


@dataclasses.dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    gpu: str
    """Its GPU, as in CUDA_VISIBLE_DEVICES; empty without a GPU."""
    cell: Cell | None = None
    gpus: tuple[str, ...] = ()
    """The GPUs of its cell, its own first."""
    since: float = 0.0


@final
class LocalProcesses(Executor):
    """A pool of worker processes on this machine, started on demand.

    The output of a worker goes to OUT/logs/CELL.log. If a worker dies, for example out of memory, its cell fails
    and a new worker replaces it. With several GPUs each worker sees one of them; more workers than GPUs share them.
    Without a GPU, each worker has one thread. A cell that several processes train takes the places of as many workers.

    Args:
        out: The results folder.
        workers: Maximum number of worker processes; None is one per GPU, or as many as cores and memory allow.
        config: Has no options.
    """

    counts_processes = True

    def __init__(self, out: Path, workers: int | None, config: Any = None) -> None:
        import torch

        from pretext.system.device import device_of

        one_thread = device_of("auto").type == "cpu"
        self._gpus = [] if one_thread else _visible_gpus()
        self.out, self.workers = out, workers or len(self._gpus) or _workers_that_fit()
        self.threads = 1 if one_thread else torch.get_num_threads()
        self._pool: list[_Worker] = []

    def fits(self, cell: Cell) -> bool:
        """See `Executor`.

        Raises:
            UserError: If this machine has GPUs, and fewer than the cell needs.
        """
        if self._gpus and cell.processes > len(self._gpus):
            raise UserError(f"--gpus-per-cell {cell.processes}: this machine has {len(self._gpus)} GPUs for it")
        taken = sum(worker.cell.processes for worker in self._pool if worker.cell is not None)
        return not taken or taken + cell.processes <= self.workers

    def start(self, cell: Cell) -> None:
        """See `Executor`."""
        used = Counter(gpu for worker in self._pool if worker.cell is not None for gpu in worker.gpus)
        idle = [worker for worker in self._pool if worker.cell is None]
        worker = min(idle, key=lambda each: used[each.gpu], default=None)
        if worker is None or (used[worker.gpu] and len(self._pool) < self.workers):
            worker = self._start_worker(used)
        others = sorted({*self._gpus} - {worker.gpu}, key=lambda gpu: (used[gpu], self._gpus.index(gpu)))
        worker.gpus = (worker.gpu, *others[: cell.processes - 1]) if worker.gpu else ()
        worker.cell, worker.since = cell, time.monotonic()
        worker.connection.send((cell, worker.gpus))

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
        hint = "; if memory ran out, use fewer --workers" if code == -signal.SIGKILL else ""
        error = f"the worker process died ({cause_of(code)}){hint}; see logs/{cell.name}.log"
        return failed(cell, self.out, error, time.monotonic() - worker.since)

    def _start_worker(self, used: Counter[str]) -> _Worker:
        """Start a worker on the GPU with the fewest cells, by GPU in `used`, and the fewest workers."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        # not a daemon: a daemon could not start data loader processes
        process = context.Process(target=_work, args=(theirs, self.out), daemon=False)
        shared_by = Counter(worker.gpu for worker in self._pool)
        gpu = min(self._gpus, key=lambda each: (used[each], shared_by[each]), default="")
        variables = {"CUDA_VISIBLE_DEVICES": gpu} if gpu else ONE_THREAD
        with variables_set(variables):  # torch reads them at import in the child
            process.start()
        theirs.close()
        self._pool.append(_Worker(process, ours, gpu))
        return self._pool[-1]


def _work(connection: Connection, out: Path) -> None:
    """Compute cells until the parent closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides
    threading.Thread(target=exit_with_parent, args=(GRACE_S,), daemon=True).start()
    while True:
        try:
            cell: Cell
            gpus: tuple[str, ...]
            cell, gpus = connection.recv()
        except (EOFError, OSError):
            return
        with variables_set({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}):  # for the processes of a cell
            outcome = run_in_worker(cell, out)
        connection.send(outcome)


def worker_variables() -> dict[str, str]:
    """Return the environment variables of a worker that does not share this machine's GPUs."""
    from pretext.system.device import device_of

    return ONE_THREAD if device_of("auto").type == "cpu" else {}


def _visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count, given = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return (given.split(",") if given else [str(number) for number in range(count)])[:count]


def _workers_that_fit() -> int:
    """Return the number of workers that cores and free memory allow."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(_free_memory() // WORKER_BYTES)))


def _free_memory() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024
    except (OSError, StopIteration):  # not Linux
        return float("inf")

"""Jobs of a SLURM cluster, one per cell, through submitit; cells that can start together are one job array.

A job writes its outcome to OUT/slurm/CELL.json. What has become of a job without an outcome is read from `squeue`,
because not every cluster keeps the accounting that `sacct` reads. OUT/slurm/CELL.job holds the number of the job, so
that the same command finds the jobs that an earlier one has left in the queue.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import final

from benchmarks.executors.base import RETRIES, Executor, Outcome, failed, node_variables, run_on_node
from benchmarks.planning.cells import Cell
from benchmarks.records.results import write_json
from pretext.system.checkpoint import atomic_write
from pretext.system.errors import UserError
from pretext.system.ranges import check_range
from pretext.system.stored_json import Shape, read_json

MOST_JOBS = 64
"""Jobs in the queue at the same time, without --workers."""
LEAST_MINUTES = 5
"""Shortest time limit: a job is told to stop 90 seconds before it, and must have imported everything by then."""
LOOK_S = 15.0
"""Seconds between two looks at the queue."""
PATIENCE_S = 3600.0
"""Seconds for which jobs are submitted again while SLURM's controller does not answer: it may be starting anew."""
UNREACHABLE = re.compile(r"Unable to contact|Socket timed out|Zero Bytes were transmitted|connect failure")
"""What `sbatch` says of a controller that does not answer."""
SETTLE_S = 60.0
"""Seconds that the outcome of a job that has ended may take to reach this machine: network file systems are slow."""
ENDED = {"", "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
ENDED |= {"REVOKED", "TIMEOUT"}
"""States of a job that does not run again; empty once SLURM has forgotten it."""
LOST = {"", "BOOT_FAIL", "NODE_FAIL", "PREEMPTED", "TIMEOUT"}
"""Those of them after which its cell starts again."""
OUTCOME: Shape = {"cell": str, "state": str, "seconds": float, "error": str}


@dataclasses.dataclass
class _Job:
    cell: Cell
    number: str
    """As `squeue` prints it: 17, or 17_2 in an array."""
    ended: float | None = None
    """When a look at the queue has found it ended; None before."""


class NoAnswerError(Exception):
    """SLURM's controller does not answer."""


@final
class SlurmJobs(Executor):
    """Submits cells as jobs. A job that is about to reach its time limit, or whose node is lost, is submitted again.

    A training run goes on from its checkpoint as often as needed; another cell starts again `RETRIES` times.
    """

    package = "submitit"

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Options of a job."""

        partition: str | None = None
        """Partition of the jobs; the cluster's default if omitted."""
        account: str | None = None
        """Account that pays for the jobs; the user's default if omitted."""
        time: int | None = None
        """Time limit of a job in minutes; the partition's if omitted. A training run that takes longer goes on in
        another job."""
        gpus: int = 0
        """GPUs of a job, 0 or 1; a job that trains has as many as --gpus-per-cell says."""
        cpus: int = 1
        """Processor cores of a job, for each of its GPUs."""
        memory: str | None = None
        """Memory of a job, as in 16G; the partition's default if omitted."""
        setup: str = ""
        """Shell commands that each job runs first, as in 'module load cuda'."""
        leave: bool = False
        """Leave the jobs in the queue when this command is stopped; the same command finds them again."""

        def __post_init__(self) -> None:
            check_range(self, "time", least=LEAST_MINUTES, unit="minutes")
            if self.gpus not in (0, 1):
                raise ValueError(f"gpus is {self.gpus}; allowed is 0 or 1")
            check_range(self, "cpus", least=1)
            if self.memory is not None and not re.fullmatch(r"\d+[KMGT]?", self.memory):
                raise ValueError(f"memory is {self.memory}; allowed is a whole number with K, M, G or T, as in 16G")

    def __init__(self, out: Path, workers: int | None, config: Config) -> None:
        """See `Executor`.

        Raises:
            UserError: If this machine has no SLURM.
        """
        if missing := [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]:
            raise UserError(f"--executor slurm: there is no {missing[0]} here; start this on a machine of the cluster")
        self.out, self.workers, self.config = out.resolve(), workers or MOST_JOBS, config
        self.threads = config.cpus if config.gpus else 1
        self._new: list[Cell] = []
        self._jobs: dict[str, _Job] = {}
        self._starts: Counter[str] = Counter()
        queue = queued_jobs()
        if queue is None:  # jobs of an earlier call could not be found again
            raise UserError("--executor slurm: squeue gets no answer; start the same command when SLURM runs")
        self._queue = queue
        self._unanswered: float | None = None
        """When SLURM's controller has first refused to answer `sbatch`; None while it answers."""
        self._next_submission = 0.0
        self._next_look = time.monotonic() + LOOK_S

    def fits(self, cell: Cell) -> bool:
        """See `Executor`."""
        return len(self._jobs) + len(self._new) < self.workers

    def start(self, cell: Cell) -> None:
        """See `Executor`. A job that an earlier call has left in the queue is taken over."""
        left = job_path(self.out, cell.name)
        number = left.read_text() if left.is_file() else ""
        if self._queue.get(number, "") not in ENDED and not self._starts[cell.name]:
            self._jobs[cell.name] = _Job(cell, number)
        else:
            self._new.append(cell)
        self._starts[cell.name] += 1

    def outcomes(self, timeout: float) -> list[Outcome]:
        """See `Executor`."""
        if self._new and time.monotonic() >= self._next_submission:
            self._submit()
        looked = time.monotonic() >= self._next_look
        if looked:
            self._next_look = time.monotonic() + LOOK_S
            queue = queued_jobs()
            looked, self._queue = queue is not None, self._queue if queue is None else queue
        found = [each for job in self._jobs.values() if (each := self._outcome(job, looked)) is not None]
        for outcome in found:
            del self._jobs[outcome.cell]
        if not found:
            time.sleep(timeout)
        return found

    def stop(self) -> None:
        """See `Executor`. Jobs are cancelled, or left in the queue if the option says so."""
        if self._jobs and not self.config.leave:
            subprocess.run(["scancel", *(job.number for job in self._jobs.values())], check=False)
        self._jobs.clear()

    def _submit(self) -> None:
        """Submit all new cells, those of one size as an array if there are several."""
        while self._new:
            cells = [cell for cell in self._new if cell.processes == self._new[0].processes]
            for cell in cells:
                outcome_path(self.out, cell.name).unlink(missing_ok=True)
            try:
                numbers = submitted(cells, self.out, self.config)
            except NoAnswerError as refusal:
                self._wait(refusal)
                return
            self._new = [cell for cell in self._new if cell not in cells]
            for cell, number in zip(cells, numbers, strict=True):
                with atomic_write(job_path(self.out, cell.name)) as beside:
                    beside.write_text(number)
                self._jobs[cell.name] = _Job(cell, number)
        self._unanswered = None

    def _wait(self, refusal: NoAnswerError) -> None:
        """Keep the new cells for the next attempt to submit them.

        Raises:
            UserError: If SLURM has not answered for `PATIENCE_S`.
        """
        now = time.monotonic()
        if self._unanswered is None:
            print(f"{refusal}; trying again every {LOOK_S:.0f} s", file=sys.stderr, flush=True)
            self._unanswered = now
        if now - self._unanswered > PATIENCE_S:
            raise UserError(f"{refusal}; start the same command when SLURM runs: nothing is lost")
        self._next_submission = now + LOOK_S

    def _outcome(self, job: _Job, looked: bool) -> Outcome | None:
        """Return the outcome of a job; None while it waits or runs."""
        cell, path = job.cell, outcome_path(self.out, job.cell.name)
        if path.is_file():
            outcome = Outcome(**read_json(path, OUTCOME, remedy="delete it and run the same command again"))
            return self._again(cell, "reached their time limit") if outcome.state == "stopped" else outcome
        state = self._queue.get(job.number, "")
        if not looked:
            return None
        job.ended = None if state not in ENDED else job.ended or time.monotonic()
        if job.ended is None or time.monotonic() < job.ended + SETTLE_S:
            return None
        if cell.is_done(self.out):  # by a job of another call
            return Outcome(cell.name, "done", 0.0)
        if state in LOST:
            return self._again(cell, f"ended as {state or 'unknown'}")
        how = "was cancelled" if state == "CANCELLED" else f"ended as {state}"
        return self._failed(cell, f"job {job.number} {how}")

    def _again(self, cell: Cell, how: str) -> Outcome:
        """Return the outcome of a cell that has to start again, or that has done so too often."""
        if cell.trains or self._starts[cell.name] <= RETRIES:
            return Outcome(cell.name, "stopped", 0.0)
        return self._failed(cell, f"{self._starts[cell.name]} jobs {how}")

    def _failed(self, cell: Cell, error: str) -> Outcome:
        return failed(cell, self.out, f"{error}; see logs/{cell.name}.log and slurm/*.err", 0.0)


def submitted(cells: Sequence[Cell], out: Path, config: SlurmJobs.Config) -> list[str]:
    """Submit one job per cell, for cells that take as many processes; return their numbers.

    Raises:
        UserError: If SLURM refuses them.
        NoAnswerError: If SLURM's controller does not answer.
    """
    import submitit

    variables = node_variables(gpu=config.gpus > 0)
    processes = cells[0].processes
    jobs = submitit.SlurmExecutor(out / "slurm")
    jobs.update_parameters(
        job_name="pretext-bench",
        partition=config.partition,
        account=config.account,
        time=config.time,
        gpus_per_node=config.gpus * processes or None,
        cpus_per_task=config.cpus * processes,
        srun_args=[f"--cpus-per-task={config.cpus * processes}"],  # srun does not take it from sbatch
        mem=config.memory,
        setup=[*(f"export {name}={shlex.quote(value)}" for name, value in variables.items()), config.setup],
        array_parallelism=len(cells),
    )
    same = (out, Path.cwd())
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what sbatch says, and raises it
            made = jobs.map_array(_compute, cells, *([each] * len(cells) for each in same))
    except RuntimeError as error:
        reason = (str(error).splitlines() or ["sbatch failed"])[0]
        if UNREACHABLE.search(str(error)):
            raise NoAnswerError(f"SLURM does not answer: {reason}") from None
        raise UserError(f"SLURM refuses the jobs: {reason}; change the --executor-option that it names") from None
    return [job.job_id for job in made]


def _compute(cell: Cell, out: Path, folder: Path) -> None:
    """Compute a cell as a job, and write its outcome; nothing is written after a `scancel`.

    SLURM announces the end of the time limit by SIGUSR2. That stops a cell like SIGTERM does: a training run saves
    its step.
    """
    announced = False

    def announce(*_: object) -> None:
        nonlocal announced
        announced = True
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGUSR2, announce)
    try:
        outcome = run_on_node(cell, out, folder)
    except KeyboardInterrupt:
        if not announced:
            raise
        outcome = Outcome(cell.name, "stopped", 0.0)
    write_json(outcome_path(out, cell.name), dataclasses.asdict(outcome))


def outcome_path(out: Path, cell: str) -> Path:
    """Return the file in which a cell's job writes how it ended."""
    return out / "slurm" / f"{cell}.json"


def job_path(out: Path, cell: str) -> Path:
    """Return the file with the number of a cell's job."""
    return out / "slurm" / f"{cell}.job"


def queued_jobs() -> dict[str, str] | None:
    """Return the state of each job of this user that SLURM remembers, by its number; None if SLURM does not answer."""
    command = ["squeue", "--me", "--array", "--states=all", "--noheader", "--format=%i %T"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        return None
    return dict(line.split(maxsplit=1) for line in answer.stdout.splitlines())

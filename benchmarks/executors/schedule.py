"""The loop that computes the missing cells of a plan, and the estimate of the time left."""

from __future__ import annotations

import dataclasses
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from benchmarks.records.results import encoder_path
from benchmarks.words.wording import duration
from pretext.system.errors import UserError
from pretext.system.progress import LINE_S

if TYPE_CHECKING:
    from benchmarks.executors.base import Executor, Outcome
    from benchmarks.planning.cells import Cell

UNKNOWN_S = 30.0
"""Expected seconds of a cell that the recipe gives no estimate for."""
MOST_NAMED = 4
"""Running cells that a line names; the others are counted: a cluster may compute 64."""
BUSY_S = 2.0
"""Seconds until the next look at a cell that another process computes."""


def run(
    cells: Iterable[Cell],
    out: Path,
    executor: Executor,
    *,
    expected: Estimate,
    progress: Callable[[Cell, Outcome, int, float], None],
    waiting_for: Callable[[list[Cell], int, float], None] | None = None,
) -> dict[str, str]:
    """Compute cells: encoders before probes, long cells before short ones.

    A probe cell starts once its encoder exists. If the encoder fails, its probe cells fail too.

    Args:
        cells: The missing cells.
        out: The results folder.
        executor: Computes the cells; it is stopped at the end, after an error too.
        expected: Estimate of seconds per cell; updated with every finished cell.
        progress: Called after each cell with the cell, its outcome, the number of cells left and the seconds left.
        waiting_for: Called when no cell has ended for a while, with those that run, the number left and the seconds.

    Returns:
        One error line per failed cell, by cell name.

    Raises:
        UserError: If the results folder can no longer be written.
    """
    waiting = {cell.name: cell for cell in cells}
    running: dict[str, Cell] = {}
    not_before: dict[str, float] = {}
    failures: dict[str, str] = {}
    spoken = time.monotonic()
    try:
        while waiting or running:
            ready = [cell for cell in waiting.values() if not_before.get(cell.name, 0.0) <= time.monotonic()]
            ready = [cell for cell in ready if _encoder_exists(cell, out, {*waiting, *running})]
            ready.sort(key=lambda cell: (cell.protocol is not None, -expected.of(cell), cell.name))
            for cell in ready:
                if not executor.fits(cell):  # later ones do not overtake it, or it would never start
                    break
                running[cell.name] = waiting.pop(cell.name)
                executor.start(cell)
            for outcome in executor.outcomes(0.5):
                cell = running.pop(outcome.cell)
                if outcome.state == "unusable":
                    raise UserError(outcome.error)
                if outcome.state in ("busy", "stopped"):
                    waiting[cell.name] = cell
                    not_before[cell.name] = time.monotonic() + BUSY_S
                    continue
                if outcome.state == "failed":
                    failures[cell.name] = outcome.error
                    for name in [name for name, each in waiting.items() if each.made_by == cell.name]:
                        failures[name] = f"its encoder {cell.name} failed"
                        del waiting[name]
                else:
                    expected.learn(cell, outcome.seconds)
                left = [*waiting.values(), *running.values()]
                progress(cell, outcome, len(left), expected.of_all(left))
                spoken = time.monotonic()
            if waiting_for is not None and running and time.monotonic() - spoken >= LINE_S:
                left = [*waiting.values(), *running.values()]
                waiting_for([*running.values()], len(left), expected.of_all(left))
                spoken = time.monotonic()
    finally:
        executor.stop()
    return failures


def run_and_show(cells: Iterable[Cell], out: Path, executor: Executor, *, expected: Estimate) -> dict[str, str]:
    """Compute cells as `run` does, and print each on stderr; SIGTERM stops as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return run(cells, out, executor, expected=expected, progress=show_progress, waiting_for=show_waiting)


class Timed(Protocol):
    """The fields of a cell that an estimate needs: those of `Cell`, or of a cell in OUT/plan.json."""

    @property
    def pretext(self) -> str:
        """Name of the row."""

    @property
    def probe(self) -> str:
        """Name of the probe; empty for an encoder cell."""

    @property
    def trains(self) -> bool:
        """Whether the cell trains an encoder."""

    @property
    def processes(self) -> int:
        """Processes that train the encoder together; 1 for all other cells."""


@dataclasses.dataclass
class Estimate:
    """Expected duration of cells: the recipe's numbers first, then the mean of finished cells of the same kind.

    A kind is a probe, a row with its own estimate, or all other pretraining. Until one has finished, several processes
    are expected to share the work of an encoder without loss.
    """

    expected_s: Mapping[str, float]
    """Seconds per cell by kind, by one process, as in `Recipe.expected_s`."""
    workers: int
    counts_processes: bool = False
    """As for `Executor`."""
    _seen: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    _expected: float = 0.0
    """Seconds that the cells in `_seen` were expected to take, at the recipe's pace."""

    def learn(self, cell: Timed, seconds: float) -> None:
        """Record the duration of a cell; random weights and cells computed by another process do not count."""
        if seconds > 0 and (cell.probe or cell.trains):
            self._seen.setdefault(self._kind(cell), []).append(seconds)
            self._expected += self._recipe_s(cell)

    def of(self, cell: Timed) -> float:
        """Return the expected seconds of a cell."""
        if not (cell.probe or cell.trains):
            return 1.0
        kind = self._kind(cell)
        if seen := self._seen.get(kind):
            return sum(seen) / len(seen)
        return self._recipe_s(cell) * self._pace()

    def of_all(self, cells: Iterable[Timed]) -> float:
        """Return the seconds until the workers have computed all cells; at least those of the longest cell."""
        each = [(self.of(cell), self._at_once(cell)) for cell in cells]
        return max(sum(seconds / count for seconds, count in each), max((seconds for seconds, _ in each), default=0.0))

    def _at_once(self, cell: Timed) -> int:
        """Return how many cells like this one are computed at the same time."""
        return max(1, self.workers // cell.processes if self.counts_processes else self.workers)

    def _kind(self, cell: Timed) -> str:
        return cell.probe or (cell.pretext if cell.pretext in self.expected_s else "pretrain")

    def _recipe_s(self, cell: Timed) -> float:
        return self.expected_s.get(self._kind(cell), UNKNOWN_S) / cell.processes

    def _pace(self) -> float:
        """Return the ratio of measured to expected time over all finished cells."""
        measured = sum(sum(seconds) for seconds in self._seen.values())
        return measured / self._expected if self._expected and measured else 1.0


def show_progress(cell: Cell, outcome: Outcome, left: int, seconds: float) -> None:
    """Print a line on a finished cell to stderr; see `progress` of `run`."""
    name = _name(cell)
    if outcome.state == "failed":
        result = f"FAILED: {outcome.error}"
    else:
        result = f"{outcome.seconds:.0f} s" if outcome.seconds else "done by another process"
    rest = f"; {left} left, about {duration(seconds)}" if left else ""
    print(f"{name}: {result}{rest}", file=sys.stderr, flush=True)


def show_waiting(running: list[Cell], left: int, seconds: float) -> None:
    """Print a line on the running cells to stderr; see `waiting_for` of `run`."""
    names = ", ".join(_name(cell) for cell in running[:MOST_NAMED])
    names += f" and {len(running) - MOST_NAMED} more" if len(running) > MOST_NAMED else ""
    print(f"running: {names}; {left} left, about {duration(seconds)}", file=sys.stderr, flush=True)


def _name(cell: Cell) -> str:
    return f"{cell.pretext} {cell.column or 'pretraining'} seed {cell.seed}"


def _encoder_exists(cell: Cell, out: Path, unfinished: set[str]) -> bool:
    return cell.made_by is None or (cell.made_by not in unfinished and encoder_path(out, cell.made_by).exists())

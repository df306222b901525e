"""The loop that computes what is missing of a plan, and what it says of the time that is left."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from benchmarks.results import encoder_path
from pretext.system.errors import UserError

if TYPE_CHECKING:
    from benchmarks.cells import Cell
    from benchmarks.executor import Executor, Outcome

UNKNOWN_S = 30.0
"""What a cell is expected to take where the recipe does not say."""
BUSY_S = 2.0
"""How long until a cell that another process computes is looked at again."""


def run(
    cells: Iterable[Cell],
    out: Path,
    executor: Executor,
    *,
    expected: Estimate,
    progress: Callable[[Cell, Outcome, int, float], None],
) -> dict[str, str]:
    """Compute cells, encoders first and the longest first, as their encoders come to be.

    Args:
        cells: What is missing.
        out: The results folder.
        executor: Where to compute; is stopped in any case.
        expected: Seconds a cell; learns from what is seen.
        progress: Told each cell that ended, its outcome, how many are left, and in how many seconds they end.

    Returns:
        Failures by cell, each in a line; a judge whose encoder failed is one.

    Raises:
        UserError: If the folder cannot be written any more.
    """
    waiting = {cell.name: cell for cell in cells}
    running: dict[str, Cell] = {}
    not_before: dict[str, float] = {}
    failures: dict[str, str] = {}
    try:
        while waiting or running:
            able = [cell for cell in waiting.values() if not_before.get(cell.name, 0.0) <= time.monotonic()]
            able = [cell for cell in able if _encoder_there(cell, out, {*waiting, *running})]
            able.sort(key=lambda cell: (cell.judge is not None, -expected.of(cell), cell.name))
            for cell in able[: executor.free()]:
                running[cell.name] = waiting.pop(cell.name)
                executor.start(cell)
            for outcome in executor.outcomes(0.5):
                cell = running.pop(outcome.cell)
                if outcome.state == "unusable":
                    raise UserError(f"{outcome.error}; make room and start the same command again")
                if outcome.state == "busy":
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
    finally:
        executor.stop()
    return failures


class Timed(Protocol):
    """What an estimate asks of a cell."""

    @property
    def pretext(self) -> str:
        """Its row."""

    @property
    def probe(self) -> str:
        """Empty where an encoder is made."""

    @property
    def trains(self) -> bool:
        """Whether an encoder is trained in it."""


@dataclasses.dataclass
class Estimate:
    """How long cells take: as the recipe says at first, then as the cells of their kind took."""

    expected_s: Mapping[str, float]
    workers: int
    _seen: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def learn(self, cell: Timed, seconds: float) -> None:
        """Note how long a cell took; random weights, and what somebody else had done, teach nothing."""
        if seconds > 0 and (cell.probe or cell.trains):
            self._seen.setdefault(self._kind(cell), []).append(seconds)

    def of(self, cell: Timed) -> float:
        """Return the seconds that a cell is expected to take."""
        if not (cell.probe or cell.trains):
            return 1.0
        kind = self._kind(cell)
        if seen := self._seen.get(kind):
            return sum(seen) / len(seen)
        return self._told(kind) * self._pace()

    def of_all(self, cells: Iterable[Timed]) -> float:
        """Return the seconds until all have ended, the workers sharing them; never under the longest."""
        each = [self.of(cell) for cell in cells]
        return max(sum(each) / max(1, self.workers), max(each, default=0.0))

    def _kind(self, cell: Timed) -> str:
        return cell.probe or (cell.pretext if cell.pretext in self.expected_s else "pretrain")

    def _told(self, kind: str) -> float:
        return self.expected_s.get(kind, UNKNOWN_S)

    def _pace(self) -> float:
        """Return how many times longer than told the seen kinds took."""
        took = sum(sum(seconds) for seconds in self._seen.values())
        told = sum(self._told(kind) * len(seconds) for kind, seconds in self._seen.items())
        return took / told if told and took else 1.0


def show_progress(cell: Cell, outcome: Outcome, left: int, seconds: float) -> None:
    """Print a line on a cell that ended."""
    what = f"{cell.pretext} {cell.probe or 'pretraining'} seed {cell.seed}"
    if outcome.state == "failed":
        how = f"FAILED: {outcome.error}"
    else:
        how = f"{outcome.seconds:.0f} s" if outcome.seconds else "done by another process"
    rest = f"; {left} left, about {duration(seconds)}" if left else ""
    print(f"{what}: {how}{rest}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Return a length of time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _encoder_there(cell: Cell, out: Path, unfinished: set[str]) -> bool:
    return cell.made_by is None or (cell.made_by not in unfinished and encoder_path(out, cell.made_by).exists())

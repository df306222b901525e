"""The cost of every row: time, operations, memory and disk, from a measurement and the profile's own times."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.executors.schedule import UNKNOWN_S
from benchmarks.forecast.measuring import Measured
from benchmarks.planning.cells import Cell
from benchmarks.planning.plan import Plan
from benchmarks.planning.recipes import PROFILES, Recipe
from benchmarks.records.results import read_measurements
from benchmarks.words.columns import probe_of
from benchmarks.words.ordering import row_key

PROBE_BYTES, ITEM_BYTES = 0.5e6, 100
"""Assumed size of a probe cell's files, and what each test picture adds; `LOG.md` has what real runs wrote."""
REPORT_BYTES = 7e6
"""Assumed size of tables, figures and report."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowCost:
    """What the missing cells of a row will cost."""

    row: str
    train_s: float
    """Seconds of its training, over all seeds: on the processor, or on the clock with a GPU; assumed if there is a
    `problem`."""
    probe_s: float
    """Seconds of its probes, over all seeds; assumed."""
    flops: float | None
    """Operations of its training, over all seeds."""
    peak_bytes: int | None
    """Peak memory of a training process."""
    disk_bytes: float
    """Files in OUT."""
    problem: str = ""
    """Why its training was not measured."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecast:
    """What the missing cells of a plan will cost."""

    rows: tuple[RowCost, ...]
    pace: float | None
    """Measured to expected time of training, by which the profile's times of the probes are multiplied; None if no
    training was measured."""
    seen: tuple[str, ...]
    """Probes whose time is that of finished cells in OUT."""
    expected_s: Mapping[str, float]
    """Seconds per cell by row and by probe, for the estimate of the time left."""
    probe_bytes: float
    """Assumed memory of a probe's process; 0 if nothing is known of it."""
    gpu: bool
    """Whether times are those of a GPU."""


def forecast(
    plan: Plan, missing: Sequence[Cell], found: Mapping[str, Measured | str], out: Path, *, gpu: bool
) -> Forecast:
    """Return the cost of the missing cells.

    Args:
        plan: The plan.
        missing: Its missing cells.
        found: What was measured of each row, or why it was not; by row.
        out: The results folder: finished cells there give the times of their probes.
        gpu: Whether there is a GPU: then time counts on the clock, not on the processor.
    """
    known = {row: each for row, each in found.items() if isinstance(each, Measured)}
    training = {c.pretext: c for c in plan.cells if c.trains}
    pace = _pace(plan, known, gpu=gpu)
    own = {row: _expected_s(plan.recipe, row) * (pace or 1.0) for row in training}
    own |= {row: _cell_s(each, _images(each, training[row]), gpu=gpu) for row, each in known.items()}
    seen = _seen(plan, out)
    probes = {cell.probe for cell in plan.cells if cell.probe}
    probe_s = {name: seen.get(name, plan.recipe.expected_s.get(name, UNKNOWN_S) * (pace or 1.0)) for name in probes}
    rows = []
    for row in sorted({cell.pretext for cell in missing}, key=row_key):
        cells = [cell for cell in missing if cell.pretext == row]
        trained, probing = [c for c in cells if c.trains], [c for c in cells if c.probe]
        each = known.get(row) if trained else None
        count, problem = len(trained), found.get(row, "not measured")
        rows.append(
            RowCost(
                row=row,
                train_s=count * own[row] if trained else 0.0,
                probe_s=sum(probe_s[cell.probe] for cell in probing),
                flops=None if each is None else count * each.flops_per_image * _images(each, trained[0]),
                peak_bytes=None if each is None else each.peak_bytes + _read_later(each, trained[0]),
                disk_bytes=(0.0 if each is None else count * run_bytes(each, trained[0]))
                + sum(PROBE_BYTES + ITEM_BYTES * _test_pictures(cell) for cell in probing),
                problem=problem if trained and isinstance(problem, str) else "",
            )
        )
    return Forecast(
        rows=tuple(rows),
        pace=pace,
        seen=tuple(sorted(probes & seen.keys())),
        expected_s={**plan.recipe.expected_s, **own, **probe_s},
        probe_bytes=plan.recipe.probe_bytes,
        gpu=gpu,
    )


def steps_of(measured: Measured, cell: Cell) -> int:
    """Return the number of steps of a cell's training; 0 for a task without steps."""
    assert cell.train is not None
    if not measured.images:
        return 0
    steps = cell.train.total_steps(image_count=measured.split, flops_per_image=measured.flops_per_image)
    if steps is None:  # a budget in seconds
        assert cell.train.seconds is not None
        steps = max(1, round(cell.train.seconds * measured.images / measured.wall_s / cell.train.batch_size))
    return steps


def run_bytes(measured: Measured, cell: Cell) -> float:
    """Return the size of a training run's folder: encoder, checkpoint, log, sample sheets, kept encoders."""
    assert cell.train is not None
    config, steps = cell.train, steps_of(measured, cell)
    known = None if config.seconds is not None else steps
    kept = sum(config.keeps(step, known) for step in range(1, steps + 1)) if config.keep is not None else 0
    lines = steps // config.log_every + 1
    sheets = min(config.samples, steps) * measured.sheet_bytes
    return measured.encoder_bytes * (1 + kept) + measured.other_bytes + lines * measured.line_bytes + sheets


def _images(measured: Measured, cell: Cell) -> int:
    assert cell.train is not None
    return steps_of(measured, cell) * cell.train.batch_size


def _read_later(measured: Measured, cell: Cell) -> int:
    """Return the bytes of pictures that a whole run maps and the measured steps have not."""
    images = _images(measured, cell)
    return round(measured.pack_bytes * min(1.0, images / measured.split)) if images else 0


def _cell_s(measured: Measured, images: float, *, gpu: bool) -> float:
    """Return the seconds of a cell that trains on so many pictures."""
    fixed, steps = (
        (measured.fixed_wall_s, measured.wall_s) if gpu else (measured.fixed_cpu_s, measured.cpu_s)
    )  # on a busy machine the clock says nothing of the processor
    return fixed + (steps * images / measured.images if measured.images else 0.0)


def _pace(plan: Plan, known: Mapping[str, Measured], *, gpu: bool) -> float | None:
    """Return the measured to the expected time of rows that train by steps, for the profile's own budget."""
    recipe = PROFILES[plan.recipe.name]() if plan.recipe.name in PROFILES else plan.recipe
    rows = {row: each for row, each in known.items() if each.images}
    expected = {row: _expected_s(recipe, row) for row in rows}
    if not expected:
        return None
    cells = {cell.pretext: cell for cell in plan.cells if cell.trains}
    own_budget = {row: _images(each, dataclasses.replace(cells[row], train=recipe.train)) for row, each in rows.items()}
    taken = [_cell_s(each, own_budget[row], gpu=gpu) for row, each in rows.items()]
    return sum(taken) / sum(expected.values())


def _expected_s(recipe: Recipe, row: str) -> float:
    return recipe.expected_s.get(row, recipe.expected_s.get("pretrain", UNKNOWN_S))


def _seen(plan: Plan, out: Path) -> dict[str, float]:
    """Return the mean seconds of finished cells by probe."""
    planned = {cell.name for cell in plan.cells}
    times: dict[str, dict[str, float]] = {}
    for m in read_measurements(out):
        if m.cell in planned:
            times.setdefault(probe_of(m.probe), {})[m.cell] = m.wall_s
    return {probe: statistics.mean(cells.values()) for probe, cells in times.items()}


def _test_pictures(cell: Cell) -> int:
    return len(cell.data.open().split("test"))

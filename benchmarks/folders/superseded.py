"""Results of outdated settings, which no table may mix with those of the plan."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.planning.cells import NOT_HASHED
from benchmarks.records.results import read_measurements, result_path, superseded_path

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.planning.plan import Plan

OF_PROBE = ("data", "probe", "probe_config", "probe_revision")
"""Settings of a probe cell that say nothing of its encoder."""
PROTOCOL = ("code", "image_size", *OF_PROBE)
"""Settings of a probe cell that do not depend on the encoder."""
SHARED = ("code", "image_size", "encoder", "pretrain_data")
"""Settings that rows of one table share; their budgets may differ, and stand beside them."""


def move_superseded(plan: Plan, out: Path) -> list[str]:
    """Move results of outdated settings to OUT/superseded, so that no table mixes them with those of the plan.

    In the plan's rows, a result stays if its encoder has the row's settings, and its cell is planned, differs from a
    planned one only by a higher seed, or belongs to a column outside the plan. In other rows, a result stays if code,
    image size, architecture and training data are those of the plan. In the plan's columns, the probe must have the
    same protocol too.

    Returns:
        Names of the moved cells.

    Raises:
        UserError: If a file has another schema version, or cannot be read.
    """
    planned = {cell.name for cell in plan.cells}
    settings = {(cell.pretext, cell.column): json.loads(cell.settings) for cell in plan.cells if cell.probe}
    protocols = {column: protocol_of(of_cell) for (_, column), of_cell in settings.items()}
    encoders = {row: encoder_of(of_cell) for (row, _), of_cell in settings.items()}
    shared = {key: [of_row[key] for of_row in encoders.values() if key in of_row] for key in SHARED}
    moved = []
    for name, row in {row.cell: row for row in read_measurements(out, sets=plan.sets)}.items():
        if name in planned:
            continue
        stored = json.loads(row.config_json)
        keep = row.probe not in protocols or protocol_of(stored) == protocols[row.probe]
        if row.pretext in encoders:
            keep &= encoder_of(stored) == encoders[row.pretext]
            keep &= row.seed >= plan.seeds or (row.pretext, row.probe) not in settings
        else:
            keep &= all(stored[key] in values for key, values in shared.items() if key in stored and values)
        if not keep:
            target = superseded_path(out, name)
            target.parent.mkdir(exist_ok=True)
            result_path(out, name).replace(target)
            moved.append(name)
    return moved


def restore(plan: Plan, out: Path) -> list[str]:
    """Move results of the plan's cells back from OUT/superseded; return the names of these cells."""
    back = [cell.name for cell in plan.cells if not cell.is_done(out) and superseded_path(out, cell.name).exists()]
    for name in back:
        result_path(out, name).parent.mkdir(exist_ok=True)
        superseded_path(out, name).replace(result_path(out, name))
    return back


def protocol_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a probe cell that do not depend on the encoder."""
    return {key: without_seeds(settings).get(key) for key in PROTOCOL}


def encoder_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a probe cell that its encoder depends on, without the seed."""
    return {key: value for key, value in without_seeds(settings).items() if key not in OF_PROBE}


def without_seeds(settings: dict[str, Any]) -> dict[str, Any]:
    """Return hashed settings without those that differ between seeds."""
    kept = {key: value for key, value in settings.items() if key not in ("seed", *NOT_HASHED)}
    for part in ("train", "probe_config"):
        if part in kept:
            kept[part] = {key: value for key, value in kept[part].items() if key != "seed"}
    return kept

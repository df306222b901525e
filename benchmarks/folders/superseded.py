"""Results of outdated settings, which no table may mix with those of the plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.planning.cells import NOT_HASHED
from benchmarks.records.results import read_measurements, result_path

if TYPE_CHECKING:
    from benchmarks.planning.plan import Plan

PROTOCOL = ("code", "image_size", "data", "probe", "probe_config", "probe_revision")
"""Settings of a probe cell that do not depend on the encoder."""


def move_superseded(plan: Plan, out: Path) -> list[str]:
    """Move results of outdated settings to OUT/superseded, so that no table mixes two protocols.

    In the plan's rows, a result stays if its cell is planned, or differs from a planned cell only by a higher seed.
    In other rows, a result stays if its probe has the same protocol as in the plan. Results of columns outside the
    plan stay.

    Returns:
        Names of the moved cells.

    Raises:
        UserError: If a file has another schema version, or cannot be read.
    """
    planned = {cell.name for cell in plan.cells}
    settings = {(cell.pretext, cell.column): json.loads(cell.settings) for cell in plan.cells if cell.probe}
    protocols = {column: protocol_of(planned_settings) for (_, column), planned_settings in settings.items()}
    moved = []
    for name, row in {row.cell: row for row in read_measurements(out, sets=plan.sets)}.items():
        if name in planned or row.probe not in protocols:
            continue
        stored, current = json.loads(row.config_json), settings.get((row.pretext, row.probe))
        if current is None:
            keep = protocol_of(stored) == protocols[row.probe]
        else:
            keep = row.seed >= plan.seeds and without_seeds(stored) == without_seeds(current)
        if not keep:
            path = result_path(out, name)
            target = out / "superseded" / path.name
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
            moved.append(name)
    return moved


def protocol_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a probe that do not depend on the encoder."""
    return {key: without_seeds(settings).get(key) for key in PROTOCOL}


def without_seeds(settings: dict[str, Any]) -> dict[str, Any]:
    """Return hashed settings without those that differ between seeds."""
    kept = {key: value for key, value in settings.items() if key not in ("seed", *NOT_HASHED)}
    for part in ("train", "probe_config"):
        if part in kept:
            kept[part] = {key: value for key, value in kept[part].items() if key != "seed"}
    return kept

"""The plan of a comparison: all its cells, the missing ones, and the plan in a few lines."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.planning.cells import (
    CODE,
    Cell,
    DataSource,
)
from benchmarks.planning.recipes import Recipe
from benchmarks.records.results import superseded_path, write_plan
from benchmarks.words.columns import by_set, probe_of
from benchmarks.words.wording import and_list, duration


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """All cells of a comparison, encoder cells first, and the facts that a report must state."""

    recipe: Recipe
    judged: tuple[DataSource, ...]
    """Data sets of the probes."""
    pretrain_data: DataSource
    """Data that rows are trained on."""
    seeds: int
    """Number of seeds; they are 0, 1, …"""
    cells: tuple[Cell, ...]
    left_out: tuple[str, ...]
    """One sentence per row or probe that was left out."""
    notes: tuple[str, ...]
    """Remarks of the data sets."""
    synthetic_sets: tuple[str, ...]
    """Those of the probes' data sets whose images were drawn by a program, as specs."""
    train_pictures: Mapping[str, int]
    """Number of training pictures of each data set of the probes, by spec."""
    pretrain_synthetic: bool
    """Whether the training images were drawn by a program."""

    @property
    def sets(self) -> tuple[str, ...]:
        """Specs of the data sets of the probes."""
        return tuple(source.spec for source in self.judged)

    def missing(self, out: Path) -> list[Cell]:
        """Return the cells to compute; an encoder is made only if a missing probe cell needs it.

        What lies in OUT/superseded is moved back, not computed.
        """
        probe_cells = [
            cell
            for cell in self.cells
            if cell.protocol is not None and not cell.is_done(out) and not superseded_path(out, cell.name).exists()
        ]
        needed = {cell.made_by for cell in probe_cells}
        encoder_cells = [cell for cell in self.cells if cell.name in needed and not cell.is_done(out)]
        return encoder_cells + probe_cells

    def write(self, out: Path, argv: list[str]) -> None:
        """Write OUT/plan.json; `argv` holds the arguments of `run_all.py`."""
        several = len(self.sets) > 1
        write_plan(
            out,
            {
                "profile": self.recipe.name,
                "command": shlex.join(["python", "benchmarks/run_all.py", *argv]),
                "argv": argv,
                "code": CODE,
                "data": list(self.sets) if several else self.sets[0],
                "pretrain_data": self.pretrain_data.spec,
                "pretrain_synthetic": self.pretrain_synthetic,
                "bad_images": self.pretrain_data.bad_images,
                "synthetic": len(self.synthetic_sets) == len(self.sets),
                **({"synthetic_sets": list(self.synthetic_sets)} if several else {}),
                "train_pictures": dict(self.train_pictures),
                "notes": list(self.notes),
                "left_out": list(self.left_out),
                "encoder": self.recipe.encoder,
                "image_size": self.recipe.image_size,
                "rows": list(dict.fromkeys(cell.pretext for cell in self.cells)),
                "probes": list(dict.fromkeys(cell.column for cell in self.cells if cell.probe)),
                "seeds": self.seeds,
                "sized": self.recipe.sized,
                "expected_s": dict(self.recipe.expected_s),
                "cells": [
                    {
                        "name": c.name,
                        "pretext": c.pretext,
                        "probe": c.probe,
                        "seed": c.seed,
                        "made_by": c.made_by,
                        "trains": c.trains,
                        "processes": c.processes,
                    }
                    for c in self.cells
                ],
            },
        )


def plan_text(plan: Plan, missing: list[Cell], workers: int, seconds: float) -> str:
    """Return the plan in a few lines: rows, probes, cells done and missing, and the expected time.

    Args:
        plan: The plan.
        missing: Its missing cells.
        workers: Number of worker processes.
        seconds: Expected time of the missing cells.
    """
    rows = list(dict.fromkeys(cell.pretext for cell in plan.cells))
    columns = by_set(dict.fromkeys(cell.column for cell in plan.cells if cell.probe))
    probes = "; ".join(
        f"{', '.join(map(probe_of, names))}{f' on {label}' if label else ''}" for label, names in columns.items()
    )
    trained = ""
    if (plan.pretrain_data,) != plan.judged:
        trained = f", trained on {plan.pretrain_data.spec}{' (synthetic)' if plan.pretrain_synthetic else ''}"
    on = [f"{spec}{' (synthetic)' if spec in plan.synthetic_sets else ''}" for spec in plan.sets]
    lines = [
        f"profile {plan.recipe.name} on {and_list(on)}{trained}, {plan.recipe.encoder} at {plan.judged[0].size} px",
        f"rows: {', '.join(rows)}",
        f"probes: {probes}; seeds: {plan.seeds}",
        *plan.left_out,
        *plan.notes,
    ]
    if missing:
        lines.append(
            f"{len(plan.cells)} cells, {len(plan.cells) - len(missing)} done; {len(missing)} to compute with {workers} "
            f"worker{'s' if workers > 1 else ''}, about {duration(seconds)}"
        )
    else:
        lines.append(f"{len(plan.cells)} cells, all done: nothing to compute")
    return "\n".join(lines)


def is_left_out(row: str, left_out: Sequence[str]) -> bool:
    """Return whether one of a plan's sentences says that a row was left out."""
    return any(text.startswith(f"row {row} left out") for text in left_out)

"""The plan of a comparison: its cells, what they depend on, and which of them are missing."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cells import BESIDE_THE_VALUE, CODE, Cell, DataSource, Inpainting, Judge, encoder_cell, judge_cell
from benchmarks.recipes import Recipe
from benchmarks.results import read_measurements, result_path, write_plan
from benchmarks.schedule import duration
from benchmarks.verdict import row_key
from pretext.datasets import at_size, open_dataset
from pretext.datasets.base import ImageDataset
from pretext.datasets.packed import BadImages
from pretext.judging import Probe
from pretext.system.errors import UserError

SPLITS = ("train", "val", "test")
REMEDY = {
    "label": "put the pictures into class folders",
    "labels": "give a data set that names its objects, such as voc: or coco:",
    "boxes": "give a data set with boxes, such as voc: or coco:",
    "masks": "give a data set with masks, such as voc: or masks:",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """All cells of a comparison, encoder cells first, and what a report must say about it."""

    recipe: Recipe
    data: DataSource
    """What all rows are judged with."""
    learned: DataSource
    """What rows are trained on: the same, or another."""
    seeds: int
    cells: tuple[Cell, ...]
    left_out: tuple[str, ...]
    """A sentence for each row or probe that was left out."""
    notes: tuple[str, ...]
    synthetic: bool
    """Whether a program drew the pictures that rows are judged with."""
    learned_synthetic: bool
    """Whether one drew those that rows are trained on."""

    def missing(self, out: Path) -> list[Cell]:
        """Return the cells to compute: encoders only where a judge waits for them."""
        judges = [cell for cell in self.cells if cell.judge is not None and not cell.is_done(out)]
        wanted = {cell.made_by for cell in judges}
        makers = [cell for cell in self.cells if cell.name in wanted and not cell.is_done(out)]
        return makers + judges

    def write(self, out: Path, argv: list[str]) -> None:
        """Write what was asked for to OUT/plan.json; `argv` is the command line behind `run_all.py`."""
        write_plan(
            out,
            {
                "profile": self.recipe.name,
                "command": shlex.join(["python", "benchmarks/run_all.py", *argv]),
                "argv": argv,
                "code": CODE,
                "data": self.data.spec,
                "pretrain_data": self.learned.spec,
                "pretrain_synthetic": self.learned_synthetic,
                "bad_images": self.data.bad_images,
                "synthetic": self.synthetic,
                "notes": list(self.notes),
                "left_out": list(self.left_out),
                "encoder": self.recipe.encoder,
                "image_size": self.recipe.image_size,
                "rows": list(dict.fromkeys(cell.pretext for cell in self.cells)),
                "probes": list(dict.fromkeys(cell.probe for cell in self.cells if cell.probe)),
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
                    }
                    for c in self.cells
                ],
            },
        )


def open_data(spec: str, size: int, *, bad_images: BadImages, download: bool) -> tuple[DataSource, ImageDataset]:
    """Open a data set, decode it once at `size` for all processes to come, and fingerprint it.

    Raises:
        UserError: If it cannot be opened, or a picture cannot be decoded and `bad_images` is `stop`.
    """
    sized = at_size(open_dataset(spec, download=download), size, bad_images=bad_images)
    prints = tuple((name, sized.split(name).fingerprint) for name in SPLITS)
    return DataSource(spec=spec, size=size, bad_images=bad_images, fingerprints=prints), sized


def make_plan(
    recipe: Recipe,
    source: DataSource,
    data: ImageDataset,
    *,
    rows: Mapping[str, str | None],
    judges: Mapping[str, Judge],
    seeds: int,
    foreign: Mapping[str, str] | None = None,
    learned: tuple[DataSource, ImageDataset] | None = None,
) -> Plan:
    """Return all cells of rows × judges × seeds that the data set allows.

    Args:
        recipe: Encoder, budget, and the learning rates of its rows.
        source: The data set that rows are judged with, for the cells.
        data: The same, opened.
        rows: Task spec by row name; None is random weights.
        judges: By name.
        seeds: 0, 1, … are computed.
        foreign: Encoder files or `timm:NAME` by row name.
        learned: The same two of what rows are trained on; what they are judged with where None.

    Raises:
        UserError: If nothing is left to compute, or a task cannot be built on the encoder.
    """
    usable, left_out = _usable(judges, data)
    taught, pictures = learned or (source, data)
    makers: list[Cell] = []
    cells: list[Cell] = []
    for row in sorted(rows, key=row_key):
        task = rows[row]
        if task is not None and _needs_labels(task) and not pictures.annotations & {"label", "labels"}:
            left_out.append(f"row {row} left out: {pictures.spec} has no classes; {REMEDY['label']}")
            continue
        if task is not None:
            _check_buildable(row, task, recipe, pictures)
        for seed in range(seeds):
            train = recipe.train_config(row, seed=seed) if task is not None else None
            maker = encoder_cell(row, seed=seed, data=taught, encoder=recipe.encoder, task=task, train=train)
            asked = [
                judge_cell(maker, name, judge, seed=seed, data=source)
                for name, judge in usable.items()
                if not isinstance(judge, Inpainting) or (task is not None and _fills_holes(task))
            ]
            makers += [maker] if asked else []
            cells += asked
    for row, file in (foreign or {}).items():
        maker = encoder_cell(row, seed=0, data=source, encoder=recipe.encoder, foreign=file)
        asked = [
            judge_cell(maker, name, judge, seed=seed, data=source)
            for seed in range(seeds)
            for name, judge in usable.items()
            if not isinstance(judge, Inpainting)
        ]
        makers += [maker] if asked else []
        cells += asked
    if not cells:
        why = "; ".join(left_out) or "no row can do what the probes ask for; add a probe or a row"
        raise UserError(f"nothing is left to compare: {why}")
    return Plan(
        recipe=recipe,
        data=source,
        learned=taught,
        seeds=seeds,
        cells=(*makers, *cells),
        left_out=tuple(left_out),
        notes=data.notes if learned is None else _notes_by_name(data, pictures),
        synthetic=data.synthetic,
        learned_synthetic=pictures.synthetic,
    )


def set_aside(plan: Plan, out: Path) -> list[str]:
    """Move results of other settings than the plan's to OUT/superseded, so that no table mixes the two.

    Of the plan's rows all that another seed does not explain; of other rows what the plan's probes, which they share a
    column with, would be asked otherwise today. Probes that are not in the plan stay.

    Returns:
        The names of what was moved.

    Raises:
        UserError: If a file was written by another version of this suite, or cannot be read.
    """
    planned = {cell.name for cell in plan.cells}
    settings = {(cell.pretext, cell.probe): json.loads(cell.settings) for cell in plan.cells if cell.probe}
    protocols = {probe: _protocol(asked) for (_, probe), asked in settings.items()}
    moved = []
    for name, row in {row.cell: row for row in read_measurements(out)}.items():
        if name in planned or row.probe not in protocols:
            continue
        found, asked = json.loads(row.config_json), settings.get((row.pretext, row.probe))
        if asked is None:
            keep = _protocol(found) == protocols[row.probe]
        else:
            keep = row.seed >= plan.seeds and _seedless(found) == _seedless(asked)
        if not keep:
            path = result_path(out, name)
            target = out / "superseded" / path.name
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
            moved.append(name)
    return moved


def plan_text(plan: Plan, missing: list[Cell], workers: int, seconds: float) -> str:
    """Return the plan in a few lines: what, how much of it is done, how long the rest takes."""
    rows = list(dict.fromkeys(cell.pretext for cell in plan.cells))
    probes = list(dict.fromkeys(cell.probe for cell in plan.cells if cell.probe))
    trained = ""
    if plan.learned != plan.data:
        trained = f", trained on {plan.learned.spec}{' (synthetic)' if plan.learned_synthetic else ''}"
    lines = [
        f"profile {plan.recipe.name} on {plan.data.spec}{' (synthetic)' if plan.synthetic else ''}{trained}, "
        f"{plan.recipe.encoder} at {plan.data.size} px",
        f"rows: {', '.join(rows)}",
        f"probes: {', '.join(probes)}; seeds: {plan.seeds}",
        *plan.left_out,
        *plan.notes,
    ]
    done = len(plan.cells) - len(missing)
    if missing:
        lines.append(
            f"{len(plan.cells)} cells, {done} done; {len(missing)} to compute by {workers} "
            f"worker{'s' if workers > 1 else ''}, about {duration(seconds)}"
        )
    else:
        lines.append(f"{len(plan.cells)} cells, all done: nothing to compute")
    return "\n".join(lines)


def _seedless(settings: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in settings.items() if key not in ("seed", *BESIDE_THE_VALUE)}
    for part in ("train", "probe_config"):
        if part in kept:
            kept[part] = {key: value for key, value in kept[part].items() if key != "seed"}
    return kept


def _notes_by_name(*data: ImageDataset) -> tuple[str, ...]:
    return tuple(f"{each.spec}: {note}" for each in data for note in each.notes)


def _protocol(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what a probe is asked, of whichever encoder."""
    return {key: _seedless(settings).get(key) for key in ("code", "image_size", "data", "probe", "probe_config")}


def _usable(judges: Mapping[str, Judge], data: ImageDataset) -> tuple[dict[str, Judge], list[str]]:
    usable, left_out = {}, []
    for name, judge in judges.items():
        if isinstance(judge, Inpainting) or judge.can_judge(data):
            usable[name] = judge
            continue
        wants = " or ".join(" and ".join(sorted(alternative)) for alternative in judge.needs)
        has = ", ".join(sorted(data.annotations)) or "nothing"
        lacking = sorted(min(judge.needs, key=len, default=frozenset()) - data.annotations)
        remedy = f"; {REMEDY[lacking[0]]}" if lacking else ""
        left_out.append(f"probe {name} left out: it needs {wants}, and {data.spec} annotates {has}{remedy}")
    if left_out and not any(isinstance(judge, Probe) for judge in usable.values()):
        left_out.append("what can be said without: --probes label_free nearest_fill inpainting")
    return usable, left_out


def _check_buildable(row: str, task: str, recipe: Recipe, data: ImageDataset) -> None:
    """Raise a UserError now rather than in an hour where a task does not fit the encoder."""
    from pretext.encoders import build_encoder
    from pretext.tasks import build_task
    from pretext.tasks.base import label_kind

    encoder = build_encoder(recipe.encoder, input_size=recipe.image_size, seed=0)
    try:
        build_task(task, encoder, labels=label_kind(data), seed=0)
    except UserError as error:
        raise UserError(f"row {row}: {error}; here --architecture names the encoder of all rows") from None


def _needs_labels(task: str) -> bool:
    from pretext.tasks import task_class

    return task_class(task).needs_labels


def _fills_holes(task: str) -> bool:
    from pretext.tasks import task_class
    from pretext.tasks.base import Inpainter

    return issubclass(task_class(task), Inpainter)

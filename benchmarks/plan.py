"""The plan of a comparison: all its cells, and the missing ones."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.cells import CODE, AnyProbe, Cell, DataSource, Inpainting, check_slugs, encoder_cell, probe_cell
from benchmarks.columns import by_set, labels_of, probe_of
from benchmarks.ordering import row_key
from benchmarks.probes import REMEDY, usable_probes
from benchmarks.recipes import Recipe
from benchmarks.results import write_plan
from benchmarks.rows import PLAIN, UNTOUCHED, Row
from benchmarks.wording import and_list, duration
from pretext.datasets import at_size, open_dataset, say_opened
from pretext.datasets.base import ImageDataset
from pretext.datasets.packed import BadImages
from pretext.judging import Probe
from pretext.system.errors import UserError

SPLITS = ("train", "val", "test")


class Judging(NamedTuple):
    """A data set, for the cells and opened, and the probes that judge on it, with their settings, by name."""

    source: DataSource
    data: ImageDataset
    probes: Mapping[str, AnyProbe]


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
        """Return the cells to compute; an encoder is made only if a missing probe cell needs it."""
        probe_cells = [cell for cell in self.cells if cell.protocol is not None and not cell.is_done(out)]
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
                    }
                    for c in self.cells
                ],
            },
        )


def open_data(spec: str, size: int, *, bad_images: BadImages, download: bool) -> tuple[DataSource, ImageDataset]:
    """Open a data set, decode it once for all later processes, and fingerprint its splits.

    Args:
        spec: The data set.
        size: Image side in pixels.
        bad_images: Skip undecodable images, or stop.
        download: Fetch a torchvision data set that is missing.

    Returns:
        The source for the cells, and the opened data set with pictures of any size.

    Raises:
        UserError: If the data set cannot be opened, or an image cannot be decoded and `bad_images` is `stop`.
    """
    opened = open_dataset(spec, download=download)
    say_opened(opened, notes=False)  # the plan says them
    sized = at_size(opened, size, bad_images=bad_images, fit="crop")
    prints = tuple((name, sized.split(name).fingerprint) for name in SPLITS)
    opened.notes = sized.notes  # with what cannot be decoded
    return DataSource(spec=spec, size=size, bad_images=bad_images, fingerprints=prints), opened


def make_plan(
    recipe: Recipe,
    judging: Sequence[Judging],
    *,
    rows: Sequence[Row],
    seeds: int,
    pretrain_data: tuple[DataSource, ImageDataset] | None = None,
) -> Plan:
    """Return all cells of rows × data sets × probes × seeds that the data allows.

    Args:
        recipe: Encoder, budget and training settings of the rows.
        judging: The data sets of the probes; at least one.
        rows: The rows; those that are trained come first, in the order of tables.
        seeds: Number of seeds. A row that is not trained here has one encoder for all seeds.
        pretrain_data: The training data, as source and opened data set; None takes the first data set of the probes.

    Raises:
        UserError: If nothing is left to compute, or a task cannot be built on the encoder.
    """
    first = judging[0]
    labels = labels_of([each.source.spec for each in judging])
    check_slugs("data sets", labels.values())
    columns: list[tuple[str, AnyProbe, DataSource]] = []
    left_out: list[str] = []
    for each in judging:
        usable, without = usable_probes(each.probes, each.data)
        columns += [(name, protocol, each.source) for name, protocol in usable.items()]
        left_out += without
    _check_encoder({name: protocol for name, protocol, _ in columns}, recipe)
    train_source, train_images = pretrain_data or (first.source, first.data)

    encoder_cells: list[Cell] = []
    probe_cells: list[Cell] = []
    for row in sorted(rows, key=_place):
        if row.task is not None:
            if _needs_labels(row.task) and not train_images.annotations & {"label", "labels"}:
                left_out.append(f"row {row.name} left out: {train_images.spec} has no classes; {REMEDY['label']}")
                continue
            _check_buildable(row, row.task, recipe, train_images)
        encoders = [
            _encoder_of(row, recipe, seed=seed, train=train_source, judged=first.source) for seed in range(seeds)
        ]
        judged_by = [
            probe_cell(encoder, name, protocol, seed=seed, data=source, label=labels[source.spec])
            for seed, encoder in enumerate(encoders)
            for name, protocol, source in columns
            if _judges(protocol, row)
        ]
        encoder_cells += dict.fromkeys(encoders) if judged_by else ()
        probe_cells += judged_by
    if not probe_cells:
        reason = "; ".join(left_out) or "the chosen probes apply to none of the rows; add a probe or a row"
        raise UserError(f"nothing is left to compare: {reason}")
    judged = {cell.pretext for cell in probe_cells}
    silent = [row.name for row in rows if row.name not in judged and not is_left_out(row.name, left_out)]
    left_out += [f"row {name} left out: none of the probes judges it" for name in silent]
    return Plan(
        recipe=recipe,
        judged=tuple(each.source for each in judging),
        pretrain_data=train_source,
        seeds=seeds,
        cells=(*encoder_cells, *probe_cells),
        left_out=tuple(left_out),
        notes=_notes([*(each.data for each in judging), train_images]),
        synthetic_sets=tuple(each.source.spec for each in judging if each.data.synthetic),
        train_pictures={each.source.spec: len(each.data.split("train")) for each in judging},
        pretrain_synthetic=train_images.synthetic,
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


def _notes(data: Sequence[ImageDataset]) -> tuple[str, ...]:
    """Return the notes of data sets, each once; those of several begin with the set."""
    opened = list({id(each): each for each in data}.values())
    if len(opened) == 1:
        return opened[0].notes
    return tuple(dict.fromkeys(f"{each.spec}: {note}" for each in opened for note in each.notes))


def is_left_out(row: str, left_out: Sequence[str]) -> bool:
    """Return whether one of a plan's sentences says that a row was left out."""
    return any(text.startswith(f"row {row} left out") for text in left_out)


def _place(row: Row) -> tuple[bool, tuple[int, str]]:
    """Return the place of a row among all: trained ones in the order of tables, then the others as they come."""
    return (False, row_key(row.name)) if row.task is not None else (True, (0, ""))


def _encoder_of(row: Row, recipe: Recipe, *, seed: int, train: DataSource, judged: DataSource) -> Cell:
    """Return the cell that makes the encoder of a row; one for all seeds if it is not trained here."""
    if row.task is None:
        return encoder_cell(row.name, seed=0, data=judged, encoder=recipe.encoder, foreign=row.source)
    return encoder_cell(
        row.name,
        seed=seed,
        data=train,
        encoder=recipe.encoder,
        task=row.task,
        train=row.train_config(recipe.train, seed=seed),
        processes=recipe.processes,
    )


def _judges(protocol: AnyProbe, row: Row) -> bool:
    """Return whether a probe judges a row: those that train the encoder leave out what has no weights to train.

    Untouched random weights differ from `random` in the statistics of batch normalisation only, which training renews.
    """
    if isinstance(protocol, Inpainting):
        return row.task is not None and _fills_holes(row.task)
    return protocol.reads_features or (row.name != UNTOUCHED and row not in PLAIN)


def _check_buildable(row: Row, task: str, recipe: Recipe, data: ImageDataset) -> None:
    """Raise a UserError if a task does not fit the encoder, before any training starts."""
    from pretext.tasks import build_task
    from pretext.tasks.base import label_kind
    from pretext.training.starting import initial_encoder

    encoder = initial_encoder(recipe.encoder, row.train_config(recipe.train, seed=0), recipe.image_size)
    try:
        build_task(task, encoder, labels=label_kind(data), seed=0)
    except UserError as error:
        raise UserError(f"row {row.name}: {error}; --architecture sets the encoder of all rows") from None


def _check_encoder(probes: Mapping[str, AnyProbe], recipe: Recipe) -> None:
    """Raise a UserError if the encoder cannot be built, or a probe cannot judge it, before anything is computed."""
    from pretext.encoders import build_encoder

    encoder = build_encoder(recipe.encoder, input_size=recipe.image_size, seed=0)
    for name, protocol in probes.items():
        if isinstance(protocol, Probe):
            try:
                protocol.check_encoder(encoder)
            except UserError as error:
                raise UserError(f"probe {name}: {error}") from None


def _needs_labels(task: str) -> bool:
    from pretext.tasks import task_class

    return task_class(task).needs_labels


def _fills_holes(task: str) -> bool:
    from pretext.tasks import task_class
    from pretext.tasks.base import Inpainter

    return issubclass(task_class(task), Inpainter)

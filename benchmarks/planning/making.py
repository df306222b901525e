"""Make the plan of a comparison from its rows, probes and data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from benchmarks.planning.cells import AnyProbe, Cell, DataSource, Inpainting, check_slugs, encoder_cell, probe_cell
from benchmarks.planning.plan import Plan, is_left_out
from benchmarks.planning.probes import REMEDY, judging_probes, usable_probes
from benchmarks.planning.recipes import Recipe
from benchmarks.planning.rows import PLAIN, UNTOUCHED, Row
from benchmarks.words.columns import labels_of
from benchmarks.words.ordering import row_key
from pretext.datasets import at_size, open_dataset, say_opened
from pretext.datasets.base import ImageDataset
from pretext.datasets.packed import BadImages
from pretext.judging import Probe
from pretext.system.errors import UserError
from pretext.tasks.base import LabelKind, label_kind

SPLITS = ("train", "val", "test")


class Judging(NamedTuple):
    """A data set, for the cells and opened, and the probes that judge on it, with their settings, by name."""

    source: DataSource
    data: ImageDataset
    probes: Mapping[str, AnyProbe]


def open_data(spec: str, size: int, *, bad_images: BadImages, download: bool) -> tuple[DataSource, ImageDataset]:
    """Return one data set of `open_all`."""
    return open_all([spec], size, bad_images=bad_images, download=download)[spec]


def open_all(
    specs: Iterable[str], size: int, *, bad_images: BadImages, download: bool
) -> dict[str, tuple[DataSource, ImageDataset]]:
    """Open data sets, then decode each once for all later processes, and fingerprint its splits.

    Args:
        specs: The data sets.
        size: Image side in pixels.
        bad_images: Skip undecodable images, or stop.
        download: Fetch a torchvision data set that is missing.

    Returns:
        By spec the source for the cells, and the opened data set with pictures of any size.

    Raises:
        UserError: If a data set cannot be opened, or an image cannot be decoded and `bad_images` is `stop`.
    """
    opened = {spec: open_dataset(spec, download=download) for spec in specs}
    found = {}
    for spec, data in opened.items():
        say_opened(data, notes=False)  # the plan says them
        sized = at_size(data, size, bad_images=bad_images, fit="crop")
        prints = tuple((name, sized.split(name).fingerprint) for name in SPLITS)
        data.notes = sized.notes  # with what cannot be decoded
        found[spec] = DataSource(spec=spec, size=size, bad_images=bad_images, fingerprints=prints), data
    return found


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
        UserError: If nothing is left to compute, or a task that needs labels cannot be built on the encoder;
            `check_rows` checks the others.
    """
    first = judging[0]
    labels = labels_of([each.source.spec for each in judging])
    check_slugs("data sets", labels.values())
    columns: list[tuple[str, AnyProbe, DataSource]] = []
    left_out: list[str] = []
    for each in judging:
        usable, without = usable_probes(each.probes, each.data)
        left_out += without
        if any(isinstance(protocol, Probe) for protocol in usable.values()):
            usable, without = judging_probes(usable, each.data, each.source.size)
            left_out += without
        columns += [(name, protocol, each.source) for name, protocol in usable.items()]
    _check_encoder({name: protocol for name, protocol, _ in columns}, recipe)
    train_source, train_images = pretrain_data or (first.source, first.data)

    encoder_cells: list[Cell] = []
    probe_cells: list[Cell] = []
    for row in sorted(rows, key=_place):
        if row.task is not None and _needs_labels(row.task):
            if not train_images.annotations & {"label", "labels"}:
                left_out.append(f"row {row.name} left out: {train_images.spec} has no classes; {REMEDY['label']}")
                continue
            _check_buildable(row, row.task, recipe, label_kind(train_images))
        encoders = _encoders_of(row, recipe, seeds=seeds, train=train_source, judged=first.source)
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


def _notes(data: Sequence[ImageDataset]) -> tuple[str, ...]:
    """Return the notes of data sets, each once; those of several begin with the set."""
    opened = list({id(each): each for each in data}.values())
    if len(opened) == 1:
        return opened[0].notes
    return tuple(dict.fromkeys(f"{each.spec}: {note}" for each in opened for note in each.notes))


def _place(row: Row) -> tuple[bool, tuple[int, str]]:
    """Return the place of a row among all: trained ones in the order of tables, then the others as they come."""
    return (False, row_key(row.name)) if row.task is not None else (True, (0, ""))


def _encoders_of(row: Row, recipe: Recipe, *, seeds: int, train: DataSource, judged: DataSource) -> list[Cell]:
    """Return the cells that make the encoders of a row, by seed; the same for all seeds if it is not trained here."""
    if row.task is None:
        return [encoder_cell(row.name, seed=0, data=judged, encoder=recipe.encoder, foreign=row.source)] * seeds
    return [
        encoder_cell(
            row.name,
            seed=seed,
            data=train,
            encoder=recipe.encoder,
            task=row.task,
            train=row.train_config(recipe.train, seed=seed),
            processes=recipe.processes,
        )
        for seed in range(seeds)
    ]


def _judges(protocol: AnyProbe, row: Row) -> bool:
    """Return whether a probe judges a row: those that train the encoder leave out what has no weights to train.

    Untouched random weights differ from `random` in the statistics of batch normalisation only, which training renews.
    """
    if isinstance(protocol, Inpainting):
        return row.task is not None and _fills_holes(row.task)
    return protocol.reads_features or (row.name != UNTOUCHED and row not in PLAIN)


def check_rows(rows: Iterable[Row], recipe: Recipe) -> None:
    """Raise a UserError if the encoder, or a task that needs no labels, cannot be built: before data is decoded."""
    from pretext.encoders import build_encoder

    build_encoder(recipe.encoder, input_size=recipe.image_size, seed=0)
    for row in rows:
        if row.task is not None and not _needs_labels(row.task):
            _check_buildable(row, row.task, recipe, None)


def _check_buildable(row: Row, task: str, recipe: Recipe, labels: LabelKind | None) -> None:
    from pretext.tasks import build_task
    from pretext.training.starting import initial_encoder

    encoder = initial_encoder(recipe.encoder, row.train_config(recipe.train, seed=0), recipe.image_size)
    try:
        build_task(task, encoder, labels=labels, seed=0)
    except UserError as error:
        raise UserError(f"row {row.name}: {error}; --architecture sets the encoder of all rows") from None


def _check_encoder(probes: Mapping[str, AnyProbe], recipe: Recipe) -> None:
    """Raise a UserError if a probe cannot judge the encoder, before anything is computed."""
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

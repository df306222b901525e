"""Images for the page: nearest neighbours of one query per class, a line per encoder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from benchmarks.report.content import Run
from benchmarks.report.images import image_html
from benchmarks.words.columns import column

if TYPE_CHECKING:
    from pretext.datasets.base import ImageDataset
    from retrieval.regions import Mode
    from retrieval.sheets import Tile

QUERIES = 10
"""Most queries: one of each class, or that many pictures without classes."""
OPEN = 2
"""Queries that are shown at first; the others are folded."""
SHOWN_NEIGHBOURS = 5
SEARCHED = 1000
"""Most regions of the training split that are searched for neighbours."""
QUERY_SIDE, SIDE = 144, 72
"""Sides in pixels of queries and neighbours."""
HEADINGS = {
    "objects": "Objects: the query is the outlined region",
    "contexts": "Contexts: the query is the surroundings; the centre is hidden",
    "images": "Whole images",
}


def neighbours(run: Run, data: ImageDataset, on: str) -> str:
    """Return the nearest neighbours of the same queries for all encoders, by kind of region; empty without encoders.

    `on` is the label of the data.
    """
    modes: tuple[Mode, ...] = ("objects", "contexts") if {"labels", "boxes"} <= data.annotations else ("images",)
    parts = []
    for mode in modes:
        queries, near = neighbours_by_row(run, data, mode=mode, count=QUERIES, shown=SHOWN_NEIGHBOURS, on=on)
        blocks = [
            _block(mode, query, [(run.title(row), found[at]) for row, found in near.items()], data.classes)
            for at, query in enumerate(queries)
        ]
        if blocks:
            parts.append(f"<h3>{HEADINGS[mode]}</h3>{''.join(blocks[:OPEN])}")
        if blocks[OPEN:]:
            more = f"<summary>{len(blocks[OPEN:])} more queries</summary>{''.join(blocks[OPEN:])}"
            parts.append(f'<details class="screen">{more}</details>')
    return "".join(parts)


def neighbours_by_row(
    run: Run, data: ImageDataset, *, mode: Mode, count: int, shown: int, on: str = ""
) -> tuple[list[Tile], dict[str, list[list[Tile]]]]:
    """Return queries, and the neighbours of each by row.

    An encoder is that of the first seed, read at the stage of its headline in `retrieval`, or else in `nearest_fill`;
    rows that neither has judged are left out.

    Args:
        run: A run with encoder files.
        data: See `Retrieval.examples`.
        mode: See `Retrieval.examples`.
        count: Maximum number of queries.
        shown: Maximum number of neighbours of each.
        on: The label of the data, if the run has several sets.
    """
    from pretext.encoders import load_encoder
    from pretext.system.device import device_of

    stages = run.stages_read("retrieval", "nearest_fill", on=on)
    probe = _probe(run, on, least=min(shown, len(data.split("train"))))
    queries: list[Tile] = []
    near: dict[str, list[list[Tile]]] = {}
    for row, folder in run.first_encoders().items():
        if row in stages:
            encoder = load_encoder(folder / "encoder.safetensors").to(device_of("auto"))
            queries, near[row] = probe.examples(encoder, data, mode=mode, stage=stages[row], count=count, shown=shown)
    return queries, near


def _block(mode: str, query: Tile, near: Sequence[tuple[str, Sequence[Tile]]], classes: Sequence[str]) -> str:
    """Return one query in large, and a line of neighbours for each encoder, by its title."""
    from retrieval.sheets import outlined

    name = _class_of(query, classes)
    image = image_html(
        outlined(query, side=QUERY_SIDE), f"Nearest neighbours ({mode}), query: {name or 'a test image'}"
    )
    lines = []
    for title, tiles in near:
        right = sum(_is_right(query, tile) for tile in tiles)
        count = f"<small>{right} of {len(tiles)}</small>" if query.label >= 0 else ""
        cells = "".join(f"<td>{_neighbour(query, tile, classes)}</td>" for tile in tiles)
        lines.append(f'<tr><th scope="row">{escape(title)}{count}</th>{cells}</tr>')
    label = f"Neighbours of {name or 'a test image'}"
    return (
        f'<div class="query"><figure>{image}<figcaption>{escape(name) or "query"}</figcaption></figure>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">'
        f'<table class="near"><tbody>{"".join(lines)}</tbody></table></div></div>'
    )


def _neighbour(query: Tile, tile: Tile, classes: Sequence[str]) -> str:
    """Return a neighbour; a right class has a full frame and a tick, a wrong one a dashed frame and a cross."""
    from retrieval.sheets import outlined

    name = _class_of(tile, classes)
    image = image_html(outlined(tile, side=SIDE), f"neighbour: {name}" if name else "neighbour", quality=75)
    if query.label < 0:
        return image
    kind, sign = ("hit", "✓") if _is_right(query, tile) else ("miss", "✗")
    return f'<figure class="{kind}">{image}<figcaption>{sign} {escape(name)}</figcaption></figure>'


def _is_right(query: Tile, tile: Tile) -> bool:
    return query.label >= 0 and query.label == tile.label


def _class_of(tile: Tile, classes: Sequence[str]) -> str:
    return classes[tile.label] if tile.label >= 0 else ""


def _probe(run: Run, on: str, *, least: int) -> Any:
    """Return the run's retrieval probe, or one for `least` neighbours, with a database small enough for the page."""
    from retrieval.probes.retrieval import Retrieval

    settings = next((m.config_json for m in run.measurements if m.probe == column("retrieval", on)), None)
    probe = Retrieval(k=least) if settings is None else Retrieval(**json.loads(settings)["probe_config"])
    searched = max(probe.k, min(probe.database, SEARCHED))
    return dataclasses.replace(probe, seed=0, database=searched, queries=min(probe.queries, 100))

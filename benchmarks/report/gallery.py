"""Images for the page: nearest neighbours, detections and segmentations, first-layer filters."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from benchmarks.report.content import Run
from benchmarks.report.images import as_image, image_html, sheet_html

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from pretext.datasets.base import ImageDataset

QUERIES = 3
SHOWN_NEIGHBOURS = 5
SEARCHED = 1000
"""Most regions of the training split that are searched for neighbours."""
OPEN_ROWS = ("random", "supervised", "context_encoder")
"""Rows whose detections and segmentations are unfolded at first."""
SHEETS = {"detection": "detections.png", "segmentation": "segmentation.png"}
FILTERS = 64
"""Most filters that are shown of a first layer."""
FILTERS_WIDTH = 288
"""Width in pixels that the grid of filters is enlarged to, by an integer factor."""
SHEET_WIDTH = 1000
"""Width in pixels that wider sheets are shrunk to."""


def open_data(run: Run) -> ImageDataset:
    """Open the run's data set, with pictures of any size.

    Raises:
        UserError: If the data set can no longer be opened.
    """
    from pretext.datasets import open_dataset

    return open_dataset(run.plan["data"])


def neighbours(run: Run, data: ImageDataset) -> dict[str, list[str]]:
    """Return sheets of nearest neighbours by kind of region, with the same queries for all encoders."""
    from pretext.encoders import load_encoder
    from pretext.system.device import device_of
    from retrieval.probes.retrieval import Retrieval
    from retrieval.regions import Mode
    from retrieval.sheets import Tile, neighbour_sheet

    stages = {s.pretext: s.stage for s in run.summaries if s.probe == "retrieval" and s.headline}
    encoders = {row: folder for row, folder in run.first_encoders().items() if row in stages and row in run.shown}
    if not encoders:
        return {}
    probe = _retrieval(run, Retrieval)
    modes: tuple[Mode, ...] = ("objects", "contexts") if {"labels", "boxes"} <= data.annotations else ("images",)
    found: dict[str, list[str]] = {}
    for mode in modes:
        queries: list[Tile] = []
        by_row: dict[str, list[list[Tile]]] = {}
        for row, folder in encoders.items():
            encoder = load_encoder(folder / "encoder.safetensors").to(device_of("auto"))
            queries, near = probe.examples(encoder, data, mode=mode, stage=stages[row], count=QUERIES)
            by_row[row] = [tiles[:SHOWN_NEIGHBOURS] for tiles in near]
        found[mode] = [
            sheet_html(
                neighbour_sheet([query], {row: [near[place]] for row, near in by_row.items()}),
                f"Nearest neighbours ({mode}), {query.caption}: {SHOWN_NEIGHBOURS} per row, for {', '.join(by_row)}",
            )
            for place, query in enumerate(queries)
        ]
    return found


def sheets(run: Run, probe: str) -> dict[str, str]:
    """Return the sheets that a probe has written, by row; the first seed's."""
    from PIL import Image

    found = {}
    for row in run.shown:
        cells = {m.seed: m.cell for m in run.measurements if (m.pretext, m.probe) == (row, probe)}
        path = run.out / "artifacts" / cells[min(cells)] / SHEETS[probe] if cells else None
        if path is None or not path.exists():
            continue
        with Image.open(path) as opened:
            sheet = opened.convert("RGB")
        if sheet.width > SHEET_WIDTH:
            size = (SHEET_WIDTH, round(sheet.height * SHEET_WIDTH / sheet.width))
            sheet = sheet.resize(size, Image.Resampling.LANCZOS)
        found[row] = sheet_html(sheet, f"{probe} of test images with the encoder of {row}, next to the ground truth")
    return found


def filters(run: Run) -> dict[str, str]:
    """Return the first layer's filters by row, each stretched to the full range of intensity."""
    from pretext.encoders import load_encoder

    found = {}
    for row, folder in run.first_encoders().items():
        weights = _first_layer(load_encoder(folder / "encoder.safetensors"))
        if weights is not None:
            shown = weights[:FILTERS]
            all_of = "" if len(shown) == len(weights) else f" of {len(weights)}"
            alt = f"{len(shown)}{all_of} filters of the first layer of {row}"
            found[row] = image_html(_filter_grid(shown), alt, lossless=True)
    return found


def _retrieval(run: Run, kind: type[Any]) -> Any:
    """Return the run's retrieval probe with a database and a number of queries small enough for the page."""
    settings = next(m.config_json for m in run.measurements if m.probe == "retrieval")
    config = json.loads(settings).get("probe_config", {})
    probe = kind(**config)
    return dataclasses.replace(
        probe, seed=0, database=max(probe.k, min(probe.database, SEARCHED)), queries=min(probe.queries, 50)
    )


def _first_layer(encoder: Any) -> Tensor | None:
    """Return the weights F×3×K×K of the first convolution with three input channels."""
    from torch import nn

    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            return module.weight.detach().float().cpu()
    return None


def _filter_grid(shown: Tensor, columns: int = 8) -> Image:
    """Return filters as a grid of K×K tiles with a grey line between them, enlarged by an integer factor."""
    import torch

    low, high = shown.amin(dim=(1, 2, 3), keepdim=True), shown.amax(dim=(1, 2, 3), keepdim=True)
    shown = (shown - low) / (high - low).clamp(min=1e-12)
    side = shown.shape[-1] + 1
    lines = -(-len(shown) // columns)
    grid = torch.full((3, lines * side - 1, columns * side - 1), 0.5)
    for place, tile in enumerate(shown):
        y, x = place // columns * side, place % columns * side
        grid[:, y : y + side - 1, x : x + side - 1] = tile
    times = max(1, FILTERS_WIDTH // grid.shape[2])
    return as_image(grid.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2))

"""Pictures: holes filled, neighbours found, features coloured, objects drawn, first layers. All lie in the page."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from jaxtyping import Float

from benchmarks.report.content import MOST_SHOWN, Run
from benchmarks.report.tables import breakable

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from pretext.datasets.base import ImageDataset

FILLED = 8
"""Test pictures with a hole."""
QUERIES = 3
SHOWN_NEIGHBOURS = 5
SEARCHED = 1000
"""Regions of the training split that the page's neighbours are looked for in, at most."""
COLOURED = 6
"""Test pictures whose features are shown as colour."""
COLOURED_SIDE = 96
"""Pixels of a side that they are shown at."""
FINE = 12
"""Cells of a map's side that show where things are: with 8, hardly more than the padding's trace is seen."""
OPEN_ROWS = ("random", "supervised", "context_encoder")
"""Rows whose detections and segmentations are shown at once; the others' are folded."""
SHEETS = {"detection": "detections.png", "segmentation": "segmentation.png"}
SHEET_WIDTH = 1000
"""Pixels; wider sheets are shrunk."""


def open_data(run: Run) -> ImageDataset:
    """Return the run's data at its size.

    Raises:
        UserError: If it cannot be opened any more.
    """
    from pretext.datasets import at_size, open_dataset

    return at_size(
        open_dataset(run.plan["data"]), run.plan["image_size"], bad_images=run.plan.get("bad_images", "skip")
    )


def fills(run: Run, data: ImageDataset) -> str:
    """Return the same holed test pictures as each decoder fills them; empty where there is no decoder."""
    from pretext.inpainting import baseline_fills, drawn_pictures, filled_by
    from pretext.run_folder import load_task
    from pretext.tasks.base import Inpainter

    tasks = {}
    for row, folder in run.first_encoders().items():
        if (folder / "checkpoint.safetensors").exists():
            task = load_task(folder)
            if isinstance(task, Inpainter):
                tasks[row] = task
    if not tasks:
        return ""
    pictures = drawn_pictures(data, image_size=run.plan["image_size"], test_images=FILLED, seed=0, hole="central")
    columns: dict[str, Tensor] = {"input": pictures.shown().float() / 255}
    columns |= baseline_fills(pictures)
    columns |= {row: filled_by(task, pictures) for row, task in list(tasks.items())[:MOST_SHOWN]}
    columns["original"] = pictures.images.float() / 255
    head = "".join(f'<th scope="col">{breakable(name)}</th>' for name in columns)
    lines = []
    for number in range(len(pictures.images)):
        cells = [
            f"<td>{image_html(_as_image(column[number]), _fill_alt(name, number + 1))}</td>"
            for name, column in columns.items()
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        '<div class="scroll fills" tabindex="0" role="region" aria-label="Filled holes">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def neighbours(run: Run, data: ImageDataset) -> dict[str, list[str]]:
    """Return sheets of nearest neighbours by kind of region: the same queries for all encoders."""
    from pretext.device import device_of
    from pretext.encoders import load_encoder
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
                f"Nearest neighbours ({mode}), {query.caption}: a row of {SHOWN_NEIGHBOURS} for each of "
                f"{', '.join(by_row)}",
            )
            for place, query in enumerate(queries)
        ]
    return found


def dense(run: Run, data: ImageDataset) -> str:
    """Return the same test pictures as each encoder's features colour them; empty where there is no encoder."""
    import torch
    import torch.nn.functional as F

    from pretext.device import device_of
    from pretext.encoders import load_encoder
    from pretext.encoders.base import evaluating
    from pretext.inpainting import drawn_pictures

    size = run.plan["image_size"]
    images = drawn_pictures(data, image_size=size, test_images=COLOURED, seed=0, hole="central").images
    lines = [_picture_line("picture", "", [_as_image(image.float() / 255) for image in images], "Test picture {}")]
    for row, folder in run.first_encoders().items():
        encoder = load_encoder(folder / "encoder.safetensors").to(device_of("auto"))
        with evaluating(encoder), torch.inference_mode():
            maps = [one.float().cpu() for one in encoder(images.to(device_of("auto")))]
        number = fine_stage([min(one.shape[2:]) for one in maps])
        colours, held = principal_colours(maps[number])
        shown = F.interpolate(colours, size=(COLOURED_SIDE, COLOURED_SIDE), mode="bilinear").clamp(0, 1)
        stage = encoder.stages[number].name
        alt = f"Test picture {{}} as the features of {row} at {stage} colour it"
        lines.append(_picture_line(row, f"{stage}, {held:.0%}", [_as_image(one) for one in shown], alt))
    if len(lines) == 1:
        return ""
    return (
        '<div class="scroll fills dense" tabindex="0" role="region" aria-label="Dense features as colour">'
        f"<table><tbody>{''.join(lines)}</tbody></table></div>"
    )


def fine_stage(sides: Sequence[int]) -> int:
    """Return which stage to look at, by the sides of the maps: the deepest that is fine enough, else the finest."""
    enough = min(FINE, max(sides))
    return max(place for place, side in enumerate(sides) if side >= enough)


def principal_colours(maps: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B 3 H W"], float]:
    """Return the first three principal components of all cells' features as red, green and blue in [0, 1].

    One analysis over all the maps. A component's sign, which is free, makes its largest loading positive; its
    range is cut at its 1st and 99th percentile. Of fewer than three components the others are 0.5 throughout.

    Returns:
        The colours, and which part of the variance the three components hold.
    """
    import torch

    cells = maps.permute(0, 2, 3, 1).flatten(0, 2).double()
    cells = cells - cells.mean(dim=0)
    _, strengths, directions = torch.linalg.svd(cells, full_matrices=False)
    directions = directions[:3]
    largest = directions.abs().argmax(dim=1, keepdim=True)
    directions = directions * directions.gather(1, largest).sign()
    found = cells @ directions.T
    low, high = (torch.quantile(found, q, dim=0) for q in (0.01, 0.99))
    flat = high - low <= 1e-9 * strengths[0].clamp(min=1e-30)
    found = torch.where(flat, 0.5, (found - low) / (high - low).masked_fill(flat, 1.0)).clamp(0, 1)
    found = torch.nn.functional.pad(found, (0, 3 - found.shape[1]), value=0.5)
    variance = strengths.square()
    held = float(variance[:3].sum() / variance.sum()) if variance.sum() > 0 else 1.0
    return found.view(len(maps), *maps.shape[2:], 3).permute(0, 3, 1, 2).float(), held


def _picture_line(name: str, below: str, pictures: Sequence[Image], alt: str) -> str:
    cells = "".join(f"<td>{image_html(one, alt.format(at))}</td>" for at, one in enumerate(pictures, start=1))
    small = f"<small>{escape(below)}</small>" if below else ""
    return f'<tr><th scope="row">{breakable(name)}{small}</th>{cells}</tr>'


def sheets(run: Run, probe: str) -> dict[str, str]:
    """Return the sheets that a probe left behind, by row."""
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
        found[row] = sheet_html(sheet, f"{probe} of test pictures from the encoder of {row}, beside the truth")
    return found


def filters(run: Run) -> dict[str, str]:
    """Return the first layer's filters by row, each stretched to the full range of colour."""
    from pretext.encoders import load_encoder

    found = {}
    for row, folder in run.first_encoders().items():
        weights = _first_layer(load_encoder(folder / "encoder.safetensors"))
        if weights is not None:
            image = _filter_grid(weights)
            found[row] = image_html(image, f"{len(weights)} filters of the first layer of {row}", lossless=True)
    return found


def image_html(image: Image, alt: str, *, lossless: bool = False, quality: int = 88) -> str:
    """Return an `img` whose content lies in its address."""
    file = io.BytesIO()
    if lossless or max(image.size) <= 64:
        image.save(file, format="PNG", optimize=True)
        kind = "png"
    else:
        image.save(file, format="JPEG", quality=quality)
        kind = "jpeg"
    content = base64.b64encode(file.getvalue()).decode()
    return (
        f'<img src="data:image/{kind};base64,{content}" alt="{escape(alt)}" '
        f'width="{image.width}" height="{image.height}">'
    )


def sheet_html(sheet: Image, alt: str) -> str:
    """Return a wide picture in a container of its own that scrolls."""
    return (
        f'<div class="scroll sheet" tabindex="0" role="region" aria-label="{escape(alt)}">'
        f"{image_html(sheet, alt, quality=82)}</div>"
    )


def _fill_alt(name: str, number: int) -> str:
    if name in ("input", "original"):
        return f"Test picture {number}, {'with its hole' if name == 'input' else 'whole'}"
    return f"Test picture {number} as {name} fills it"


def _as_image(picture: Tensor) -> Image:
    from PIL import Image

    return Image.fromarray(picture.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy())


def _retrieval(run: Run, kind: type[Any]) -> Any:
    """Return the retrieval probe as it was asked, looking no further than a page needs."""
    settings = next(m.config_json for m in run.measurements if m.probe == "retrieval")
    config = json.loads(settings).get("probe_config", {})
    probe = kind(**config)
    return dataclasses.replace(
        probe, seed=0, database=max(probe.k, min(probe.database, SEARCHED)), queries=min(probe.queries, 50)
    )


def _first_layer(encoder: Any) -> Tensor | None:
    """Return the weights F×3×K×K of the first convolution that sees colours."""
    from torch import nn

    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            return module.weight.detach().float().cpu()
    return None


def _filter_grid(weights: Tensor, columns: int = 8, most: int = 64) -> Image:
    """Return filters as a grid of K×K tiles, a grey pixel between them."""
    import torch

    shown = weights[:most]
    low, high = shown.amin(dim=(1, 2, 3), keepdim=True), shown.amax(dim=(1, 2, 3), keepdim=True)
    shown = (shown - low) / (high - low).clamp(min=1e-12)
    side = shown.shape[-1] + 1
    lines = -(-len(shown) // columns)
    grid = torch.full((3, lines * side - 1, columns * side - 1), 0.5)
    for place, tile in enumerate(shown):
        y, x = place // columns * side, place % columns * side
        grid[:, y : y + side - 1, x : x + side - 1] = tile
    return _as_image(grid)

"""Neighbours as pictures: a query at the left, what was found for it at the right, best first.

Photographs keep their own proportions here, though the encoder saw them squashed to squares. A region is
shown as its whole picture with an outline, and below that alone, where it is a part of the picture: for a
context that is the hidden centre, which the search never saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pretext.datasets.base import ImageDataset
from pretext.system.checkpoint import atomic_write
from pretext.transforms.masks import MEAN_COLOUR
from retrieval.originals import original
from retrieval.regions import WHOLE, Box

SIDE = 112
"""Pixels of a tile's side."""
GAP = 6
CAPTION = 15
OUTLINE = "#ff2d55"
SEEN = 10
"""Pixels of an outline's side, at least: around less it would be a dot, or cover what it is around."""


@dataclass(frozen=True)
class Tile:
    """A region of a picture, and what is written below it."""

    picture: UInt8[Tensor, "3 H W"]
    box: Box
    caption: str
    hidden: bool = False
    """Show the picture with the region filled, as the encoder saw it."""


def tile_of(data: ImageDataset, row: Any, caption: str, *, hidden: bool = False) -> Tile:
    """Return the tile of a patch table's row.

    Args:
        data: The split that the table is of, its pictures of one size.
        row: A row of `PATCH`.
        caption: What is written below it.
        hidden: As in `Tile`.
    """
    picture = original(data, int(row["image"]))
    return Tile(picture, (float(row["x"]), float(row["y"]), float(row["w"]), float(row["h"])), caption, hidden)


def neighbour_tiles(
    data: ImageDataset, rows: NDArray[Any], cosines: NDArray[Any], classes: Sequence[str]
) -> list[Tile]:
    """Return the tiles of one query's neighbours, captioned with rank, cosine and class.

    Args:
        data: The split that was searched.
        rows: The neighbours' rows of the patch table, best first.
        cosines: Their similarities.
        classes: Of the data set.
    """
    return [
        tile_of(data, row, f"{rank} · {cosine:.3f} {class_name(row, classes)}".rstrip())
        for rank, (row, cosine) in enumerate(zip(rows, cosines, strict=True), 1)
    ]


def class_name(row: Any, classes: Sequence[str]) -> str:
    """Return the class of a patch table's row; empty where it has none."""
    return classes[int(row["label"])] if row["label"] >= 0 else ""


def neighbour_sheet(
    queries: Sequence[Tile], neighbours_per_encoder: Mapping[str, Sequence[Sequence[Tile]]]
) -> Image.Image:
    """Draw queries and their neighbours: a query a block, and in it an encoder a row.

    Args:
        queries: At least one.
        neighbours_per_encoder: By the encoder's name, for each query its neighbours, best first.
    """
    font = ImageFont.load_default(11)
    names = list(neighbours_per_encoder)
    found = [tile for rows in neighbours_per_encoder.values() for row in rows for tile in row]
    parts = any(tile.box != WHOLE for tile in (*queries, *found))
    label_width = round(max(font.getlength(name) for name in names)) + 2 * GAP
    columns = max(len(row) for rows in neighbours_per_encoder.values() for row in rows)
    row_height = SIDE * (2 if parts else 1) + CAPTION + (2 * GAP if parts else GAP)
    size = (
        label_width + (columns + 1) * (SIDE + GAP) + 3 * GAP,
        GAP + len(queries) * len(names) * row_height,
    )
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for q, query in enumerate(queries):
        top = GAP + q * len(names) * row_height
        _place(sheet, query, GAP, top, parts=parts, font=font)
        for n, name in enumerate(names):
            y = top + n * row_height
            left = SIDE + 3 * GAP
            draw.text((left, y + SIDE / 2), name, fill="black", font=font, anchor="lm")
            for c, tile in enumerate(neighbours_per_encoder[name][q]):
                _place(sheet, tile, left + label_width + c * (SIDE + GAP), y, parts=parts, font=font)
    return sheet


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a sheet as PNG, whole or not at all."""
    with atomic_write(path) as beside:
        sheet.save(beside, format="PNG")


def _place(sheet: Image.Image, tile: Tile, x: int, y: int, *, parts: bool, font: Any) -> None:
    draw = ImageDraw.Draw(sheet)
    picture = Image.fromarray(tile.picture.permute(1, 2, 0).cpu().numpy())
    shown = _fitted(picture)
    width, height = shown.size
    left, top, w, h = tile.box
    # Shares are rounded, and Pillow cuts nothing that lies a millionth of a pixel outside.
    box = (left * width, top * height, min(left + w, 1) * width, min(top + h, 1) * height)
    a, b, c, d = map(round, box)
    c, d = max(c, a + 1), max(d, b + 1)
    if tile.hidden:
        shown.paste(tuple(round(255 * value) for value in MEAN_COLOUR), (a, b, c, d))
    if tile.box != WHOLE:
        across, down = (max(0, SEEN - (high - low)) // 2 for low, high in ((a, c), (b, d)))
        outline = (a - across, b - down, c + across - 1, d + down - 1)
        ImageDraw.Draw(shown).rectangle(outline, outline=OUTLINE, width=2)
        scale_x, scale_y = picture.width / width, picture.height / height
        edges = (box[0] * scale_x, box[1] * scale_y, box[2] * scale_x, box[3] * scale_y)
        _centre(sheet, _fitted(picture, edges), x, y + SIDE + GAP)
    _centre(sheet, shown, x, y)
    text_y = y + SIDE * (2 if parts else 1) + (GAP if parts else 0) + 2
    draw.text((x + SIDE / 2, text_y), _shortened(tile.caption, font), fill="black", font=font, anchor="ma")


def _fitted(picture: Image.Image, edges: tuple[float, float, float, float] | None = None) -> Image.Image:
    """Return the picture, or the part within `edges`, as large as a tile holds it in its own proportions."""
    left, top, right, bottom = edges or (0, 0, *picture.size)
    scale = SIDE / max(right - left, bottom - top)
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    return picture.resize(size, Image.Resampling.BICUBIC, box=(left, top, right, bottom))


def _centre(sheet: Image.Image, shown: Image.Image, x: int, y: int) -> None:
    sheet.paste(shown, (x + (SIDE - shown.width) // 2, y + (SIDE - shown.height) // 2))


def _shortened(text: str, font: Any) -> str:
    if font.getlength(text) <= SIDE:
        return text
    while text and font.getlength(text + "…") > SIDE:
        text = text[:-1]
    return text + "…"

"""Draw sheets of nearest neighbours: the query on the left, its neighbours on the right, best first.

Pictures keep their own proportions here, although the encoder saw them resized to squares. A region is shown as an
outline in its picture, with the region alone below. For a context, that is the hidden centre.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.fitting import padded_place
from pretext.datasets.packed import PackedDataset, ResizedDataset
from pretext.system.errors import UserError
from pretext.transforms.masks import MEAN_COLOUR
from retrieval.originals import original
from retrieval.regions import WHOLE, Box

SIDE = 112
"""Side of a tile in pixels."""
GAP = 6
CAPTION = 15
OUTLINE = "#ff2d55"
MIN_OUTLINE = 10
"""Minimum side of an outline in pixels; a smaller one would cover its region."""


@dataclass(frozen=True)
class Tile:
    """A region of a picture with a caption."""

    picture: UInt8[Tensor, "3 H W"]
    box: Box
    caption: str
    hidden: bool = False
    """Fill the region with the mean colour, as the encoder saw it."""
    label: int = -1
    """Class of the region; -1 if it has none."""


def tile_of(data: ImageDataset, row: Any, caption: str, *, hidden: bool = False) -> Tile:
    """Return the tile of a patch table's row.

    Args:
        data: The split of the table.
        row: A row of `PATCH`.
        caption: Text below the tile.
        hidden: Fill the region; see `Tile`.

    Raises:
        UserError: If the picture can no longer be decoded.
    """
    try:
        picture = original(data, int(row["image"]))
    except BadImage as error:
        raise UserError(f"{data.spec}: {error}; mend the file, or index the data set again") from None
    box = (float(row["x"]), float(row["y"]), float(row["w"]), float(row["h"]))
    if isinstance(data, PackedDataset | ResizedDataset) and data.fit == "pad":
        box = _unpadded(box, picture.shape[1], picture.shape[2], data.size)
    return Tile(picture, box, caption, hidden, int(row["label"]))


def _unpadded(box: Box, height: int, width: int, size: int) -> Box:
    """Return a box of a padded square as shares of the picture in it, at its own height and width."""
    top, left, inner_height, inner_width = padded_place(height, width, size)
    x, y, w, h = (size * share for share in box)
    return (x - left) / inner_width, (y - top) / inner_height, w / inner_width, h / inner_height


def neighbour_tiles(
    data: ImageDataset, rows: NDArray[Any], cosines: NDArray[Any], classes: Sequence[str]
) -> list[Tile]:
    """Return the tiles of one query's neighbours, with rank, cosine and class as caption.

    Args:
        data: The split that was searched.
        rows: The neighbours' rows of the patch table, best first.
        cosines: Cosine similarities to the query.
        classes: Class names of the data set.
    """
    return [
        tile_of(data, row, f"{rank} · {cosine:.3f} {class_name(row, classes)}".rstrip())
        for rank, (row, cosine) in enumerate(zip(rows, cosines, strict=True), 1)
    ]


def class_name(row: Any, classes: Sequence[str]) -> str:
    """Return the class name of a patch table's row; empty if it has none."""
    return classes[int(row["label"])] if row["label"] >= 0 else ""


def neighbour_sheet(
    queries: Sequence[Tile], neighbours_per_encoder: Mapping[str, Sequence[Sequence[Tile]]]
) -> Image.Image:
    """Draw queries and their neighbours: one block per query, with one row per encoder.

    Args:
        queries: At least one query.
        neighbours_per_encoder: For each encoder's name, the neighbours of each query, best first.
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
        _draw_tile(sheet, query, GAP, top, parts=parts, font=font)
        for n, name in enumerate(names):
            y = top + n * row_height
            left = SIDE + 3 * GAP
            draw.text((left, y + SIDE / 2), name, fill="black", font=font, anchor="lm")
            for c, tile in enumerate(neighbours_per_encoder[name][q]):
                _draw_tile(sheet, tile, left + label_width + c * (SIDE + GAP), y, parts=parts, font=font)
    return sheet


def outlined(tile: Tile, *, side: int = SIDE) -> Image.Image:
    """Return a tile's picture with its region outlined, or filled if it is hidden; its longer side is `side` pixels."""
    return _outlined(tile, side)[0]


def _draw_tile(sheet: Image.Image, tile: Tile, x: int, y: int, *, parts: bool, font: Any) -> None:
    draw = ImageDraw.Draw(sheet)
    shown, box = _outlined(tile, SIDE)
    if box is not None:
        picture = _picture(tile)
        scale_x, scale_y = picture.width / shown.width, picture.height / shown.height
        edges = (box[0] * scale_x, box[1] * scale_y, box[2] * scale_x, box[3] * scale_y)
        _paste_centred(sheet, _resized(picture, edges), x, y + SIDE + GAP)
    _paste_centred(sheet, shown, x, y)
    text_y = y + SIDE * (2 if parts else 1) + (GAP if parts else 0) + 2
    draw.text((x + SIDE / 2, text_y), _truncated(tile.caption, font), fill="black", font=font, anchor="ma")


def _picture(tile: Tile) -> Image.Image:
    return Image.fromarray(tile.picture.permute(1, 2, 0).cpu().numpy())


def _outlined(tile: Tile, side: int) -> tuple[Image.Image, tuple[float, float, float, float] | None]:
    """Return a tile's picture, and its region in pixels of it; None if that is the whole picture."""
    shown = _resized(_picture(tile), side=side)
    width, height = shown.size
    left, top, w, h = tile.box
    # Clip: shares are rounded, and Pillow rejects a box even slightly outside the picture.
    box = (left * width, top * height, min(left + w, 1) * width, min(top + h, 1) * height)
    a, b, c, d = map(round, box)
    c, d = max(c, a + 1), max(d, b + 1)
    if tile.hidden:
        shown.paste(tuple(round(255 * value) for value in MEAN_COLOUR), (a, b, c, d))
    if tile.box == WHOLE:
        return shown, None
    pad_x, pad_y = (max(0, MIN_OUTLINE - (high - low)) // 2 for low, high in ((a, c), (b, d)))
    outline = (a - pad_x, b - pad_y, c + pad_x - 1, d + pad_y - 1)
    ImageDraw.Draw(shown).rectangle(outline, outline=OUTLINE, width=2)
    return shown, box


def _resized(
    picture: Image.Image, edges: tuple[float, float, float, float] | None = None, *, side: int = SIDE
) -> Image.Image:
    """Return the picture, or its part within `edges`, with a longer side of `side` pixels; proportions are kept."""
    left, top, right, bottom = edges or (0, 0, *picture.size)
    scale = side / max(right - left, bottom - top)
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    return picture.resize(size, Image.Resampling.BICUBIC, box=(left, top, right, bottom))


def _paste_centred(sheet: Image.Image, shown: Image.Image, x: int, y: int) -> None:
    sheet.paste(shown, (x + (SIDE - shown.width) // 2, y + (SIDE - shown.height) // 2))


def _truncated(text: str, font: Any) -> str:
    if font.getlength(text) <= SIDE:
        return text
    while text and font.getlength(text + "…") > SIDE:
        text = text[:-1]
    return text + "…"

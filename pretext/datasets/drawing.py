"""Draw boxes, masks and class names on pictures, in colours that stay apart for most eyes; write sheets of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pretext.datasets.base import IGNORE
from pretext.system.checkpoint import atomic_write

FONT_SIZE = 12
PALETTE = (
    (0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9), (0x00, 0x9E, 0x73), (0xF0, 0xE4, 0x42), (0x00, 0x72, 0xB2),
    (0xD5, 0x5E, 0x00), (0xCC, 0x79, 0xA7), (0x87, 0x00, 0xF0), (0x00, 0xFF, 0x87), (0x69, 0x5A, 0x2D),
    (0x96, 0x78, 0xFF), (0xB4, 0xE1, 0xB4), (0xFF, 0x00, 0x5A), (0x96, 0x3C, 0x78), (0x5A, 0x4B, 0xC3),
    (0xF0, 0xB4, 0xD2), (0xC3, 0xA5, 0x4B), (0xF0, 0x78, 0x87), (0xA5, 0x00, 0x96), (0x78, 0x96, 0xF0),
)  # fmt: skip
"""Okabe and Ito's seven colours, then others chosen one by one: each maximises its CIELAB distance to those before it,
to white and to black, in the worst case over normal vision and three kinds of colour blindness."""
OPACITY = 0.6
"""Opacity of a class's colour over the picture."""
DIMMED = 0.5
"""Brightness of the background, relative to the picture."""
COMPRESSION = 4
"""Effort of the PNG files, from 0 to 9. Pillow's own 6 takes 2.5 times as long, for files that are 1 to 5 % smaller."""


def class_colour(number: int) -> tuple[int, int, int]:
    """Return the colour of class `number`; with more classes than colours, colours repeat."""
    return PALETTE[number % len(PALETTE)]


def save_sheet(sheet: Image.Image, path: str | Path) -> None:
    """Write a sheet of pictures as PNG, atomically."""
    with atomic_write(path) as beside:
        sheet.save(beside, format="PNG", compress_level=COMPRESSION)


def draw_boxes(
    picture: Image.Image, boxes: Float[NDArray[np.float32], "N 4"], labels: Sequence[int], captions: Sequence[str]
) -> None:
    """Draw boxes with captions on a picture; later boxes lie above earlier ones, captions above all boxes.

    Args:
        picture: Changed in place.
        boxes: XYXY, in pixels of `picture`.
        labels: The class of each box, for its colour.
        captions: The caption of each box.
    """
    pen = ImageDraw.Draw(picture)
    corners = boxes.tolist()
    for (x1, y1, x2, y2), label in zip(corners, labels, strict=True):
        pen.rectangle((x1 - 1, y1 - 1, x2, y2), outline="black", width=4)  # visible on any colour
        inner = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))  # a box may be thinner than one pixel of the sheet
        pen.rectangle(inner, outline=class_colour(label), width=2)
    for (x1, y1, _, _), label, caption in zip(corners, labels, captions, strict=True):
        # inside the picture, even if the box touches the right or upper edge
        left, top, right, bottom = pen.textbbox((0, 0), caption, font_size=FONT_SIZE)
        corner = (max(0, min(x1, picture.width - right - 1)), max(0, y1 - bottom))
        colour = class_colour(label)
        pen.rectangle((corner[0] + left - 1, corner[1] + top, corner[0] + right, corner[1] + bottom), fill=colour)
        pen.text(corner, caption, fill=_legible_on(colour), font_size=FONT_SIZE)


def with_mask(
    picture: Image.Image, mask: UInt8[NDArray[np.uint8], "H W"], names: Sequence[str], *, named_from: float = 0
) -> Image.Image:
    """Return a picture overlaid with class colours; each class is named at its median pixel.

    Args:
        picture: A picture of any size.
        mask: Index mask of any size: 0 background, k + 1 for class k, 255 ignored, which becomes white.
        names: Name of each value of the mask, the background first.
        named_from: Share of the picture that a class must cover to be named.
    """
    palette = np.array([(0, 0, 0), *(class_colour(k) for k in range(255))], dtype=np.uint8)
    palette[IGNORE] = 255
    values: Int[NDArray[np.uint8], "H W"] = np.asarray(
        Image.fromarray(mask).resize(picture.size, Image.Resampling.NEAREST)
    )
    share = np.where(values == 0, 1 - DIMMED, OPACITY)[..., None]
    mixed = (1 - share) * np.asarray(picture) + share * palette[values]
    overlaid = Image.fromarray(mixed.round().astype(np.uint8))
    pen = ImageDraw.Draw(overlaid)
    for k in np.unique(values):
        if k not in (0, IGNORE) and np.mean(values == k) >= named_from:
            y, x = (int(np.median(place)) for place in np.nonzero(values == k))
            width = pen.textlength(names[k])
            left = min(max(0, x - width / 2), picture.width - width)
            pen.text((left, y - 6), names[k], fill="white", stroke_width=2, stroke_fill="black")
    return overlaid


def _legible_on(colour: tuple[int, int, int]) -> str:
    """Return black or white, whichever has more contrast by the relative luminance of WCAG 2.2."""
    red, green, blue = (((c / 255 + 0.055) / 1.055) ** 2.4 if c > 10 else c / 3294.6 for c in colour)
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "white"

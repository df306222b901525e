"""Image sheets for inspection: detections, segmentations, corrupted images."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from downstream.metrics import Detections, Truth
from pretext.datasets.base import IGNORE
from pretext.system.checkpoint import atomic_write

CELL = 224
"""Side of an image on a sheet, in pixels."""
GAP, HEADING = 8, 18
COLUMNS = 6
FONT_SIZE = 12
MIN_SCORE = 0.3
"""Minimum score of a drawn detection; the best one of an image is always drawn."""
PALETTE = (
    (0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9), (0x00, 0x9E, 0x73), (0xF0, 0xE4, 0x42), (0x00, 0x72, 0xB2),
    (0xD5, 0x5E, 0x00), (0xCC, 0x79, 0xA7), (0x87, 0x00, 0xF0), (0x00, 0xFF, 0x87), (0x69, 0x5A, 0x2D),
    (0x96, 0x78, 0xFF), (0xB4, 0xE1, 0xB4), (0xFF, 0x00, 0x5A), (0x96, 0x3C, 0x78), (0x5A, 0x4B, 0xC3),
    (0xF0, 0xB4, 0xD2), (0xC3, 0xA5, 0x4B), (0xF0, 0x78, 0x87), (0xA5, 0x00, 0x96), (0x78, 0x96, 0xF0),
)  # fmt: skip
"""Okabe and Ito's seven colours, then others chosen one by one: each maximises its CIELAB distance to those before it,
to white and to black, in the worst case over normal vision and three kinds of colour blindness."""
OPACITY = 0.6
"""Opacity of a class's colour over the image."""
DIMMED = 0.5
"""Brightness of the background, relative to the image."""


class Found(NamedTuple):
    """A test image, its true objects, and its detections."""

    image: UInt8[Tensor, "3 S S"]
    truth: Truth
    detections: Detections


def detection_sheet(path: Path, found: list[Found], classes: tuple[str, ...]) -> None:
    """Write a sheet with each image's true objects above its best detection and others above `MIN_SCORE`.

    Args:
        path: Path of the PNG file.
        found: Images to show.
        classes: Class names.
    """
    rows = []
    for start in range(0, len(found), COLUMNS):
        part = found[start : start + COLUMNS]
        rows.append(("truth", [_boxed(f, f.truth.boxes, f.truth.labels, None, classes) for f in part]))
        tops = [f.detections.scores >= min(MIN_SCORE, f.detections.scores.max(initial=0)) for f in part]
        rows.append(
            (
                f"detections: the best, and others with a score of {MIN_SCORE} or more",
                [
                    _boxed(
                        f,
                        f.detections.boxes[top],
                        f.detections.labels[top],
                        f.detections.scores[top],
                        classes,
                    )
                    for f, top in zip(part, tops, strict=True)
                ],
            )
        )
    _write(path, rows)


def segmentation_sheet(path: Path, shown: list[tuple[Tensor, Tensor, Tensor]], names: tuple[str, ...]) -> None:
    """Write a sheet with rows of images, of true masks and of predicted masks, overlaid on the images.

    Args:
        path: Path of the PNG file.
        shown: Image 3×S×S uint8, truth S×S and prediction S×S. Background is dark, ignored pixels are white.
        names: Class names, the background first.
    """
    rows = []
    for start in range(0, len(shown), COLUMNS):
        part = shown[start : start + COLUMNS]
        rows.append(("image", [_resized(image) for image, _, _ in part]))
        rows.append(("truth", [_overlaid(image, truth, names) for image, truth, _ in part]))
        rows.append(("prediction", [_overlaid(image, predicted, names) for image, _, predicted in part]))
    _write(path, rows)


def image_sheet(path: Path, rows: list[tuple[str, list[Tensor]]]) -> None:
    """Write a sheet with rows of images below headings, enlarged without interpolation.

    Args:
        path: Path of the PNG file.
        rows: Headings, and images 3×S×S uint8.
    """
    _write(path, [(heading, [_resized(each, Image.Resampling.NEAREST) for each in images]) for heading, images in rows])


def class_colour(number: int) -> tuple[int, int, int]:
    """Return the colour of class `number`; with more classes than colours, colours repeat."""
    return PALETTE[number % len(PALETTE)]


def _legible_on(colour: tuple[int, int, int]) -> str:
    """Return black or white, whichever has more contrast by the relative luminance of WCAG 2.2."""
    red, green, blue = (((c / 255 + 0.055) / 1.055) ** 2.4 if c > 10 else c / 3294.6 for c in colour)
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "white"


def _write(path: Path, rows: list[tuple[str, list[Image.Image]]]) -> None:
    columns = max((len(images) for _, images in rows), default=1)
    height = CELL + HEADING + GAP
    sheet = Image.new("RGB", (columns * (CELL + GAP) + GAP, len(rows) * height + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (heading, images) in enumerate(rows):
        pen.text((GAP, row * height + 4), heading, fill="black")
        for column, image in enumerate(images):
            sheet.paste(image, (GAP + column * (CELL + GAP), row * height + HEADING))
    with atomic_write(path) as beside:
        sheet.save(beside, format="PNG")


def _resized(image: UInt8[Tensor, "3 S S"], resample: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).resize((CELL, CELL), resample)


def _overlaid(image: UInt8[Tensor, "3 S S"], mask: Shaped[Tensor, "S S"], names: tuple[str, ...]) -> Image.Image:
    """Return an image overlaid with class colours; each class is named at its median pixel."""
    palette = np.array([(0, 0, 0), *(class_colour(k) for k in range(255))], dtype=np.uint8)
    palette[IGNORE] = 255
    classes = np.asarray(Image.fromarray(mask.numpy().astype(np.uint8)).resize((CELL, CELL), Image.Resampling.NEAREST))
    share = np.where(classes == 0, 1 - DIMMED, OPACITY)[..., None]
    mixed = (1 - share) * np.asarray(_resized(image)) + share * palette[classes]
    overlaid = Image.fromarray(mixed.round().astype(np.uint8))
    pen = ImageDraw.Draw(overlaid)
    for k in np.unique(classes):
        if k not in (0, IGNORE):
            y, x = (int(np.median(place)) for place in np.nonzero(classes == k))
            width = pen.textlength(names[k])
            left = min(max(0, x - width / 2), CELL - width)
            pen.text((left, y - 6), names[k], fill="white", stroke_width=2, stroke_fill="black")
    return overlaid


def _boxed(
    found: Found,
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    scores: NDArray[np.float32] | None,
    classes: tuple[str, ...],
) -> Image.Image:
    drawn = _resized(found.image)
    pen = ImageDraw.Draw(drawn)
    scale = CELL / found.image.shape[-1]
    # best detection last, names above all lines: legible where boxes overlap
    order = np.arange(len(boxes)) if scores is None else np.argsort(scores, kind="stable")
    corners = (boxes * scale).tolist()
    for i in order:
        x1, y1, x2, y2 = corners[i]
        pen.rectangle((x1 - 1, y1 - 1, x2, y2), outline="black", width=4)  # visible on any colour
        inner = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))  # a box may be thinner than one sheet pixel
        pen.rectangle(inner, outline=class_colour(int(labels[i])), width=2)
    for i in order:
        x1, y1 = corners[i][:2]
        name = classes[labels[i]]
        text = name if scores is None else f"{name} {scores[i]:.2f}"
        # inside the image, even if the box touches the right or upper edge
        left, top, right, bottom = pen.textbbox((0, 0), text, font_size=FONT_SIZE)
        corner = (max(0, min(x1, CELL - right - 1)), max(0, y1 - bottom))
        colour = class_colour(int(labels[i]))
        pen.rectangle((corner[0] + left - 1, corner[1] + top, corner[0] + right, corner[1] + bottom), fill=colour)
        pen.text(corner, text, fill=_legible_on(colour), font_size=FONT_SIZE)
    return drawn

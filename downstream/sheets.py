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
from pretext.datasets.drawing import draw_boxes, with_mask
from pretext.system.checkpoint import atomic_write

CELL = 224
"""Side of an image on a sheet, in pixels."""
GAP, HEADING = 8, 18
COLUMNS = 6
MIN_SCORE = 0.3
"""Minimum score of a drawn detection; the best one of an image is always drawn."""


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
    return with_mask(_resized(image), mask.numpy().astype(np.uint8), names)


def _boxed(
    found: Found,
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    scores: NDArray[np.float32] | None,
    classes: tuple[str, ...],
) -> Image.Image:
    drawn = _resized(found.image)
    order = np.arange(len(boxes)) if scores is None else np.argsort(scores, kind="stable")  # the best one on top
    captions = [classes[labels[i]] if scores is None else f"{classes[labels[i]]} {scores[i]:.2f}" for i in order]
    draw_boxes(drawn, boxes[order] * (CELL / found.image.shape[-1]), labels[order].tolist(), captions)
    return drawn

"""Image sheets for inspection: detections, segmentations, corrupted images."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from downstream.metrics import Detections, Truth, box_iou
from pretext.datasets.drawing import draw_boxes, save_sheet, with_mask

CELL = 224
"""Side of an image on a sheet, in pixels."""
GAP, HEADING = 8, 18
COLUMNS = 6
EXTRA = 2
"""Detections that are drawn of an image beyond the number of its true objects."""
HIT, MISS, IGNORED = "#009E73", "#D55E00", "#999999"
"""Colours of a box that finds an object, of one that does not, dashed too, and of one that AP50 ignores."""
HIT_IOU = 0.5
"""Least overlap with an object of its class at which a box finds it, as in AP50."""
DASH = 6
"""Length in pixels of a dash and of the gap behind it."""


class Found(NamedTuple):
    """A test image, its true objects, and its detections."""

    image: UInt8[Tensor, "3 S S"]
    truth: Truth
    detections: Detections


def shown_of(total: int, count: int) -> NDArray[np.int64]:
    """Return which of `total` test images a sheet shows: `count`, drawn once, the same for every encoder and seed."""
    return np.sort(np.random.default_rng(0).permutation(total)[:count])


def detection_sheet(path: Path, found: list[Found], classes: tuple[str, ...]) -> None:
    """Write a sheet with each image's true objects above its best detections, two more than it has objects.

    A box that finds an object of its class has a full green frame; one that does not, a dashed red frame. Difficult
    objects do not count, and a box that lies on one of its class has a grey frame.

    Args:
        path: Path of the PNG file.
        found: Images to show.
        classes: Class names.
    """
    rows = []
    for start in range(0, len(found), COLUMNS):
        part = found[start : start + COLUMNS]
        rows.append(("truth", [_true_boxes(each, classes) for each in part]))
        heading = f"detections: {EXTRA} more than objects; green frame: found, dashed red: wrong, grey: difficult"
        rows.append((heading, [_detected_boxes(each, classes) for each in part]))
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
    save_sheet(sheet, path)


def _resized(image: UInt8[Tensor, "3 S S"], resample: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).resize((CELL, CELL), resample)


def _overlaid(image: UInt8[Tensor, "3 S S"], mask: Shaped[Tensor, "S S"], names: tuple[str, ...]) -> Image.Image:
    return with_mask(_resized(image), mask.numpy().astype(np.uint8), names)


def _true_boxes(found: Found, classes: tuple[str, ...]) -> Image.Image:
    drawn = _resized(found.image)
    labels = found.truth.labels.tolist()
    draw_boxes(drawn, _enlarged(found, found.truth.boxes), labels, [classes[label] for label in labels])
    return drawn


def _detected_boxes(found: Found, classes: tuple[str, ...]) -> Image.Image:
    drawn = _resized(found.image)
    pen = ImageDraw.Draw(drawn)
    best = np.argsort(-found.detections.scores, kind="stable")[: int((~found.truth.difficult).sum()) + EXTRA]
    boxes, labels = _enlarged(found, found.detections.boxes[best]), found.detections.labels[best]
    right = hits(found, best)
    for at in reversed(range(len(best))):  # the best one on top
        left, top, x2, y2 = boxes[at].tolist()
        frame = (left, top, max(left, x2 - 1), max(top, y2 - 1))
        if right[at] is False:
            _dashed(pen, frame)
        else:
            pen.rectangle(frame, outline=HIT if right[at] else IGNORED, width=4)
        corner = (max(0.0, left) + 3, min(max(0.0, top), CELL - 16) + 2)
        pen.text(corner, classes[labels[at]], fill="white", stroke_width=2, stroke_fill="black", font_size=13)
    return drawn


def hits(found: Found, best: NDArray[np.int64]) -> list[bool | None]:
    """Return whether each detection, best first, finds an object of its class that no better one has found.

    None for one that finds none but lies on a difficult object of its class by half of its own area: AP50 ignores it.

    Args:
        found: The image.
        best: Which of its detections, by falling score.
    """
    truth = found.truth
    free = ~truth.difficult
    right: list[bool | None] = []
    for number in best.tolist():
        box, same = found.detections.boxes[number], truth.labels == found.detections.labels[number]
        fitting = np.where(same & free, box_iou(box[None], truth.boxes)[0], 0.0)
        at = int(fitting.argmax()) if len(fitting) else 0
        if len(fitting) and fitting[at] >= HIT_IOU:
            right.append(True)
            free[at] = False
        else:
            ignored = same & truth.difficult & (_share_inside(box, truth.boxes) >= HIT_IOU)
            right.append(None if ignored.any() else False)
    return right


def _share_inside(box: Float[np.ndarray, "4"], others: Float[np.ndarray, "N 4"]) -> NDArray[np.float32]:
    """Return the share of a box's area that lies in each of several others."""
    shared = (np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])).clip(min=0).prod(axis=1)
    return shared / max(float((box[2:] - box[:2]).prod()), 1e-12)


def lines_of(sheet: Image.Image, *, kinds: int) -> list[list[Image.Image]]:
    """Return the images of a sheet by kind of line, as `detection_sheet` and `segmentation_sheet` wrote them.

    Args:
        sheet: The sheet.
        kinds: Lines that belong together, such as 2 for truth and detections.

    Raises:
        ValueError: If the image is not such a sheet.
    """
    height = CELL + HEADING + GAP
    columns, rest = divmod(sheet.width - GAP, CELL + GAP)
    lines, below = divmod(sheet.height - GAP, height)
    if rest or below or lines % kinds or not lines:
        raise ValueError(f"an image of {sheet.width} by {sheet.height} pixels is not a sheet of {kinds} kinds of lines")
    found: list[list[Image.Image]] = [[] for _ in range(kinds)]
    for line in range(lines):
        for column in range(columns):
            left, top = GAP + column * (CELL + GAP), line * height + HEADING
            found[line % kinds].append(sheet.crop((left, top, left + CELL, top + CELL)))
    return found


def _dashed(pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float]) -> None:
    """Draw a dashed frame."""
    left, top, right, bottom = box
    for start in np.arange(left, right, 2 * DASH).tolist():
        for y in (top, bottom):
            pen.line((start, y, min(start + DASH, right), y), fill=MISS, width=3)
    for start in np.arange(top, bottom, 2 * DASH).tolist():
        for x in (left, right):
            pen.line((x, start, x, min(start + DASH, bottom)), fill=MISS, width=3)


def _enlarged(found: Found, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return boxes in pixels of the sheet."""
    return boxes * np.float32(CELL / found.image.shape[-1])

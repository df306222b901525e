"""Annotations whose JSON states the stored size of photographs that their EXIF orientation turns when they are read.

Such a size fits no picture. The boxes tell which frame they are in: they lie in the stored frame or in the turned
one. Annotations in the stored frame are turned with their pictures; where both frames fit, the stated size decides.
Pictures that are mirrored or upside down, and squares, have one size in both frames: they follow the others.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Num
from numpy.typing import NDArray
from PIL import ExifTags, Image

from pretext.datasets.base import Fault
from pretext.datasets.coco_format import Annotated, box_around
from pretext.datasets.decoding import check_regular
from pretext.datasets.files import some

SAMPLED = 32
"""Number of pictures of a split whose headers are read; all are read if one of these is turned."""
SLACK = 1.0
"""Number of pixels that a box may reach beyond its picture."""


def turn_annotations(read: Mapping[str, Annotated], images: Mapping[str, Sequence[str]]) -> list[str]:
    """Match the sizes and annotations of all splits to their pictures as they are read; return notes.

    Args:
        read: The annotations of each split; they are changed in place.
        images: The paths of each split's pictures.
    """
    turned = {split: _turned_in(annotated, images[split]) for split, annotated in read.items()}
    frames = [
        (read[split], row, read[split].sizes[row])
        for split, rows in turned.items()
        for row, orientation in rows.items()
        if _tells(orientation, read[split].sizes[row])
    ]
    if not frames:
        return []
    upright = any(_reaches_out(annotated, row, size) for annotated, row, size in frames)
    stored = any(_reaches_out(annotated, row, size[::-1]) for annotated, row, size in frames)
    counts = []
    for split, rows in turned.items():
        if rows:
            files = some([read[split].names[row] for row in rows])
            counts.append(f"{len(rows):,} of {len(images[split]):,} pictures in {split} ({files})")
    start = f"The EXIF orientation turns {', '.join(counts)}, and the JSON states their stored size: "
    if upright and stored:
        return [Fault(f"{start}their boxes fit neither frame, so they do not match their pictures.")]
    for split, rows in turned.items():
        annotated = read[split]
        for row, orientation in rows.items():
            if not upright:
                for entry in annotated.objects[row]:
                    _turn(entry, orientation, *annotated.sizes[row])
            if orientation >= 5:
                annotated.sizes[row] = annotated.sizes[row][::-1]
    return [start + ("the boxes fit the turned picture." if upright else "their annotations were turned with them.")]


def _turned_in(annotated: Annotated, images: Sequence[str]) -> dict[int, int]:
    """Return the orientation of each turned picture of a split; empty if no picture of a sample is turned."""
    sizes = annotated.sizes
    if not sizes:
        return {}
    suspects = [row for row in range(len(images)) if _reaches_out(annotated, row, sizes[row])][:SAMPLED]
    sample = {*np.linspace(0, len(images) - 1, min(SAMPLED, len(images))).astype(int).tolist(), *suspects}
    if not _turned(annotated, images, sorted(sample)):
        return {}
    return _turned(annotated, images, range(len(images)))


def _turned(annotated: Annotated, images: Sequence[str], rows: Sequence[int]) -> dict[int, int]:
    """Return the orientation of those pictures that are turned or mirrored and whose stored size is the stated one."""
    with warnings.catch_warnings(), ThreadPoolExecutor(8) as pool:
        warnings.simplefilter("ignore")  # Pillow warns of doubtful metadata; only the pixels matter
        headers = list(pool.map(_header, [images[row] for row in rows]))
    return {
        row: orientation
        for row, (size, orientation) in zip(rows, headers, strict=True)
        if orientation >= 2 and size == annotated.sizes[row]
    }


def _tells(orientation: int, size: tuple[int, int]) -> bool:
    """Return whether the stated size of a picture says in which frame it is: its sides change places and differ."""
    return orientation >= 5 and size[0] != size[1]


def _header(path: str) -> tuple[tuple[int, int], int]:
    """Return the stored height and width of a picture and its EXIF orientation; (0, 0) if it cannot be read."""
    try:
        check_regular(path)
        with Image.open(path) as image:
            return (image.height, image.width), int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's plug-ins raise errors of every kind; decoding the picture reports it
        return (0, 0), 1


def _reaches_out(annotated: Annotated, row: int, size: tuple[int, int]) -> bool:
    """Return whether a box reaches out of a frame of that height and width."""
    boxes = [entry["bbox"] or box_around(entry["segmentation"]) or [0, 0, 0, 0] for entry in annotated.objects[row]]
    return any(x + w > size[1] + SLACK or y + h > size[0] + SLACK for x, y, w, h in boxes)


def _turn(entry: dict[str, Any], orientation: int, height: int, width: int) -> None:
    """Turn box and segmentation of an object from the stored frame, of that height and width, to the turned one."""
    if entry["bbox"] is not None:
        x, y, w, h = entry["bbox"]
        (x0, y0), (x1, y1) = _points(np.array([[x, y], [x + w, y + h]]), orientation, height, width).tolist()
        left, top = min(x0, x1), min(y0, y1)
        entry["bbox"] = [left, top, max(x0, x1) - left, max(y0, y1) - top]
    outline = entry["segmentation"]
    if isinstance(outline, list):
        pairs = [np.array(polygon[: len(polygon) // 2 * 2], dtype=float).reshape(-1, 2) for polygon in outline]
        entry["segmentation"] = [_points(part, orientation, height, width).ravel().tolist() for part in pairs]
    elif outline is not None:
        entry["segmentation"] = _turned_runs(outline, orientation)


def _points(points: Num[NDArray[Any], "K 2"], orientation: int, height: int, width: int) -> Num[NDArray[Any], "K 2"]:
    x, y = points[:, 0], points[:, 1]
    right, bottom = width - x, height - y
    mirrored = {2: (right, y), 3: (right, bottom), 4: (x, bottom)}
    turned = {5: (y, x), 6: (bottom, x), 7: (bottom, right), 8: (y, right)}
    return np.stack((mirrored | turned)[orientation], axis=1)


def _turned_runs(runs: dict[str, Any], orientation: int) -> dict[str, Any]:
    """Return run lengths turned; unchanged if they cannot be drawn, which reading the mask reports."""
    from faster_coco_eval import mask as coco_mask

    try:
        packed = coco_mask.frPyObjects(runs, *runs["size"]) if isinstance(runs["counts"], list) else runs
        inside = coco_mask.decode(packed)
    except (ValueError, TypeError, RuntimeError, KeyError):
        return runs
    mirrored = {2: inside[:, ::-1], 3: inside[::-1, ::-1], 4: inside[::-1]}
    turned = {5: inside.T, 6: np.rot90(inside, -1), 7: inside[::-1, ::-1].T, 8: np.rot90(inside)}
    drawn = (mirrored | turned)[orientation]
    encoded = coco_mask.encode(np.asfortranarray(drawn))
    return {"size": list(drawn.shape), "counts": encoded["counts"].decode()}

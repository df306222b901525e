"""Read and check one JSON file in COCO's format."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pretext.datasets.decoding import check_regular
from pretext.datasets.files import some
from pretext.system.errors import UserError

FARTHEST = 1e6
"""Largest absolute coordinate of a polygon, in pixels."""


@dataclass
class Annotated:
    """The checked content of one JSON file."""

    file: Path
    categories: dict[Any, tuple[str, Any]]
    """The name and the supercategory of each category id."""
    names: list[str]
    """The `file_name` of each picture."""
    sizes: list[tuple[int, int]]
    """Height and width of each picture; empty if the file lacks any of them."""
    objects: list[list[dict[str, Any]]]
    """The annotations of each picture; `category` is the category's id until `named_classes` replaces it by the
    name, `bbox` is None if there is none."""
    classes: tuple[str, ...] = ()
    """The names of the classes, known from `named_classes` on."""


def read_json(file: Path) -> Annotated:
    """Read and check one JSON file.

    Raises:
        UserError: If it cannot be read or violates COCO's format.
    """
    try:
        check_regular(file)
        content = json.loads(file.read_bytes())
        images, annotations = content["images"], content["annotations"]
        categories = {entry["id"]: (str(entry["name"]), entry.get("supercategory")) for entry in content["categories"]}
        row_of = {entry["id"]: row for row, entry in enumerate(images)}
        names = [str(entry["file_name"]) for entry in images]
        sizes = [(int(entry["height"]), int(entry["width"])) for entry in images if entry.get("width")]
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON: {error}") from None
    except KeyError as error:
        raise UserError(f"{file}: not in COCO's format: {error} is missing") from None
    except (TypeError, AttributeError, OverflowError):
        raise UserError(f"{file}: not in COCO's format: expected lists of images, annotations and categories") from None
    for name, _ in categories.values():
        if not _is_text(name):
            raise UserError(f"{file}: the category name {name!r} holds half of a character; mend the name")
    _check_unique(file, "image id", [entry["id"] for entry in images])
    objects: list[list[dict[str, Any]]] = [[] for _ in images]
    for number, entry in enumerate(annotations):
        where = f"{file}: annotations[{number}]"
        try:
            outline = entry.get("segmentation")
            box = None if outline and not entry.get("bbox") else [float(value) for value in entry["bbox"]]
            row, category = row_of[entry["image_id"]], entry["category_id"]
            categories[category]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(f"{where}: {_fault(error)}") from None
        if box is not None and (len(box) != 4 or not all(map(math.isfinite, box))):
            raise UserError(f"{where}: bbox={entry['bbox']}; expected x, y, width, height")
        segmentation = _checked(outline, where)
        if box is None and segmentation is None:
            raise UserError(f"{where}: no bbox, and no segmentation of three points or more to take it from")
        objects[row].append(
            {"bbox": box, "category": category, "iscrowd": entry.get("iscrowd"), "segmentation": segmentation}
        )
    return Annotated(file, categories, names, sizes if len(sizes) == len(images) else [], objects)


def named_classes(read: Mapping[str, Annotated]) -> list[str]:
    """Name the classes of all files and the category of every object; return notes on categories that are no classes.

    A category that is the supercategory of another one and has no objects in any file only groups the others.

    Raises:
        UserError: If two classes of a file have the same name.
    """
    notes = []
    used = {
        (entry["category"], annotated.categories[entry["category"]][0])
        for annotated in read.values()
        for entries in annotated.objects
        for entry in entries
    }
    for annotated in read.values():
        names = {number: name for number, (name, _) in annotated.categories.items()}
        groups = {
            number
            for number, name in names.items()
            if (number, name) not in used
            and any(name == group and number != other for other, (_, group) in annotated.categories.items())
        }
        if groups:
            listed = some([repr(names[number]) for number in _in_order(groups)])
            notes.append(
                f"{annotated.file.name}: the category {listed} has no objects and only groups others: no class."
            )
        annotated.classes = tuple(names[number] for number in _in_order(names.keys() - groups))
        _check_unique(annotated.file, "category name", annotated.classes)
        for entries in annotated.objects:
            for entry in entries:
                entry["category"] = names[entry["category"]]
    return list(dict.fromkeys(notes))


def boxes_from_outlines(split: str, annotated: Annotated) -> list[str]:
    """Give each object that has an outline but no box, or an empty one, the box of its outline; return a note."""
    names = []
    for name, entries in zip(annotated.names, annotated.objects, strict=True):
        for entry in entries:
            box, outline = entry["bbox"], entry["segmentation"]
            if box is not None and (not outline or (box[2] and box[3])):
                continue
            around = box_around(outline)
            if around is None:  # run lengths of nothing, or that cannot be drawn; reading the mask reports those
                entry["bbox"] = box or [0.0, 0.0, 0.0, 0.0]
                continue
            entry["bbox"] = around
            names.append(name)
    if not names:
        return []
    files = some(list(dict.fromkeys(names)))
    return [f"{len(names):,} objects in {split} without a box got that of their outline: {files}."]


def box_around(segmentation: Any) -> list[float] | None:
    """Return x, y, width and height of the box around polygons or run lengths; None if they cover nothing."""
    from faster_coco_eval import mask as coco_mask

    if isinstance(segmentation, list):
        points = np.array([value for polygon in segmentation for value in polygon[: len(polygon) // 2 * 2]])
        (left, top), (right, bottom) = points.reshape(-1, 2).min(axis=0), points.reshape(-1, 2).max(axis=0)
        return [float(left), float(top), float(right - left), float(bottom - top)]
    try:
        runs = segmentation
        if isinstance(segmentation["counts"], list):
            runs = coco_mask.frPyObjects(segmentation, *segmentation["size"])
        left, top, width, height = (float(value) for value in coco_mask.toBbox(runs))
    except (ValueError, TypeError, RuntimeError, KeyError):
        return None
    return [left, top, width, height] if width and height else None


def _is_text(name: str) -> bool:
    """Return whether a name can be written as UTF-8: JSON can hold halves of characters beyond 16 bits."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_order(ids: Collection[Any]) -> list[Any]:
    """Return category ids in order; numbers come before text."""
    return sorted(ids, key=lambda number: (isinstance(number, str), number))


def _check_unique(file: Path, what: str, values: Sequence[Any]) -> None:
    value, count = Counter(values).most_common(1)[0] if values else (None, 0)
    if count > 1:
        raise UserError(f"{file}: the {what} {value!r} occurs {count} times")


def _fault(error: Exception) -> str:
    if isinstance(error, KeyError):
        key = error.args[0]
        return f"{key!r} is missing" if isinstance(key, str) else f"no image or category has the id {key}"
    return "expected an object with image_id, category_id and bbox"


def _checked(segmentation: Any, where: str) -> Any:
    """Return a segmentation without polygons of fewer than three points, or None if nothing is left."""
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        if isinstance(segmentation.get("counts"), list | str) and isinstance(segmentation.get("size"), list):
            return segmentation
    elif isinstance(segmentation, list) and all(isinstance(polygon, list) for polygon in segmentation):
        values = [value for polygon in segmentation for value in polygon]
        points = np.array([None if isinstance(value, list) else value for value in values])
        # the rasteriser never returns from a NaN coordinate
        if points.dtype.kind in "iuf" and np.all(np.abs(points) <= FARTHEST):
            return [polygon for polygon in segmentation if len(polygon) >= 6] or None
    raise UserError(f"{where}: segmentation must be a list of polygons, or run lengths with their size")

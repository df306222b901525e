"""`coco:DIR`: annotations in COCO's JSON format, and pictures.

Splits: `instances_SPLIT.json` or `SPLIT.json`, with or without a year, in DIR/annotations or DIR, for each SPLIT of
train, val and test. A single JSON file of any name is train. The keys train, val and test name other files.

Pictures: each `file_name` is relative to the first of these folders that contains the first picture: DIR, the
folder named like the JSON file (`train2017` for `instances_train2017.json`), `images`, that folder in `images`, and
the folder of the JSON file. The key `images` names another folder.

Classes: the categories of the training file, in the order of their ids. If every picture of every split shows
exactly one class, it is the picture's `label` too.

Masks: available if every annotation has a segmentation. They are drawn when a picture is read, smaller objects over
larger ones. Crowds (`iscrowd`) are `difficult` objects.

Source: Lin et al. 2014, "Microsoft COCO: Common Objects in Context"; cocodataset.org/#format-data.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray

from pretext.datasets.base import IGNORE, BadImage, ImageDataset
from pretext.datasets.files import FileDataset, Masks, chosen_classes, folder_at
from pretext.datasets.fingerprints import digest
from pretext.datasets.objects import Objects
from pretext.system.errors import UserError, did_you_mean

SPLITS = ("train", "val", "test")
FARTHEST = 1e6
"""Largest absolute coordinate of a polygon, in pixels."""


@dataclass(frozen=True)
class Options:
    """Options of `coco:DIR?…`."""

    train: str | None = None
    """JSON file of the training pictures: its name or its path below DIR, with or without `.json`; None looks for the
    default names."""
    val: str | None = None
    """JSON file of the validation pictures, given as for train."""
    test: str | None = None
    """JSON file of the test pictures, given as for train."""
    images: str | None = None
    """Folder below DIR that contains the pictures; None looks in the default folders."""
    classes: str | None = None
    """Categories to keep, separated by commas, in this order; None keeps all of train's."""


@dataclass(frozen=True)
class _Annotated:
    """The checked content of one JSON file."""

    file: Path
    classes: tuple[str, ...]
    names: list[str]
    """The `file_name` of each picture."""
    sizes: list[tuple[int, int]]
    """Height and width of each picture; empty if the file lacks any of them."""
    objects: list[list[dict[str, Any]]]
    """The annotations of each picture; `category` is the class name."""


@final
class CocoMasks(Masks):
    """Masks drawn from polygons and run lengths, stored as JSON because it is compact and fast to parse."""

    def __init__(self, images: Sequence[str], drawn: Sequence[bytes]) -> None:
        """Store the picture paths and, as JSON for each, [[mask value, segmentation], …]; later ones lie on top."""
        self.images, self.drawn = images, drawn

    def read(self, index: int, height: int, width: int) -> UInt8[NDArray[np.uint8], "H W"]:
        """Return the mask; see `Masks.read`."""
        from faster_coco_eval import mask as coco_mask

        painted = np.zeros((height, width), dtype=np.uint8)
        for number, segmentation in json.loads(self.drawn[index]):
            try:
                if isinstance(segmentation, list):
                    runs = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
                elif isinstance(segmentation["counts"], list):
                    runs = coco_mask.frPyObjects(segmentation, *segmentation["size"])
                else:
                    runs = segmentation
                inside = coco_mask.decode(runs)
            except (ValueError, TypeError, RuntimeError, KeyError) as error:
                raise BadImage(f"{self.images[index]}: a segmentation of it cannot be drawn: {error}") from None
            if inside.shape != painted.shape:
                size = f"{inside.shape[1]}×{inside.shape[0]}"
                raise BadImage(f"{self.images[index]}: is {width}×{height}, a segmentation of it {size}")
            painted[inside.astype(bool)] = number
        return painted

    def digest(self) -> str:
        """Return a hash of all segmentations; see `Masks.digest`."""
        return digest(*self.drawn)


def open_splits(path: str, options: Options) -> dict[str, ImageDataset]:
    """Return the splits that exist; see the module for how they are found.

    Raises:
        UserError: If a JSON file is missing or malformed, or a picture is missing.
    """
    root, spec = folder_at("coco", path), f"coco:{path}"
    files, notes = _json_files(spec, root, options)
    read = {split: _read(file) for split, file in files.items()}
    if "train" not in read:
        return {}  # the caller raises
    known = read["train"].classes
    for split, annotated in read.items():
        used = {entry["category"] for entries in annotated.objects for entry in entries}
        if unknown := sorted(used - set(known)):
            raise UserError(f"{spec}: {split} has a class {unknown[0]!r} that train lacks")
    classes = chosen_classes(spec, options.classes, known)
    for annotated in read.values():
        for entries in annotated.objects:
            entries[:] = [entry for entry in entries if entry["category"] in classes]
    everywhere = [entries for annotated in read.values() for entries in annotated.objects]
    single = all(len({entry["category"] for entry in entries}) == 1 for entries in everywhere)
    segmented = any(everywhere) and all(
        entry["segmentation"] is not None for entries in everywhere for entry in entries
    )
    if segmented and len(classes) >= IGNORE - 1:
        notes.append(f"{len(classes)} classes do not fit a mask of 8 bits: masks are not used.")
        segmented = False

    splits: dict[str, ImageDataset] = {}
    for split, annotated in read.items():
        images = _pictures(spec, root, options.images, annotated)
        labels = [[classes.index(entry["category"]) for entry in entries] for entries in annotated.objects]
        splits[split] = FileDataset(
            root=root,
            images=images,
            classes=classes,
            label=torch.tensor([of_picture[0] for of_picture in labels], dtype=torch.int64) if single else None,
            objects=Objects.gather(
                (
                    of_picture,
                    [_corners(entry["bbox"]) for entry in entries],
                    [_is_crowd(entry) for entry in entries],
                )
                for of_picture, entries in zip(labels, annotated.objects, strict=True)
            ),
            masks=CocoMasks(images, [_to_draw(entries, classes) for entries in annotated.objects])
            if segmented
            else None,
            sizes=annotated.sizes,
        )
        splits[split].notes = tuple(notes)
    return splits


def _json_files(spec: str, root: Path, options: Options) -> tuple[dict[str, Path], list[str]]:
    """Return the JSON file of each split that has one, and notes on files chosen among several."""
    candidates = [*sorted((root / "annotations").glob("*.json")), *sorted(root.glob("*.json"))]
    by_stem = {file.stem: file for file in reversed(candidates)}
    files, notes = {}, []
    for split in SPLITS:
        name: str | None = getattr(options, split)
        if name is not None:
            paths = (root / name, root / f"{name}.json")
            file = by_stem.get(name.removesuffix(".json")) or next((path for path in paths if path.is_file()), None)
            if file is None:
                raise UserError(f"{spec}: {split}={name}: no such JSON file; {did_you_mean(name, by_stem)}")
            files[split] = file
            continue
        usual = re.compile(rf"(instances_)?{split}[-_]?(\d{{4}})?")
        found = sorted(
            (stem for stem in by_stem if usual.fullmatch(stem)),
            key=lambda stem: (stem[:10] == "instances_", stem),
        )
        if found:
            files[split] = by_stem[found[-1]]
        if len(found) > 1:
            notes.append(f"Several files fit {split}: {', '.join(found)}. The last is used; {split}= chooses another.")
    if not candidates and not files:
        raise UserError(f"{spec}: no JSON file in {root / 'annotations'} or {root}")
    if not files and len(candidates) == 1:
        files["train"] = candidates[0]
    if "train" not in files:
        raise UserError(f"{spec}: no JSON file for train; name it with train=; known: {', '.join(by_stem)}")
    return files, notes


def _read(file: Path) -> _Annotated:
    """Read and check one JSON file.

    Raises:
        UserError: If it cannot be read or violates COCO's format.
    """
    try:
        content = json.loads(file.read_bytes())
        images, annotations = content["images"], content["annotations"]
        categories = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        row_of = {entry["id"]: row for row, entry in enumerate(images)}
        names = [str(entry["file_name"]) for entry in images]
        sizes = [(int(entry["height"]), int(entry["width"])) for entry in images if entry.get("width")]
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{file}: not JSON: {error}") from None
    except KeyError as error:
        raise UserError(f"{file}: not in COCO's format: {error} is missing") from None
    except (TypeError, AttributeError):
        raise UserError(f"{file}: not in COCO's format: expected lists of images, annotations and categories") from None
    classes = tuple(categories[number] for number in sorted(categories))
    for what, values in (("category name", classes), ("image id", [entry["id"] for entry in images])):
        value, count = Counter(values).most_common(1)[0] if values else (None, 0)
        if count > 1:
            raise UserError(f"{file}: the {what} {value!r} occurs {count} times")
    objects: list[list[dict[str, Any]]] = [[] for _ in images]
    for number, entry in enumerate(annotations):
        try:
            box = [float(value) for value in entry["bbox"]]
            row, category = row_of[entry["image_id"]], categories[entry["category_id"]]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{file}: annotations[{number}]: {_fault(error)}") from None
        if len(box) != 4 or not all(map(math.isfinite, box)):
            raise UserError(f"{file}: annotations[{number}]: bbox={entry['bbox']}; expected x, y, width, height")
        segmentation = _checked(entry.get("segmentation"), f"{file}: annotations[{number}]")
        objects[row].append(
            {"bbox": box, "category": category, "iscrowd": entry.get("iscrowd"), "segmentation": segmentation}
        )
    return _Annotated(file, classes, names, sizes if len(sizes) == len(images) else [], objects)


def _fault(error: Exception) -> str:
    if isinstance(error, KeyError):
        key = error.args[0]
        return f"{key!r} is missing" if isinstance(key, str) else f"no image or category has the id {key}"
    return "expected an object with image_id, category_id and bbox"


def _checked(segmentation: Any, where: str) -> Any:
    """Return a segmentation without polygons of fewer than three points, or None if it is empty."""
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        if isinstance(segmentation.get("counts"), list | str) and isinstance(segmentation.get("size"), list):
            return segmentation
    elif isinstance(segmentation, list) and all(isinstance(polygon, list) for polygon in segmentation):
        points = np.array([value for polygon in segmentation for value in polygon])
        # the rasteriser never returns from a NaN coordinate
        if points.dtype.kind in "iuf" and np.all(np.abs(points) <= FARTHEST):
            return [polygon for polygon in segmentation if len(polygon) >= 6]
    raise UserError(f"{where}: segmentation must be a list of polygons, or run lengths with their size")


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, width, height = box
    return left, top, left + width, top + height


def _is_crowd(entry: Mapping[str, Any]) -> bool:
    return bool(entry["iscrowd"])


def _to_draw(entries: Iterable[Mapping[str, Any]], classes: Sequence[str]) -> bytes:
    largest_first = sorted(entries, key=lambda entry: -entry["bbox"][2] * entry["bbox"][3])
    drawn = [
        [classes.index(entry["category"]) + 1, entry["segmentation"]]
        for entry in largest_first
        if entry["segmentation"]
    ]
    return json.dumps(drawn, separators=(",", ":")).encode()


def _pictures(spec: str, root: Path, images: str | None, annotated: _Annotated) -> list[str]:
    """Return the path of each picture.

    Raises:
        UserError: If a picture is missing.
    """
    if not annotated.names:
        raise UserError(f"{annotated.file}: it lists no images")
    part = annotated.file.stem.removeprefix("instances_")
    guesses = (root, root / part, root / "images", root / "images" / part, annotated.file.parent)
    folders = guesses if images is None else (root / images,)
    in_folder = functools.cache(_names_in)

    def exists(path: Path) -> bool:
        return path.name in in_folder(path.parent)

    first = annotated.names[0]
    folder = next((folder for folder in folders if exists(folder / first)), folders[0])
    paths = [folder / name for name in annotated.names]
    for path in paths:
        if not exists(path):
            raise UserError(f"{spec}: {path} is missing, but {annotated.file} lists it; name its folder with images=")
    return [str(path) for path in paths]


def _names_in(folder: Path) -> frozenset[str]:
    try:
        return frozenset(entry.name for entry in folder.iterdir())
    except OSError:  # no such folder
        return frozenset()

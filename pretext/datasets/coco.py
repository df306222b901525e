"""`coco:DIR`: annotations in COCO's JSON, pictures beside them.

Splits: of each of train, val and test the file `instances_SPLIT.json`, with or without a year, in
DIR/annotations or DIR, or `SPLIT.json` there; the one JSON file where there is no other; the keys name
others.

Pictures: `file_name` is looked for below DIR, then below the folder that the JSON's name suggests
(`train2017` for `instances_train2017.json`), `images`, and the JSON's own folder; the key `images` names
another.

Classes: the categories of the training file in the order of their ids. Where every picture of every split
shows one class and no other, that is its `label` too.

Masks: where every annotation has a segmentation, drawn when a picture is read, smaller objects over larger
ones. Crowds (`iscrowd`) are `difficult` objects.

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
"""Largest coordinate that a polygon may have, in pixels."""


@dataclass(frozen=True)
class Options:
    """What the layout leaves open."""

    train: str | None = None
    """JSON file of the training pictures: its name, with or without `.json`, or its path below DIR."""
    val: str | None = None
    """JSON file of the validation pictures."""
    test: str | None = None
    """JSON file of the test pictures."""
    images: str | None = None
    """Folder below DIR that every `file_name` is relative to."""
    classes: str | None = None
    """Categories to keep, joined by commas, in this order."""


@dataclass(frozen=True)
class _Annotated:
    """One JSON file, read and checked."""

    file: Path
    classes: tuple[str, ...]
    names: list[str]
    """Each picture's `file_name`."""
    sizes: list[tuple[int, int]]
    """Height and width of every picture; empty where some are not given."""
    objects: list[list[dict[str, Any]]]
    """Each picture's annotations; `category` is the name."""


@final
class CocoMasks(Masks):
    """Masks drawn from polygons and run lengths; kept as JSON, the smallest form that is quick to read."""

    def __init__(self, images: Sequence[str], drawn: Sequence[bytes]) -> None:
        """Keep what is to be drawn: of each picture [[number, segmentation], …], the first at the bottom."""
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
        """Return a hash of all that is drawn; see `Masks.digest`."""
        return digest(*self.drawn)


def open_splits(path: str, options: Options) -> dict[str, ImageDataset]:
    """Return the splits that are there; see the module's words on where they are looked for.

    Raises:
        UserError: If a file is missing or malformed, or a picture is not there.
    """
    root, spec = folder_at("coco", path), f"coco:{path}"
    files, notes = _json_files(spec, root, options)
    read = {split: _read(file) for split, file in files.items()}
    if "train" not in read:
        return {}  # which is an error, and said so by the caller
    known = read["train"].classes
    for split, annotated in read.items():
        used = {entry["category"] for entries in annotated.objects for entry in entries}
        if strange := sorted(used - set(known)):
            raise UserError(f"{spec}: {split} has a class {strange[0]!r} that train lacks")
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
            label=torch.tensor([some[0] for some in labels], dtype=torch.int64) if single else None,
            objects=Objects.gather(
                (
                    some,
                    [_corners(entry["bbox"]) for entry in entries],
                    [_is_crowd(entry) for entry in entries],
                )
                for some, entries in zip(labels, annotated.objects, strict=True)
            ),
            masks=CocoMasks(images, [_to_draw(entries, classes) for entries in annotated.objects])
            if segmented
            else None,
            sizes=annotated.sizes,
        )
        splits[split].notes = tuple(notes)
    return splits


def _json_files(spec: str, root: Path, options: Options) -> tuple[dict[str, Path], list[str]]:
    """Return the JSON file of each split that there is, and notes on what was chosen from several."""
    every = [*sorted((root / "annotations").glob("*.json")), *sorted(root.glob("*.json"))]
    by_stem = {file.stem: file for file in reversed(every)}
    files, notes = {}, []
    for split in SPLITS:
        name: str | None = getattr(options, split)
        if name is not None:
            below = (root / name, root / f"{name}.json")
            there = by_stem.get(name.removesuffix(".json")) or next((f for f in below if f.is_file()), None)
            if there is None:
                raise UserError(f"{spec}: {split}={name}: no such JSON file; {did_you_mean(name, by_stem)}")
            files[split] = there
            continue
        usual = re.compile(rf"(instances_)?{split}[-_]?(\d{{4}})?")
        found = sorted(
            (stem for stem in by_stem if usual.fullmatch(stem)),
            key=lambda stem: (stem[:10] == "instances_", stem),
        )
        if found:
            files[split] = by_stem[found[-1]]
        if len(found) > 1:
            notes.append(f"Of {', '.join(found)} the file {found[-1]} is used; {split}= chooses another.")
    if not every and not files:
        raise UserError(f"{spec}: no JSON file in {root / 'annotations'} or {root}")
    if not files and len(every) == 1:
        files["train"] = every[0]
    if "train" not in files:
        raise UserError(f"{spec}: no JSON file for train; name it with train=; known: {', '.join(by_stem)}")
    return files, notes


def _read(file: Path) -> _Annotated:
    """Read one JSON file.

    Raises:
        UserError: If it is not what COCO's format asks for.
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
        raise UserError(f"{file}: not COCO's format: {error} is missing") from None
    except (TypeError, AttributeError):
        raise UserError(f"{file}: not COCO's format: expected lists of images, annotations and categories") from None
    classes = tuple(categories[number] for number in sorted(categories))
    for what, values in (("category name", classes), ("image id", [entry["id"] for entry in images])):
        value, count = Counter(values).most_common(1)[0] if values else (None, 0)
        if count > 1:
            raise UserError(f"{file}: the {what} {value!r} is given {count} times")
    objects: list[list[dict[str, Any]]] = [[] for _ in images]
    for number, entry in enumerate(annotations):
        try:
            box = [float(value) for value in entry["bbox"]]
            row, category = row_of[entry["image_id"]], categories[entry["category_id"]]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{file}: annotations[{number}]: {_what(error)}") from None
        if len(box) != 4 or not all(map(math.isfinite, box)):
            raise UserError(f"{file}: annotations[{number}]: bbox is x, y, width, height, not {entry['bbox']}")
        segmentation = _checked(entry.get("segmentation"), f"{file}: annotations[{number}]")
        objects[row].append(
            {"bbox": box, "category": category, "iscrowd": entry.get("iscrowd"), "segmentation": segmentation}
        )
    return _Annotated(file, classes, names, sizes if len(sizes) == len(images) else [], objects)


def _what(error: Exception) -> str:
    if isinstance(error, KeyError):
        key = error.args[0]
        return f"{key!r} is missing" if isinstance(key, str) else f"no image or category has the id {key}"
    return "expected an object with image_id, category_id and bbox"


def _checked(segmentation: Any, where: str) -> Any:
    """Return a segmentation without polygons that enclose nothing, or nothing where none is given."""
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        if isinstance(segmentation.get("counts"), list | str) and isinstance(segmentation.get("size"), list):
            return segmentation
    elif isinstance(segmentation, list) and all(isinstance(polygon, list) for polygon in segmentation):
        points = np.array([value for polygon in segmentation for value in polygon])
        # the rasteriser never returns from a coordinate that is not a number
        if points.dtype.kind in "iuf" and np.all(np.abs(points) <= FARTHEST):
            return [polygon for polygon in segmentation if len(polygon) >= 6]
    raise UserError(f"{where}: segmentation is a list of polygons or of run lengths with their size")


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
    """Return the path of every picture.

    Raises:
        UserError: If one is not there.
    """
    if not annotated.names:
        raise UserError(f"{annotated.file}: it has no images")
    part = annotated.file.stem.removeprefix("instances_")
    guesses = (root, root / part, root / "images", root / "images" / part, annotated.file.parent)
    folders = guesses if images is None else (root / images,)
    in_folder = functools.cache(_names_in)

    def is_there(path: Path) -> bool:
        return path.name in in_folder(path.parent)

    first = annotated.names[0]
    folder = next((folder for folder in folders if is_there(folder / first)), folders[0])
    paths = [folder / name for name in annotated.names]
    for path in paths:
        if not is_there(path):
            raise UserError(f"{spec}: {path} is not there, and {annotated.file} lists it; images= names the folder")
    return [str(path) for path in paths]


def _names_in(folder: Path) -> frozenset[str]:
    try:
        return frozenset(entry.name for entry in folder.iterdir())
    except OSError:  # no such folder: no picture is in it
        return frozenset()

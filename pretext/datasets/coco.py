"""`coco:DIR`: annotations in COCO's JSON format, and pictures.

Splits: `instances_SPLIT.json` or `SPLIT.json`, with or without a year, in DIR/annotations or DIR, for each SPLIT of
train, val (or valid, validation) and test. A single JSON file of any name is train. If there is none in COCO's format,
the only one in each of the folders `train`, `val` (or `valid`, `validation`) and `test`. The keys train, val and test
name other files.

Pictures: each `file_name` is relative to the first of these folders that contains the first picture: DIR, the
folder named like the JSON file (`train2017` for `instances_train2017.json`), `images`, that folder in `images`, and
the folder of the JSON file. The key `images` names another folder.

Classes: the categories of the training file, in the order of their ids, without those that only group others: that
are a supercategory and have no objects. If every picture of every split shows
exactly one class, it is the picture's `label` too.

Masks: available if at least half of the objects of every split have a segmentation; the boxes of the others are
ignored (255). They are drawn when a picture is read, smaller objects over larger ones. Crowds (`iscrowd`) are
`difficult` objects.

Source: Lin et al. 2014, "Microsoft COCO: Common Objects in Context"; cocodataset.org/#format-data.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray

from pretext.datasets.base import IGNORE, BadImage, Fault, ImageDataset
from pretext.datasets.coco_format import Annotated, boxes_from_outlines, named_classes, read_json
from pretext.datasets.coco_turned import turn_annotations
from pretext.datasets.files import FileDataset, Masks, chosen_classes, folder_at
from pretext.datasets.fingerprints import digest
from pretext.datasets.layouts import SPLIT_NAMES, fitting_spec, starts_like_coco
from pretext.datasets.objects import Objects
from pretext.system.errors import UserError, did_you_mean

LEAST_OUTLINED = 0.5
"""Share of a split's objects that must have an outline for masks."""


@dataclass(frozen=True)
class Options:
    """Options of `coco:DIR?…`."""

    train: str | None = None
    """JSON file of the training pictures: its name or its path below DIR, with or without `.json`; if omitted, that of
    a default name."""
    val: str | None = None
    """JSON file of the validation pictures, given as for train."""
    test: str | None = None
    """JSON file of the test pictures, given as for train."""
    images: str | None = None
    """Folder below DIR that contains the pictures; if omitted, the first of the default folders that does."""
    classes: str | None = None
    """Categories to keep, separated by commas, in this order; all of train's if omitted."""


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
            if isinstance(segmentation, dict) and segmentation["size"] != [height, width]:
                size = "×".join(map(str, reversed(segmentation["size"])))  # before any memory is taken
                raise BadImage(f"{self.images[index]}: is {width}×{height}, a segmentation of it {size}")
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
    read = {split: read_json(file) for split, file in files.items()}
    if "train" not in read:
        return {}  # the caller raises
    notes += named_classes(read)
    known = read["train"].classes
    for split, annotated in read.items():
        used = {entry["category"] for entries in annotated.objects for entry in entries}
        if unknown := sorted(used - set(known)):
            raise UserError(f"{spec}: {split} has a class {unknown[0]!r} that train lacks")
    classes = chosen_classes(spec, options.classes, known)
    pictures = {split: _pictures(spec, root, options.images, annotated) for split, annotated in read.items()}
    notes += turn_annotations(read, pictures)
    for split, annotated in read.items():
        for entries in annotated.objects:
            entries[:] = [entry for entry in entries if entry["category"] in classes]
        notes += boxes_from_outlines(split, annotated)
    everywhere = [entries for annotated in read.values() for entries in annotated.objects]
    single = all(len({entry["category"] for entry in entries}) == 1 for entries in everywhere)
    segmented, about_masks = _outlined(read)
    if segmented and len(classes) >= IGNORE - 1:
        about_masks = f"{len(classes)} classes do not fit a mask of 8 bits: masks are not used."
        segmented = False
    notes += [Fault(about_masks)] if about_masks else []

    splits: dict[str, ImageDataset] = {}
    for split, annotated in read.items():
        images = pictures[split]
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
        splits[split].lacking = {} if segmented or not about_masks else {"masks": about_masks.removesuffix(".")}
    return splits


def _outlined(read: Mapping[str, Annotated]) -> tuple[bool, str]:
    """Return whether there are enough outlines for masks, and a note on objects without one; "" if none lacks it."""
    lacking, enough, some_outline = [], True, False
    for split, annotated in read.items():
        has = [[entry["segmentation"] is not None for entry in entries] for entries in annotated.objects]
        count, missing = sum(map(len, has)), sum(entries.count(False) for entries in has)
        some_outline |= count > missing
        enough &= missing <= (1 - LEAST_OUTLINED) * count
        if missing:
            first = next(name for name, entries in zip(annotated.names, has, strict=True) if False in entries)
            lacking.append(f"{missing:,} of {count:,} objects in {split}, the first in {first}")
    if not some_outline:
        return False, ""
    if not lacking:
        return True, ""
    end = "in masks, their boxes are ignored" if enough else "too many for masks, which are not used"
    return enough, f"Without an outline (segmentation) are {' and '.join(lacking)}: {end}."


def _json_files(spec: str, root: Path, options: Options) -> tuple[dict[str, Path], list[str]]:
    """Return the JSON file of each split that has one, and notes on files chosen among several."""
    candidates = [*sorted((root / "annotations").glob("*.json")), *sorted(root.glob("*.json"))]
    by_stem = {file.stem: file for file in reversed(candidates)}
    files, notes = {}, []
    for split, words in SPLIT_NAMES.items():
        name: str | None = getattr(options, split)
        if name is not None:
            paths = (root / name, root / f"{name}.json")
            file = by_stem.get(name.removesuffix(".json")) or next((path for path in paths if path.is_file()), None)
            if file is None:
                raise UserError(f"{spec}: {split}={name}: no such JSON file; {did_you_mean(name, by_stem)}")
            files[split] = file
            continue
        # the first name of a split that any file has
        fitting = (
            [stem for stem in by_stem if re.fullmatch(rf"(instances_)?{word}[-_]?(\d{{4}})?", stem)] for word in words
        )
        found = sorted(next(filter(None, fitting), []), key=lambda stem: (stem[:10] == "instances_", stem))
        if found:
            files[split] = by_stem[found[-1]]
        if len(found) > 1:
            notes.append(f"Several files fit {split}: {', '.join(found)}. The last is used; {split}= chooses another.")
    if not files and not any(map(starts_like_coco, candidates)):
        files = _in_split_folders(spec, root)
    if not candidates and not files:
        other = fitting_spec(str(root))
        hint = f"; {other} fits what lies there" if other != f"folder:{root}" else ""
        raise UserError(f"{spec}: no JSON file in {root / 'annotations'} or {root}{hint}")
    if not files and len(candidates) == 1:
        files["train"] = candidates[0]
    if "train" not in files:
        raise UserError(f"{spec}: no JSON file for train; name it with train=; known: {', '.join(by_stem)}")
    return files, notes


def _in_split_folders(spec: str, root: Path) -> dict[str, Path]:
    """Return the only JSON file in COCO's format in the folder of each split."""
    files: dict[str, Path] = {}
    for split, names in SPLIT_NAMES.items():
        found = next((found for name in names if (found := sorted((root / name).glob("*.json")))), [])
        if len(found) > 1:
            found = [file for file in found if starts_like_coco(file)]
        if len(found) > 1:
            known = ", ".join(f"{split}={file.parent.name}/{file.name}" for file in found)
            raise UserError(f"{spec}: several JSON files in {found[0].parent}; choose one by {known}")
        if found:
            files[split] = found[0]
    return files


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, width, height = box
    return left, top, left + width, top + height


def _is_crowd(entry: Mapping[str, Any]) -> bool:
    return bool(entry["iscrowd"])


def _to_draw(entries: Iterable[Mapping[str, Any]], classes: Sequence[str]) -> bytes:
    largest_first = sorted(entries, key=lambda entry: -abs(entry["bbox"][2] * entry["bbox"][3]))
    drawn = [[IGNORE, [_outline_of(entry["bbox"])]] for entry in largest_first if not entry["segmentation"]]
    drawn += [
        [classes.index(entry["category"]) + 1, entry["segmentation"]]
        for entry in largest_first
        if entry["segmentation"]
    ]
    return json.dumps(drawn, separators=(",", ":")).encode()


def _outline_of(box: Sequence[float]) -> list[float]:
    left, top, right, bottom = _corners(box)
    return [left, top, right, top, right, bottom, left, bottom]


def _pictures(spec: str, root: Path, images: str | None, annotated: Annotated) -> list[str]:
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
    if "\\" in first and not any(exists(folder / first) for folder in folders):
        annotated.names[:] = [name.replace("\\", "/") for name in annotated.names]  # written on Windows
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

"""The kind of data set that fits what lies in a place, and annotations there that no class folder shows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pretext.datasets.decoding import check_regular
from pretext.datasets.files import FEW, images_below
from pretext.datasets.voc_format import xml_and_pictures
from pretext.system.specs import path_of

SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""What the folder or the file of each split may be called; an earlier name is taken before a later one."""
SPLIT_FOLDERS = ("", *(name for names in SPLIT_NAMES.values() for name in names))
DEVKITS = ("VOC*/VOC[0-9]*/ImageSets", "*/VOCdevkit/VOC[0-9]*/ImageSets")
"""Where the lists of PASCAL VOC lie below a folder that holds its archives."""
YOLO_LINE = re.compile(r"\d+(\s+-?\d+(\.\d*)?(e-?\d+)?){4,}")
MOST_JSON = 20
"""Number of JSON files that are looked at: some tools write one for each picture."""
TABLES = ("_classes.csv", "_annotations.csv", "_annotations.txt", "_annotations.createml.json")
"""Files by which hosted labelling services annotate a folder of pictures in formats that no kind reads."""


def fitting_kind(root: Path) -> str:
    """Return the kind whose layout the folder has; `folder` if it has none of the others'."""
    if (
        any(root.glob("VOC[0-9]*"))
        or devkits_below(root)
        or ((root / "Annotations").is_dir() and (root / "JPEGImages").is_dir())
    ):
        return "voc"
    for pattern in ("*.json", "annotations/*.json", "*/*coco.json"):
        if any(starts_like_coco(file) for file in sorted(root.glob(pattern))[:MOST_JSON]):
            return "coco"
    folders = [root / name for name in SPLIT_FOLDERS]
    if any((folder / "masks").is_dir() and (folder / "images").is_dir() for folder in folders):
        return "masks"
    if (root / "train").is_dir() and (root / "trainannot").is_dir():
        return "masks"
    return "voc" if any(map(xml_and_pictures, folders)) else "folder"


def store_at(path: str) -> str | None:
    """Return the kind that reads the larger files, or the list, that a path names; None if a folder has pictures too.

    Args:
        path: A file, a folder, or a pattern of names.
    """
    by_suffix = {".tar": "wds", ".parquet": "parquet", ".arrow": "hf", ".txt": "list"}
    place = path_of(path)
    if not place.is_dir():
        return by_suffix.get(place.suffix.lower()) if place.is_file() or place.suffix != ".txt" else None
    if next(images_below(place), None) is not None:
        return None
    found = (file for pattern in ("*", "*/*", "*/*/*") for file in place.glob(pattern) if file.suffix in by_suffix)
    return next((by_suffix[file.suffix] for file in found if file.suffix != ".txt"), None)


def devkits_below(root: Path) -> list[Path]:
    """Return the folders below one that hold VOCyyyy folders with lists, as unpacked archives have them."""
    return sorted({lists.parents[1] for pattern in DEVKITS for lists in root.glob(pattern)})


def fitting_spec(path: str) -> str:
    """Return the spec of what lies at a path: of the folder, or of the only folder in it that is more than pictures."""
    if store := store_at(path):
        return f"{store}:{path}"
    root = path_of(path)
    if (kind := fitting_kind(root)) != "folder" or not root.is_dir():
        return f"{kind}:{path}"
    inside = [f"{kind}:{entry}" for entry in sorted(root.iterdir()) if (kind := fitting_kind(entry)) != "folder"]
    return inside[0] if len(inside) == 1 else f"folder:{path}"


def starts_like_coco(file: Path) -> bool:
    """Return whether a JSON file names COCO's lists near its start or its end; large files are not read whole."""
    try:
        check_regular(file)
        with file.open("rb") as stream:
            start = stream.read(1 << 16)
            stream.seek(max(0, file.stat().st_size - (1 << 16)))
            ends = start + stream.read()
    except OSError:  # not readable: another kind may fit
        return False
    return any(f'"{key}"'.encode() in ends for key in ("annotations", "categories", "image_id"))


def unread_annotations(root: Path, images: Sequence[str]) -> str:
    """Return which annotations of these pictures `folder` does not read, and what reads them; "" if none are seen.

    Args:
        root: The data set's folder.
        images: The paths of its pictures; a few of them are looked at.
    """
    if (kind := fitting_kind(root)) != "folder":
        return f"{root} has the layout of {kind}, of which folder reads the pictures alone; {kind}:{root} reads it all"
    for image in images[:: max(1, len(images) // FEW)]:
        for file in _text_files_of(image):
            if _is_yolo(file):
                return (
                    f"{os.path.relpath(file, root)} holds boxes in YOLO's format, which no kind of data set reads; "
                    "convert them to COCO's JSON or VOC's XML, which coco:DIR and voc:DIR read"
                )
    for table in (root / split / name for split in SPLIT_FOLDERS for name in TABLES):
        if table.is_file():
            return (
                f"{os.path.relpath(table, root)} is in a format that no kind of data set reads; export COCO's JSON, "
                "VOC's XML or class folders instead"
            )
    return ""


def _text_files_of(image: str) -> Iterator[Path]:
    """Yield where YOLO's boxes of a picture may be: beside it, or in `labels` in the place of `images`."""
    beside = Path(image).with_suffix(".txt")
    yield beside
    parts = beside.parts
    if "images" in parts[:-1]:
        at = max(place for place, part in enumerate(parts[:-1]) if part == "images")
        yield Path(*parts[:at], "labels", *parts[at + 1 :])


def _is_yolo(file: Path) -> bool:
    if not file.is_file():
        return False
    try:
        with file.open("rb") as stream:
            lines = stream.read(1 << 12).decode("utf-8-sig", errors="replace").splitlines()
    except OSError:  # not readable
        return False
    return bool(lines) and YOLO_LINE.fullmatch(lines[0].strip()) is not None

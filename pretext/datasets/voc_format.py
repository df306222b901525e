"""The files of VOC's layout: one XML file for each picture, paired by name."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from pretext.datasets.decoding import check_regular, image_suffixes
from pretext.datasets.objects import Listed
from pretext.system.errors import UserError

XML_FOLDERS = ("", "Annotations", "annotations")
PICTURE_FOLDERS = ("", "JPEGImages", "images")


@dataclass(frozen=True)
class Part:
    """The files of one split, in the order of its pictures."""

    images: list[str]
    annotations: list[Path]
    masks: list[str]
    """The mask of each picture; "" if it has none."""


@dataclass(frozen=True)
class Annotation:
    """The objects of one XML file."""

    size: tuple[int, int] | None
    """Height and width, or None if unknown."""
    names: list[str]
    boxes: list[tuple[float, float, float, float]]
    difficult: list[bool]


def read_annotation(file: Path) -> Annotation:
    """Read one annotation file. VOC counts pixels from 1, and its boxes include their last pixel.

    Raises:
        UserError: If the file is missing or malformed.
    """
    try:
        check_regular(file)
        tree = ElementTree.parse(file).getroot()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: an encoding that is not known
        raise UserError(f"{file}: not well-formed XML: {error}") from None
    names, boxes, difficult = [], [], []
    # not iter(): the parts of a person are nested in its object
    for number, entry in enumerate(tree.findall("object"), 1):
        name = (entry.findtext("name") or "").strip()
        try:
            left, top, right, bottom = (
                float(entry.findtext(f"bndbox/{side}") or "") for side in ("xmin", "ymin", "xmax", "ymax")
            )
            is_difficult = int(entry.findtext("difficult") or 0) != 0
            if not math.isfinite(left + top + right + bottom):
                raise ValueError
        except ValueError:
            raise UserError(f"{file}: object {number}: expected numbers in bndbox and difficult") from None
        if not name:
            raise UserError(f"{file}: object {number} has no name")
        names.append(name)
        # swapped sides stay swapped, around the same pixels; `Objects.mended` puts them in order
        x0, x1 = (left - 1, right) if left <= right else (left, right - 1)
        y0, y1 = (top - 1, bottom) if top <= bottom else (top, bottom - 1)
        boxes.append((x0, y0, x1, y1))
        difficult.append(is_difficult)
    try:
        height, width = (int(float(tree.findtext(f"size/{side}") or 0)) for side in ("height", "width"))
    except (ValueError, OverflowError):
        raise UserError(f"{file}: expected numbers in size") from None
    # some tools write 0 for an unknown size
    return Annotation((height, width) if height and width else None, names, boxes, difficult)


def listed(annotation: Annotation, classes: Sequence[str]) -> Listed:
    """Return the objects of some classes, with the numbers of these."""
    rows = [row for row, name in enumerate(annotation.names) if name in classes]
    return (
        [classes.index(annotation.names[row]) for row in rows],
        [annotation.boxes[row] for row in rows],
        [annotation.difficult[row] for row in rows],
    )


def by_stem(folder: Path) -> dict[str, str]:
    """Return the paths of the pictures in a folder, by their names without suffix."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        files = sorted(entry.path for entry in entries)
    return {Path(file).stem: file for file in files if Path(file).suffix.lower() in image_suffixes()}


def xml_and_pictures(folder: Path) -> tuple[dict[str, Path], dict[str, str]] | None:
    """Return XML files and pictures by their names, from the first pair of folders that holds both; else None."""
    for inside in XML_FOLDERS:
        annotations = {file.stem: file for file in sorted((folder / inside).glob("*.[xX][mM][lL]"))}
        for beside in PICTURE_FOLDERS if annotations else ():
            pictures = by_stem(folder / beside)
            if not annotations.keys().isdisjoint(pictures):
                return annotations, pictures
    return None

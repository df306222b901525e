"""`voc:DIR`: the layout of PASCAL VOC: Annotations, ImageSets, JPEGImages, and SegmentationClass for some pictures.

DIR is a VOCdevkit folder or one of its VOCyyyy folders.

Splits: lists in ImageSets. A list is searched in the folder `sets`, then in the other folders of ImageSets.
`Segmentation/train` names folder and list. A name with a slash or a suffix may also be the path of any list file.
In a list with a second column (VOC's `car_train`), pictures marked -1 are left out. Names may have spaces or suffixes.

Classes: VOC's twenty classes in alphabetical order, the order of their numbers in the masks. If any object has
another class, the classes are the sorted names of all objects in the splits.

Masks: available if every split has at least one. In a picture without one, every pixel is 255 (ignored). A split
listed in ImageSets/Segmentation must have a mask for every picture; `sets=Segmentation` uses these lists.

Source: Everingham et al. 2010, "The PASCAL Visual Object Classes (VOC) Challenge".
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from pretext.datasets.base import ImageDataset
from pretext.datasets.decoding import check_regular, image_suffixes
from pretext.datasets.files import FileDataset, MaskFiles, chosen_classes, folder_at, text_lines
from pretext.datasets.mask_values import mask_table, read_white, values_without_class
from pretext.datasets.objects import Listed, Objects
from pretext.system.errors import UserError, did_you_mean
from pretext.system.specs import path_of

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
USUAL = {"train": "train", "val": "val", "test": "test"}


@dataclass(frozen=True)
class Options:
    """Options of `voc:DIR?…`."""

    year: str | None = None
    """Year of the VOCyyyy folder in a devkit, such as 2007; None takes the most recent one."""
    sets: str = "Main"
    """Folder in ImageSets to take the lists from, such as Main or Segmentation."""
    train: str | None = None
    """List of the training pictures; None looks for `train`."""
    val: str | None = None
    """List of the validation pictures; None looks for `val` and skips it if it overlaps train."""
    test: str | None = None
    """List of the test pictures; None looks for `test` and skips it if it overlaps train or is not annotated."""
    classes: str | None = None
    """Classes to keep, separated by commas, in this order; the others become background in masks. None keeps all."""
    ignore: int = 255
    """Mask value of pixels to ignore, 0 to 255; not the number of a class."""


@dataclass(frozen=True)
class _Annotation:
    """The objects of one XML file."""

    size: tuple[int, int] | None
    """Height and width, or None if unknown."""
    names: list[str]
    boxes: list[tuple[float, float, float, float]]
    difficult: list[bool]


def open_splits(path: str, options: Options) -> dict[str, ImageDataset]:
    """Return the splits that exist; see the module for how they are found.

    Raises:
        UserError: If a list, an annotation, a picture or a mask is missing or malformed.
    """
    spec = f"voc:{path}"
    root, notes = _year_folder(spec, folder_at("voc", path), options.year)
    lists = _lists(spec, root, options)
    pictures = _by_stem(root / "JPEGImages")
    ids = {split: _ids(spec, file, pictures) for split, file in lists.items()}
    if options.test is None and "test" in ids and not any(_annotation_of(root, name).is_file() for name in ids["test"]):
        notes.append(f"No picture of {lists['test'].name} is annotated: that list is not used.")
        del ids["test"]

    for split in ("val", "test"):  # with train=trainval, VOC's own val is no longer held out
        if split in ids and getattr(options, split) is None and not set(ids[split]).isdisjoint(ids["train"]):
            notes.append(f"{lists['train'].name} holds pictures of {lists[split].name}: that list is not used.")
            del ids[split]

    for split, names in ids.items():
        for name in names:
            if name not in pictures:
                missing = root / "JPEGImages" / f"{name}.jpg"
                raise UserError(f"{spec}: {missing} is missing, but {lists[split]} lists it")
    annotations = {split: [_read(_annotation_of(root, name)) for name in names] for split, names in ids.items()}
    named = {name for part in annotations.values() for annotation in part for name in annotation.names}
    known = CLASSES if named <= set(CLASSES) else tuple(sorted(named))
    classes = chosen_classes(spec, options.classes, known)
    masks = _masks(spec, root, lists, ids)
    table = mask_table(known, classes, options.ignore) if masks else None
    if table is not None:
        numbers = set(range(1, len(known) + 1)) - {options.ignore}
        files = [file for part in masks.values() for file in part if file]
        values = values_without_class(root, files, numbers)
        if (note := read_white(table, known, values)) is not None:
            notes.append(note)
        elif values:
            table, masks = None, {}
            notes.append(
                f"Masks are not used: they hold {', '.join(map(str, values[:10]))}, but no number of a class "
                f"(1 to {len(known)})."
            )

    splits: dict[str, ImageDataset] = {}
    for split, part in annotations.items():
        sizes = [annotation.size for annotation in part if annotation.size is not None]
        splits[split] = FileDataset(
            root=root,
            images=[pictures[name] for name in ids[split]],
            classes=classes,
            objects=Objects.gather(_listed(annotation, classes) for annotation in part),
            masks=None if table is None else MaskFiles(masks[split], table),
            sizes=sizes if len(sizes) == len(part) else (),
        )
    lacking = {split: files.count("") for split, files in masks.items()}
    if any(lacking.values()):
        counts = ", ".join(f"{count:,} of {len(ids[split]):,} in {split}" for split, count in lacking.items())
        notes.append(
            f"Pictures without a mask ({counts}) do not count in segmentation; sets=Segmentation leaves them out."
        )
    for data in splits.values():
        data.notes = tuple(notes)
    return splits


def _year_folder(spec: str, root: Path, year: str | None) -> tuple[Path, list[str]]:
    """Return the folder that contains ImageSets, and a note if it was chosen among several years."""
    if (root / "ImageSets").is_dir():
        if year is not None and year not in root.name:
            raise UserError(f"{spec}: year={year}, but this is the folder of one year; remove year=")
        return root, []
    years = sorted(entry.parent.name for entry in root.glob("VOC*/ImageSets"))
    if not years:
        raise UserError(f"{spec}: no ImageSets folder in it or in its VOCyyyy folders; give a VOCdevkit folder")
    if year is None:
        note = (
            [f"Years {', '.join(years)} exist; the most recent is used, and year= chooses another."]
            if len(years) > 1
            else []
        )
        return root / years[-1], note
    name = year if year.startswith("VOC") else f"VOC{year}"
    if name not in years:
        raise UserError(f"{spec}: year={year}: no folder {name}; {did_you_mean(name, years)}")
    return root / name, []


def _lists(spec: str, root: Path, options: Options) -> dict[str, Path]:
    """Return the list file of each split that has one."""
    folders = sorted(entry.name for entry in (root / "ImageSets").iterdir() if entry.is_dir())
    if options.sets not in folders:
        raise UserError(
            f"{spec}: sets={options.sets}: no such folder in ImageSets; {did_you_mean(options.sets, folders)}"
        )
    folders.remove(options.sets)
    found: dict[str, Path] = {}
    for split, usual in USUAL.items():
        name: str | None = getattr(options, split)
        candidates = [
            root / "ImageSets" / folder / f"{name or usual}.txt"
            for folder in (options.sets, *(folders if name else ()), "")
        ]
        if name and ("/" in name or os.sep in name or Path(name).suffix):
            candidates.append(path_of(name))
        match = next((file for file in candidates if file.is_file()), None)
        if match is not None:
            found[split] = match
        elif name is not None or split == "train":
            names = [file.stem for file in (root / "ImageSets" / options.sets).glob("*.txt")]
            # leave out the many lists of single classes
            plain = [stem for stem in names if stem.partition("_")[0] not in CLASSES or stem == "train"]
            hint = did_you_mean(name or usual, plain)
            raise UserError(f"{spec}: {split}={name or usual}: no such list in ImageSets; {hint}")
    return found


def _ids(spec: str, file: Path, pictures: Mapping[str, str]) -> list[str]:
    """Return the names of the pictures in a list file, without duplicates and suffixes.

    A name may contain spaces if there is a picture of that name.
    """
    names = []
    for number, line in enumerate(text_lines(file, "a list of pictures"), 1):
        name, column = (line, "") if _known(line, pictures) else _last_word(line)
        if len(name.split()) > 1 and _known(name, pictures) is None:
            raise UserError(f"{file}, line {number}: expected the name of a picture, optionally with 1, 0 or -1")
        if name and column != "-1":
            names.append(_known(name, pictures) or name)
    if not names:
        raise UserError(f"{spec}: {file} lists no picture")
    return list(dict.fromkeys(names))


def _last_word(line: str) -> tuple[str, str]:
    """Return a line in two: the name, and the number in the second column or "" if there is none."""
    words = line.rsplit(maxsplit=1)
    return (words[0], words[1]) if len(words) == 2 and words[1].lstrip("-").isdigit() else (line, "")


def _known(name: str, pictures: Mapping[str, str]) -> str | None:
    """Return the picture that a list names, with or without the suffix of its file; None if there is none."""
    if name in pictures:
        return name
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a Path would drop a slash
    return stem if suffix.lower() in image_suffixes() and stem in pictures else None


def _by_stem(folder: Path) -> dict[str, str]:
    """Return the paths of the pictures in a folder, by their names without suffix."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        files = sorted(entry.path for entry in entries)
    return {Path(file).stem: file for file in files if Path(file).suffix.lower() in image_suffixes()}


def _annotation_of(root: Path, name: str) -> Path:
    return root / "Annotations" / f"{name}.xml"


def _read(file: Path) -> _Annotation:
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
    return _Annotation((height, width) if height and width else None, names, boxes, difficult)


def _listed(annotation: _Annotation, classes: Sequence[str]) -> Listed:
    rows = [row for row, name in enumerate(annotation.names) if name in classes]
    return (
        [classes.index(annotation.names[row]) for row in rows],
        [annotation.boxes[row] for row in rows],
        [annotation.difficult[row] for row in rows],
    )


def _masks(spec: str, root: Path, lists: Mapping[str, Path], ids: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the mask file of each picture ("" if it has none); empty if a split has no mask at all."""
    masks = _by_stem(root / "SegmentationClass")
    files = {split: [masks.get(name, "") for name in names] for split, names in ids.items()}
    for split, found in files.items():
        if "" in found and lists[split].parent == root / "ImageSets" / "Segmentation":
            missing = root / "SegmentationClass" / f"{ids[split][found.index('')]}.png"
            raise UserError(f"{spec}: {missing} is missing, but {lists[split]} lists it")
    return files if all(any(found) for found in files.values()) else {}

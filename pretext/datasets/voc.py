"""`voc:DIR`: the layout of PASCAL VOC: Annotations, ImageSets, JPEGImages, and SegmentationClass for some pictures.

DIR is a VOCdevkit folder, one of its VOCyyyy folders, or the folder that holds VOCdevkit. Without ImageSets, DIR or
its sub-folders train, val (or valid, validation) and test hold pictures with their XML files beside them, or in
Annotations beside JPEGImages, or in annotations beside images; the keys train, val and test then name sub-folders.

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

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pretext.datasets.base import Fault, ImageDataset
from pretext.datasets.decoding import image_suffixes
from pretext.datasets.files import FileDataset, MaskFiles, chosen_classes, folder_at, text_lines
from pretext.datasets.layouts import SPLIT_NAMES, devkits_below
from pretext.datasets.mask_values import mask_table, read_white, values_without_class
from pretext.datasets.objects import Objects
from pretext.datasets.voc_folders import parts_in_folders
from pretext.datasets.voc_format import Part, by_stem, listed, read_annotation
from pretext.system.errors import UserError, did_you_mean
from pretext.system.progress import counted
from pretext.system.specs import path_of

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Options of `voc:DIR?…`."""

    year: str | None = None
    """Year of the VOCyyyy folder in a devkit, such as 2007; the most recent one if omitted."""
    sets: str = "Main"
    """Folder in ImageSets to take the lists from, such as Main or Segmentation."""
    train: str | None = None
    """List of the training pictures, or their sub-folder where there is no ImageSets; `train` if omitted."""
    val: str | None = None
    """List or sub-folder of the validation pictures; if omitted, `val`, `valid` or `validation`, unless it overlaps
    train."""
    test: str | None = None
    """List or sub-folder of the test pictures; if omitted, `test`, unless it overlaps train or is not annotated."""
    classes: str | None = None
    """Classes to keep, separated by commas, in this order; all if omitted. In masks the others become background."""
    ignore: int = 255
    """Mask value of pixels to ignore, 0 to 255; not the number of a class."""


def open_splits(path: str, options: Options) -> dict[str, ImageDataset]:
    """Return the splits that exist; see the module for how they are found.

    Raises:
        UserError: If a list, an annotation, a picture or a mask is missing or malformed.
    """
    spec = f"voc:{path}"
    root = _devkit(spec, folder_at("voc", path))
    if _years_in(root) or options.year is not None or options.sets != Options.sets:
        root, notes = _year_folder(spec, root, options.year)
        parts, about_lists = _listed_parts(spec, root, options)
        notes += about_lists
    else:
        parts, notes = parts_in_folders(spec, root, {split: getattr(options, split) for split in SPLIT_NAMES})
    annotations = {
        split: [*map(read_annotation, counted(part.annotations, f"read {split}", len(part.annotations), unit="file"))]
        for split, part in parts.items()
    }
    named = {name for part in annotations.values() for annotation in part for name in annotation.names}
    known = CLASSES if named <= set(CLASSES) else tuple(sorted(named))
    classes = chosen_classes(spec, options.classes, known)
    masks = {split: part.masks for split, part in parts.items()}
    if not all(any(files) for files in masks.values()):
        masks = {}
    table = mask_table(known, classes, options.ignore) if masks else None
    if table is not None:
        numbers = set(range(1, len(known) + 1)) - {options.ignore}
        files = [file for part in masks.values() for file in part if file]
        values = values_without_class(root, files, numbers)
        if (note := read_white(table, known, values)) is not None:
            notes.append(note)
        elif values:
            table, masks = None, {}
            held = ", ".join(map(str, values[:10]))
            about = f"Masks are not used: they hold {held}, but no number of a class (1 to {len(known)})."
            notes.append(Fault(about))

    splits: dict[str, ImageDataset] = {}
    for split, found in annotations.items():
        sizes = [annotation.size for annotation in found if annotation.size is not None]
        splits[split] = FileDataset(
            root=root,
            images=parts[split].images,
            classes=classes,
            objects=Objects.gather(listed(annotation, classes) for annotation in found),
            masks=None if table is None else MaskFiles(masks[split], table),
            sizes=sizes if len(sizes) == len(found) else (),
        )
    lacking = {split: files.count("") for split, files in masks.items()}
    if any(lacking.values()):
        counts = ", ".join(f"{count:,} of {len(masks[split]):,} in {split}" for split, count in lacking.items())
        notes.append(
            f"Pictures without a mask ({counts}) do not count in segmentation; sets=Segmentation leaves them out."
        )
    for data in splits.values():
        data.notes = tuple(notes)
    return splits


def _listed_parts(spec: str, root: Path, options: Options) -> tuple[dict[str, Part], list[str]]:
    """Return the files of each split that has a list, and notes on lists that are not used."""
    lists = _lists(spec, root, options)
    notes: list[str] = []
    pictures, drawn = by_stem(root / "JPEGImages"), by_stem(root / "SegmentationClass")
    ids = {split: _ids(spec, file, pictures) for split, file in lists.items()}
    if options.test is None and "test" in ids and not any(_annotation_of(root, name).is_file() for name in ids["test"]):
        notes.append(Fault(f"No picture of {lists['test'].name} is annotated: that list is not used."))
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
            if name not in drawn and lists[split].parent == root / "ImageSets" / "Segmentation":
                missing = root / "SegmentationClass" / f"{name}.png"
                raise UserError(f"{spec}: {missing} is missing, but {lists[split]} lists it")
    parts = {
        split: Part(
            [pictures[name] for name in names],
            [_annotation_of(root, name) for name in names],
            [drawn.get(name, "") for name in names],
        )
        for split, names in ids.items()
    }
    return parts, notes


def _devkit(spec: str, root: Path) -> Path:
    """Return the folder that holds the lists or VOCyyyy folders; without lists here or below, the folder itself."""
    if _years_in(root):
        return root
    below = devkits_below(root)
    if len(below) > 1:
        raise UserError(
            f"{spec}: several folders hold VOCyyyy folders; choose {' or '.join(f'voc:{e}' for e in below)}"
        )
    return below[0] if below else root


def _years_in(root: Path) -> bool:
    """Return whether the folder or one of its VOCyyyy folders has lists."""
    return (root / "ImageSets").is_dir() or any(root.glob("VOC*/ImageSets"))


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
    if options.sets in folders:
        folders.remove(options.sets)
    elif options.sets != Options.sets or not any((root / "ImageSets").glob("*.txt")):
        raise UserError(
            f"{spec}: sets={options.sets}: no such folder in ImageSets; {did_you_mean(options.sets, folders)}"
        )
    found: dict[str, Path] = {}
    for split, usual in SPLIT_NAMES.items():
        name: str | None = getattr(options, split)
        candidates = [
            root / "ImageSets" / folder / f"{word}.txt"
            for word in ((name,) if name else usual)
            for folder in (options.sets, *(folders if name else ()), "")
        ]
        if name and ("/" in name or os.sep in name or Path(name).suffix):
            candidates.append(path_of(name))
        match = next((file for file in candidates if file.is_file()), None)
        if match is not None:
            found[split] = match
        elif name is not None or split == "train":
            names = [file.stem for where in (options.sets, "") for file in (root / "ImageSets" / where).glob("*.txt")]
            # leave out the many lists of single classes
            plain = [stem for stem in names if stem.partition("_")[0] not in CLASSES or stem == "train"]
            hint = did_you_mean(name or split, plain)
            raise UserError(f"{spec}: {split}={name or split}: no such list in ImageSets; {hint}")
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


def _annotation_of(root: Path, name: str) -> Path:
    return root / "Annotations" / f"{name}.xml"

"""`masks:DIR`: a folder of pictures beside a folder of index masks, for segmentation.

Layout: DIR/images and DIR/masks, both with or without the sub-folders train, val (or valid, validation) and
test; or DIR/train, DIR/val and DIR/test, each with the folders images and masks; or DIR/train beside DIR/trainannot,
DIR/val beside DIR/valannot and so on. A picture and its mask have the same relative path, except for the suffix.

Masks are greyscale or palette pictures: 0 is background, k is the k-th class, and pixels of the value `ignore` are
ignored. With `background=none` there is no background: 0 is the first class, k the class after k others. Masks that
hold 0 and 255 alone, with one class named, are read as background and that class. Class names are the lines of
DIR/classes.txt (a first line `background` is skipped if there is one), or the option `classes`. The classes in a mask
are the `labels` of its picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pretext.datasets.base import ImageDataset
from pretext.datasets.files import FileDataset, MaskFiles, chosen_classes, folder_at, images_below, text_lines
from pretext.datasets.layouts import SPLIT_NAMES
from pretext.datasets.mask_values import mask_table, read_white, values_without_class
from pretext.system.errors import UserError, did_you_mean

MOST_NUMBERS = 4
"""Numbers in masks that a note explains."""


@dataclass(frozen=True)
class Options:
    """Options of `masks:DIR?…`."""

    train: str | None = None
    """Sub-folder of the training pictures; `train` if omitted."""
    val: str | None = None
    """Sub-folder of the validation pictures; `val`, `valid` or `validation` if omitted."""
    test: str | None = None
    """Sub-folder of the test pictures; `test` if omitted."""
    images: str = "images"
    """Name of the folder that contains the pictures."""
    masks: str = "masks"
    """Name of the folder that contains the masks."""
    classes: str | None = None
    """Class names, separated by commas. With a classes.txt: the classes to keep, in this order; the others become
    background, or are ignored if there is none. Without one: all classes, in the order of their numbers."""
    background: Literal["0", "none"] = "0"
    """Mask value of the background; `none` if number 0 is the first class and there is no background."""
    ignore: int = 255
    """Mask value of pixels to ignore, 0 to 255; not the number of a class."""


def open_splits(path: str, options: Options) -> dict[str, ImageDataset]:
    """Return the splits that exist; see the module for the layouts.

    Raises:
        UserError: If a folder, a mask or the class names are missing.
    """
    root, spec = folder_at("masks", path), f"masks:{path}"
    first = 0 if options.background == "none" else 1
    known = _classes(spec, root, options)
    classes = chosen_classes(spec, options.classes, known)
    table = mask_table(
        known,
        classes,
        options.ignore,
        first=first,
        hint="; if number 0 is a class, add background=none" if first else "",
    )
    files: dict[str, tuple[list[str], list[str]]] = {}
    for split, (image_folder, mask_folder) in _folders(spec, root, options).items():
        images = list(images_below(image_folder))
        if not images:
            raise UserError(f"{spec}: no pictures in {image_folder}")
        mask_of = {_stem(mask, mask_folder): mask for mask in images_below(mask_folder)}
        stems = [_stem(image, image_folder) for image in images]
        for image, stem in zip(images, stems, strict=True):
            if stem not in mask_of:
                raise UserError(f"{spec}: {image} has no mask: no picture {stem}.* in {mask_folder}")
        files[split] = images, [mask_of[stem] for stem in stems]
    numbers = set(range(1, first + len(known))) - {options.ignore}
    values = values_without_class(root, [mask for _, masks in files.values() for mask in masks], numbers)
    note = read_white(table, known, values)
    if values and note is None:
        raise UserError(
            f"{spec}: no mask shows a class: the masks hold {_listed(values)}, and the classes {_listed(known)} are "
            f"numbered from {first}; renumber the masks, or name the one class with classes= if it is 255"
        )
    splits: dict[str, ImageDataset] = {}
    for split, (images, masks) in files.items():
        splits[split] = FileDataset(
            root=root,
            images=images,
            classes=classes,
            masks=MaskFiles(masks, table),
            labels_from_masks=True,
        )
        splits[split].has_background = first == 1
        splits[split].notes = (note or _numbering(known, first),)
    return splits


def _numbering(known: Sequence[str], first: int) -> str:
    """Return a note on what the numbers in the masks stand for: a background that is none shows only here."""
    names = ["background", *known] if first else list(known)
    named = [f"{number} is {name}" for number, name in enumerate(names)]
    shown = named if len(named) <= MOST_NUMBERS else [*named[: MOST_NUMBERS - 1], "…", named[-1]]
    return f"In the masks {', '.join(shown)}."


def _listed(things: Sequence[object]) -> str:
    return ", ".join(map(str, things[:10])) + (", …" if len(things) > 10 else "")


def _classes(spec: str, root: Path, options: Options) -> tuple[str, ...]:
    """Return the class names in the order of their numbers in the masks, from 0 or 1."""
    file, with_background = root / "classes.txt", options.background != "none"
    if file.is_file():
        names = [line for line in text_lines(file, "a list of class names") if line]
        if with_background and names and names[0].lower() == "background":
            del names[0]
    elif options.classes is not None:
        names = [name.strip() for name in options.classes.split(",")]
        if with_background and options.ignore and names[0].lower() == "background":
            raise UserError(
                f"{spec}: number 0 in the masks is the background already; leave {names[0]} out of classes=, or make "
                "it class 0 with background=none"
            )
    else:
        raise UserError(
            f"{spec}: name the classes that the masks number from 1 (from 0 with background=none), one a line in "
            f"{file}, or with classes=a,b"
        )
    if not names or "" in names or len(set(names)) < len(names):
        raise UserError(f"{spec}: expected one class name or more, each once; given {', '.join(names)}")
    return tuple(names)


def _folders(spec: str, root: Path, options: Options) -> dict[str, tuple[Path, Path]]:
    """Return the folder of pictures and the folder of masks of each split."""
    found: dict[str, tuple[Path, Path]] = {}
    for split in SPLIT_NAMES:
        named: str | None = getattr(options, split)
        pairs = (
            pair for name in (SPLIT_NAMES[split] if named is None else (named,)) for pair in _pairs(root, name, options)
        )
        if (pair := next(pairs, None)) is not None:
            found[split] = pair
        elif named is not None:
            existing = [entry.name for folder in (root / options.images, root) for entry in _folders_in(folder)]
            raise UserError(f"{spec}: {split}={named}: no such folder of pictures; {did_you_mean(named, existing)}")
    if not found:
        found["train"] = root / options.images, root / options.masks
    if "train" not in found:
        raise UserError(f"{spec}: found {' and '.join(found)}, but no train; name its folder with train=")
    for pair in found.values():
        for folder in pair:
            if not folder.is_dir():
                raise UserError(
                    f"{spec}: no folder {folder}; name the folders of pictures and masks with images= and masks="
                )
    return found


def _pairs(root: Path, name: str, options: Options) -> Iterator[tuple[Path, Path]]:
    """Yield where pictures and masks of the split `name` lie, in each layout of which the folder of pictures exists."""
    inside, outside = root / options.images / name, root / name / options.images
    beside = root / name, root / f"{name}annot"
    if inside.is_dir():
        yield inside, root / options.masks / name
    if outside.is_dir():
        yield outside, root / name / options.masks
    if beside[0].is_dir() and beside[1].is_dir():
        yield beside


def _folders_in(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []


def _stem(path: str, folder: Path) -> str:
    return str(Path(path).relative_to(folder).with_suffix(""))

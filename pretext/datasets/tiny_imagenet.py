"""Tiny-ImageNet's own layout: CLASS/images/*.JPEG for train, and a list of classes for the pictures of val.

    train/CLASS/images/*.JPEG
    val/images/*.JPEG
    val/val_annotations.txt     name of a picture, tab, its class, and a box that is not used
    test/images/*.JPEG          without classes
    wnids.txt                   all classes

Source: Le and Yang 2015, "Tiny ImageNet Visual Recognition Challenge".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pretext.datasets.base import Fault
from pretext.datasets.files import some, text_lines
from pretext.system.errors import UserError

INSIDE = "images"
"""The folder of pictures in each class folder, and in val and test."""


def list_of_classes(folder: Path, images: Sequence[str]) -> Path | None:
    """Return the file that lists the classes of a split, `val/val_annotations.txt`; None if there is none."""
    file = folder / f"{folder.name}_annotations.txt"
    return file if file.is_file() and is_flat(folder, images) else None


def is_flat(folder: Path, images: Sequence[str]) -> bool:
    """Return whether all pictures of a split lie in its folder `images`."""
    return all(Path(image).parent == folder / INSIDE for image in images)


def is_tiny_imagenet(root: Path, files: Mapping[str, Sequence[str]], folders: Mapping[str, Path]) -> bool:
    """Return whether the folder has this layout."""
    listed = any(list_of_classes(folders[split], images) for split, images in files.items())
    nested = all(
        len(parts := Path(image).relative_to(folders["train"]).parts) == 3 and parts[1] == INSIDE
        for image in files["train"]
    )
    return nested and (listed or (root / "wnids.txt").is_file())


def listed_classes(file: Path, images: Sequence[str]) -> tuple[list[str], list[Fault]]:
    """Return the class of each picture, and a note on listed pictures that do not exist.

    Raises:
        UserError: If the list is malformed or lacks a picture.
    """
    class_of: dict[str, str] = {}
    for number, line in enumerate(text_lines(file, "a list of pictures and classes"), 1):
        if not line:
            continue
        name, *rest = (word.strip() for word in (line.split("\t") if "\t" in line else line.split()))
        if not name or not rest or not rest[0]:
            raise UserError(f"{file}, line {number}: expected the name of a picture, a tab and its class")
        class_of[name] = rest[0]
    names = [Path(image).name for image in images]
    if missing := [name for name in names if name not in class_of]:
        raise UserError(f"{file}: it lists no class for {some(missing)}; exclude=NAME leaves a picture out")
    gone = sorted(class_of.keys() - set(names))
    about = Fault(f"{file.name} lists {len(gone):,} pictures that are not there: {some(gone)}.")
    return [class_of[name] for name in names], [about] if gone else []

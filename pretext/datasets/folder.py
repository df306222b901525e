"""`folder:DIR`: a folder of pictures, at any depth, with or without splits and classes.

Splits: the sub-folders `train`, `val` and `test` are the splits if `train` exists and either another of them
exists too or `train` contains all pictures; other folders are then ignored. Otherwise the whole folder is train.
The keys `train=`, `val=` and `test=` give other names.

Classes: the sub-folders are the classes if there are at least two and every training picture lies exactly one
level down. Otherwise the pictures are unlabelled.

Pictures are recognised by their suffix, in upper or lower case. Other files and hidden ones are ignored.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from pretext.datasets.base import ImageDataset
from pretext.datasets.files import FileDataset, chosen_classes, folder_at, images_below
from pretext.system.errors import UserError, did_you_mean

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Options:
    """Options of `folder:DIR?…`."""

    train: str | None = None
    """Sub-folder of the training pictures; None looks for `train`."""
    val: str | None = None
    """Sub-folder of the validation pictures; None looks for `val`."""
    test: str | None = None
    """Sub-folder of the test pictures; None looks for `test`."""
    classes: str | None = None
    """Class folders to use, separated by commas, in this order; None uses all of train's, sorted by name."""


def open_splits(path: str, options: Options) -> dict[str, ImageDataset]:
    """Return the splits of the folder; see the module for how they are recognised.

    Raises:
        UserError: If a folder is missing or empty, or a split has a class that train lacks.
    """
    root, spec = folder_at("folder", path), f"folder:{path}"
    folders = split_folders(spec, root, {name: getattr(options, name) for name in SPLITS})
    files = {name: list(images_below(folder)) for name, folder in folders.items()}
    for name, found in files.items():
        if not found:
            where = root if folders[name] == root else folders[name]
            raise UserError(f"{spec}: no pictures in {where}; {_formats()}")
    labelled = {name: _classes(folders[name], found) for name, found in files.items()}
    known = labelled["train"] if len(labelled["train"]) > 1 else ()
    if options.classes is not None and not known:
        raise UserError(f"{spec}: classes={options.classes}, but {folders['train']} has no class folders")
    classes = chosen_classes(spec, options.classes, known)

    splits: dict[str, ImageDataset] = {}
    left_out = []
    for name, found in files.items():
        if not classes:
            splits[name] = FileDataset(root=root, images=found)
        elif unknown := set(labelled[name]) - set(known):
            first = min(unknown)
            raise UserError(f"{spec}: {name} has a class {first!r} that train lacks; {did_you_mean(first, known)}")
        elif labelled[name] or name == "train":
            splits[name] = _labelled(root, folders[name], found, classes)
        else:
            left_out.append(f"The folder {name} has no class folders, unlike train: it is not used.")
    splits["train"].notes = tuple(left_out)
    return splits


def split_folders(spec: str, root: Path, named: dict[str, str | None]) -> dict[str, Path]:
    """Return the folder of each split that exists; without splits, `train` is the root.

    Args:
        spec: The start of error messages.
        root: The data set's folder.
        named: The user's names for the folders of train, val and test; None for the default names.

    Raises:
        UserError: If a folder named by the user does not exist.
    """
    found: dict[str, Path] = {}
    for split, name in named.items():
        folder = root / (split if name is None else name)
        if folder.is_dir():
            found[split] = folder
        elif name is not None:
            existing = [entry.name for entry in root.iterdir() if entry.is_dir()]
            raise UserError(f"{spec}: {split}={name}: no such folder; {did_you_mean(name, existing)}")
    if any(name is not None for name in named.values()):
        if "train" not in found:
            raise UserError(f"{spec}: no folder train; name the folder of the training pictures with train=")
        return found
    if "train" in found and (len(found) > 1 or _is_all(root, found["train"])):
        return found
    return {"train": root}


def _is_all(root: Path, folder: Path) -> bool:
    """Return whether all pictures below `root` are below `folder`."""
    return all(Path(image).is_relative_to(folder) for image in images_below(root))


def _classes(folder: Path, images: list[str]) -> tuple[str, ...]:
    """Return the sub-folders that contain the images, or nothing if any image is not exactly one level down."""
    parents = {os.path.relpath(Path(image).parent, folder) for image in images}
    one_level = all(parent != os.curdir and os.sep not in parent for parent in parents)
    return tuple(sorted(parents)) if one_level else ()


def _labelled(root: Path, folder: Path, images: list[str], classes: tuple[str, ...]) -> FileDataset:
    index = {name: position for position, name in enumerate(classes)}
    kept, label = [], []
    for image in images:
        name = Path(image).parent.name
        if name in index:
            kept.append(image)
            label.append(index[name])
    return FileDataset(root=root, images=kept, classes=classes, label=torch.tensor(label, dtype=torch.int64))


def _formats() -> str:
    return "pictures are recognised by their suffix (.jpg, .png, .webp, .tif, …)"

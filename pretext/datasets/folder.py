"""`folder:DIR`: a folder of pictures, at any depth, with or without splits and classes.

Splits: where DIR holds a folder `train` beside a `val` or a `test`, or nothing with pictures but `train`,
those are the splits, and other folders are left alone. The keys `train=`, `val=` and `test=` name them
otherwise.

Classes: where every training picture lies in a sub-folder exactly one level down, and there are at least two,
the sub-folders are the classes. Otherwise the pictures are unlabelled.

Pictures are known by their suffix, in any case; other files and whatever is hidden are no part of the data
set.
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
    """What the layout leaves open."""

    train: str | None = None
    """Sub-folder of the training pictures; `train` where that is one."""
    val: str | None = None
    """Sub-folder of the validation pictures; `val` where that is one."""
    test: str | None = None
    """Sub-folder of the test pictures; `test` where that is one."""
    classes: str | None = None
    """Class folders to use, joined by commas, in this order; all of train's by the alphabet where None."""


def open_splits(path: str, options: Options) -> dict[str, ImageDataset]:
    """Return the splits that the folder has; see the module's words on how they are recognised."""
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
        elif strangers := set(labelled[name]) - set(known):
            stranger = min(strangers)
            raise UserError(
                f"{spec}: {name} has a class {stranger!r} that train lacks; {did_you_mean(stranger, known)}"
            )
        elif labelled[name] or name == "train":
            splits[name] = _labelled(root, folders[name], found, classes)
        else:
            left_out.append(f"The folder {name} has no class folders, as train has: it is not used.")
    splits["train"].notes = tuple(left_out)
    return splits


def split_folders(spec: str, root: Path, named: dict[str, str | None]) -> dict[str, Path]:
    """Return the folder of each split that there is; `train` is the whole root where there are no splits.

    Args:
        spec: For messages.
        root: The data set's folder.
        named: What the user called train, val and test; None for the usual names.

    Raises:
        UserError: If a folder that was named is not there.
    """
    found: dict[str, Path] = {}
    for split, name in named.items():
        folder = root / (split if name is None else name)
        if folder.is_dir():
            found[split] = folder
        elif name is not None:
            beside = [entry.name for entry in root.iterdir() if entry.is_dir()]
            raise UserError(f"{spec}: {split}={name}: no such folder; {did_you_mean(name, beside)}")
    if any(name is not None for name in named.values()):
        if "train" not in found:
            raise UserError(f"{spec}: no folder train in it; name the training pictures' folder with train=")
        return found
    if "train" in found and (len(found) > 1 or _is_all(root, found["train"])):
        return found
    return {"train": root}


def _is_all(root: Path, folder: Path) -> bool:
    """Whether all pictures of `root` are in `folder`."""
    return all(Path(image).is_relative_to(folder) for image in images_below(root))


def _classes(folder: Path, images: list[str]) -> tuple[str, ...]:
    """Return the sub-folders that hold the images, or nothing where some lie higher or deeper."""
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
    return "pictures are known by their suffix (.jpg, .png, .webp, .tif, …)"

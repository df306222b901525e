"""`folder:DIR`: a folder of pictures, at any depth, with or without splits and classes.

Splits: the sub-folders `train` (or `training`), `val` (or `valid`, `validation`) and `test` (or `testing`), also with
capitals, are the splits if the first exists and either another of them exists too or it contains all pictures; other
folders are then ignored. Otherwise the whole folder is train. The keys `train=`, `val=` and `test=` give other names.

Classes: the sub-folders are the classes if there are at least two and every training picture lies exactly one
level down. Otherwise the pictures are unlabelled, unless the key `label` says which folder names the class. A note
says so where class folders seem to be there. Tiny-ImageNet's own layout, with `val/val_annotations.txt`, is read
without a key. Annotations of other kinds beside the pictures are not read, and a note says so.

Pictures are recognised by their suffix, in upper or lower case. Other files and hidden ones are ignored, and so are
the folders below it that commands have written (those that hold a run.json, plan.json, judged.json, encoder or
checkpoint). The key `exclude` leaves out more.

Several folders are one data set by `folder:DIR?also=DIR2,DIR3`. A folder whose name has a comma is taken as it stands.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import torch

from pretext.datasets.base import Fault, ImageDataset
from pretext.datasets.files import FileDataset, chosen_classes, folder_at, images_below, some
from pretext.datasets.joined_folders import joined_folders
from pretext.datasets.layouts import SPLIT_NAMES, store_at, unread_annotations
from pretext.datasets.tiny_imagenet import is_flat, is_tiny_imagenet, list_of_classes, listed_classes
from pretext.system.errors import UserError, did_you_mean
from pretext.system.specs import path_of

SPLIT_WORDS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing"})
"""Names, in lower case, of folders that are splits rather than classes."""


@dataclass(frozen=True)
class Options:
    """Options of `folder:DIR?…`."""

    train: str | None = None
    """Sub-folder of the training pictures; `train` or `training` if omitted, also with capitals."""
    val: str | None = None
    """Sub-folder of the validation pictures; `val`, `valid` or `validation` if omitted, also with capitals."""
    test: str | None = None
    """Sub-folder of the test pictures; `test` or `testing` if omitted, also with capitals."""
    classes: str | None = None
    """Class folders to use, separated by commas, in this order; if omitted, all of train's, sorted by name."""
    label: Literal["top", "parent"] | None = None
    """Folder that names a picture's class: top, the one right below its split, or parent, the one that contains the
    picture; if omitted, classes are read only where these are the same folder for all training pictures."""
    also: str | None = None
    """Further folders of the same layout, separated by commas; their pictures are added, split by split, and classes of
    one name are one class. Paths start where DIR does, from the current folder."""
    exclude: str | None = None
    """Files and folders to leave out, separated by commas: names, paths below DIR, or patterns with * and ?."""


def open_splits(path: str, options: Options) -> dict[str, ImageDataset]:
    """Return the splits of the folder; see the module for how they are recognised.

    Raises:
        UserError: If a folder is missing or empty, or a split has a class that train lacks.
    """
    roots = [folder_at("folder", path), *_further(options.also)]
    if len({os.path.realpath(root) for root in roots}) < len(roots):
        raise UserError(f"folder:{path}: also={options.also} names a folder twice")
    left_out: dict[str, list[str]] = {}
    opened = [_open_one(root, options, left_out) for root in roots]
    for pattern, gone in left_out.items():
        if not gone:
            raise UserError(f"folder:{path}: exclude={pattern}: no picture is there or below; give a name or a pattern")
    return opened[0] if len(opened) == 1 else joined_folders(roots, opened)


def _further(also: str | None) -> list[Path]:
    """Return the folders that the key `also` names."""
    if also is None:
        return []
    names = [also] if path_of(also).is_dir() else [name.strip() for name in also.split(",")]
    return [folder_at("folder", name) for name in names]


def _open_one(root: Path, options: Options, left_out: dict[str, list[str]]) -> dict[str, ImageDataset]:
    """Return the splits of one folder; `left_out` receives the pictures that each pattern of `exclude` leaves out."""
    spec = f"folder:{root}"
    folders = split_folders(spec, root, {name: getattr(options, name) for name in SPLIT_NAMES})
    files, notes = _files(spec, root, folders, options.exclude, left_out)
    names = _names(root, folders, files, options.label, notes)
    known = tuple(sorted(set(names["train"])))
    if len(known) < 2:
        known = ()
    if options.classes is not None and not known:
        raise UserError(f"{spec}: classes={options.classes}, but {folders['train']} has no class folders")
    if options.label is not None and not known:
        raise UserError(f"{spec}: label={options.label}, but {folders['train']} has no two class folders at that level")
    classes = chosen_classes(spec, options.classes, known)

    splits: dict[str, ImageDataset] = {}
    for name, found in files.items():
        if not classes:
            splits[name] = FileDataset(root=root, images=found)
        elif unknown := set(names[name]) - set(known):
            first = min(unknown)
            leave = f"; exclude={_relative(root, [str(folders[name])])[0]} leaves this split out"
            raise UserError(
                f"{spec}: {name} has a class {first!r} that train lacks; {did_you_mean(first, known)}{leave}"
            )
        elif names[name]:
            splits[name] = _labelled(root, found, names[name], classes)
        else:
            why = _why_no_classes(root, folders[name], found) or f"{some(_relative(root, found))} lie in none"
            notes.append(Fault(f"The folder {name} has no class folders, unlike train: it is not used ({why})."))
    unread = unread_annotations(root, files["train"])
    if not classes and (why := unread or _why_no_classes(root, folders["train"], files["train"])):
        splits["train"].lacking = {"label": why}
        notes.append(Fault(f"The pictures have no classes: {why}."))
    elif unread:
        notes.append(Fault(f"The pictures have annotations that are not used: {unread}."))
    if unread:
        splits["train"].lacking = {**splits["train"].lacking, **dict.fromkeys(("labels", "boxes", "masks"), unread)}
    if classes:
        notes += _doubts(folders["train"], classes)
    splits["train"].notes = tuple(notes)
    return splits


def _names(
    root: Path, folders: dict[str, Path], files: dict[str, list[str]], label: str | None, notes: list[str]
) -> dict[str, list[str]]:
    """Return the class of each picture of each split; nothing for a split without class folders."""
    tiny = is_tiny_imagenet(root, files, folders)
    names = {}
    for split, images in files.items():
        if tiny and (file := list_of_classes(folders[split], images)):
            names[split], about = listed_classes(file, images)
            notes += about
        elif tiny and is_flat(folders[split], images):
            names[split] = []
        else:
            names[split] = _classes(folders[split], images, label or ("top" if tiny else None))
    return names


def _doubts(folder: Path, classes: Sequence[str]) -> list[str]:
    """Return notes on class folders that may be splits, or hold no pictures."""
    notes: list[str] = []
    if splits := [name for name in classes if name.lower() in SPLIT_WORDS]:
        about = f"The folder {some(splits)} is read as a class; if it is a split, name it with train=, val= or test=."
        notes.append(Fault(about))
    empty = [entry.name for entry in sorted(folder.iterdir()) if entry.is_dir() and not any(entry.iterdir())]
    if empty:
        notes.append(Fault(f"The folder {some(empty)} is empty: it is no class."))
    return notes


def _files(
    spec: str, root: Path, folders: dict[str, Path], exclude: str | None, left_out: dict[str, list[str]]
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the pictures of each split, and notes on what was left out.

    Raises:
        UserError: If a split has no pictures.
    """
    outputs: list[str] = []
    files = {name: list(images_below(folder, outputs)) for name, folder in folders.items()}
    notes = []
    if outputs:
        notes.append(f"Outputs of commands are no data and were left out: {some(_relative(root, outputs))}.")
    if exclude is not None:
        patterns = [pattern.strip().strip("/") for pattern in exclude.split(",")]
        matched: dict[str, list[str]] = {pattern: [] for pattern in patterns}
        for name, found in files.items():
            kept: list[str] = []
            for image, path in zip(found, _relative(root, found), strict=True):
                pattern = next((pattern for pattern in patterns if _matches(path, pattern)), None)
                (kept if pattern is None else matched[pattern]).append(image)
            files[name] = kept
        for pattern, gone in matched.items():
            left_out.setdefault(pattern, []).extend(gone)
            if gone:
                notes.append(f"exclude={pattern} leaves out {len(gone):,} pictures: {some(_relative(root, gone))}.")
    for name, found in files.items():
        if not found and (name == "train" or exclude is None):
            left = f" besides what was left out ({' '.join(notes)})" if notes else ""
            store = store_at(str(root))
            hint = f"{store}:{root} reads what lies there" if store else _formats()
            raise UserError(f"{spec}: no pictures in {folders[name]}{left}; {hint}")
    return {name: found for name, found in files.items() if found}, notes


def _matches(path: str, pattern: str) -> bool:
    """Return whether a picture's relative path, a folder of it, or one of their names fits the pattern."""
    parts = path.split("/")
    whole = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
    return any(fnmatchcase(part, pattern) for part in (*parts, *whole))


def _relative(root: Path, paths: Sequence[str]) -> list[str]:
    return [Path(os.path.relpath(path, root)).as_posix() for path in paths]


def _why_no_classes(root: Path, folder: Path, images: list[str]) -> str:
    """Return why the sub-folders of `folder` are not its classes, and what to do; "" if nothing looks like classes."""
    inside = [Path(image).relative_to(folder).parts[:-1] for image in images]
    top = sorted({parts[0] for parts in inside if parts})
    if len(top) < 2:
        return _below_one_folder(root, folder, inside)
    beside = [image for image, parts in zip(images, inside, strict=True) if not parts]
    if beside:
        names = _relative(root, beside)
        return f"pictures lie beside the folders {some(top)} ({some(names)}); exclude={names[0]} leaves one out"
    deep = next(image for image, parts in zip(images, inside, strict=True) if len(parts) > 1)
    return (
        f"{_relative(root, [deep])[0]} lies deeper than the folders {some(top)}; "
        "label=top takes these as the classes, label=parent the folders that contain the pictures"
    )


def _below_one_folder(root: Path, folder: Path, inside: Sequence[tuple[str, ...]]) -> str:
    """Return what reads the class folders or splits inside the only sub-folder; "" if there are none."""
    levels = zip(*set(inside), strict=False)
    shared = [level[0] for level in itertools.takewhile(lambda level: len(set(level)) == 1, levels)]
    below = sorted({parts[len(shared)] for parts in inside if len(parts) > len(shared)})
    if not shared or len(below) < 2:
        return ""
    only = folder.joinpath(*shared)
    how = f"folder:{only} reads them" if folder == root else "label=parent takes the folders that contain the pictures"
    return f"all pictures lie in {_relative(root, [str(only)])[0]}, which holds the folders {some(below)}; {how}"


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
    with os.scandir(root) as entries:  # it knows folders without asking for each file
        existing = sorted(entry.name for entry in entries if entry.is_dir())
    for split, name in named.items():
        folder = _usual_name(existing, SPLIT_NAMES[split]) if name is None else name
        if folder is not None and (root / folder).is_dir():
            found[split] = root / folder
        elif name is not None:
            raise UserError(f"{spec}: {split}={name}: no such folder; {did_you_mean(name, existing)}")
    if any(name is not None for name in named.values()):
        if "train" not in found:
            raise UserError(f"{spec}: no folder train; name the folder of the training pictures with train=")
        return found
    if "train" in found and (len(found) > 1 or _is_all(root, found["train"])):
        return found
    return {"train": root}


def _usual_name(existing: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the folder that has the first of these names, else the first with capitals: `Train`."""
    fitting = [folder for name in names for folder in existing if folder.lower() == name]
    return next((folder for folder in fitting if folder in names), next(iter(fitting), None))


def _is_all(root: Path, folder: Path) -> bool:
    """Return whether all pictures below `root` are below `folder`."""
    return all(Path(image).is_relative_to(folder) for image in images_below(root))


def _classes(folder: Path, images: list[str], label: str | None) -> list[str]:
    """Return the class folder of each image; nothing if any is not exactly one level down, or has no folder."""
    parents = [os.path.relpath(os.path.dirname(image), folder) for image in images]  # noqa: PTH120 - a million of them
    if os.curdir in parents or (label is None and any(os.sep in parent for parent in parents)):
        return []
    return [Path(parent).parts[0 if label == "top" else -1] for parent in parents]


def _labelled(root: Path, images: list[str], names: list[str], classes: tuple[str, ...]) -> FileDataset:
    index = {name: position for position, name in enumerate(classes)}
    kept = [(image, index[name]) for image, name in zip(images, names, strict=True) if name in index]
    return FileDataset(
        root=root,
        images=[image for image, _ in kept],
        classes=classes,
        label=torch.tensor([number for _, number in kept], dtype=torch.int64),
    )


def _formats() -> str:
    return "pictures are recognised by their suffix (.jpg, .png, .webp, .tif, …)"

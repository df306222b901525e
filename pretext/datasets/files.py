"""Pictures in files: the data set class behind every kind that reads a folder.

A kind reads and checks its layout once, when it is opened, into lists and arrays. An item only decodes its files.
"""

from __future__ import annotations

import functools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors

from pretext.datasets.base import IGNORE, BadImage, ImageDataset, Target
from pretext.datasets.decoding import check_regular, decode_draft, decode_mask, image_suffixes, uses_few_bits
from pretext.datasets.fingerprints import digest, digest_files
from pretext.datasets.objects import Objects
from pretext.datasets.stores import Store, StoredFile
from pretext.system.errors import UserError, did_you_mean
from pretext.system.specs import path_of

OUTPUTS = frozenset(
    {"run.json", "log.jsonl", "encoder.safetensors", "checkpoint.safetensors", "plan.json", "judged.json"}
)
"""Names of files that mark a folder as the output of a command."""

FEW = 8
"""Number of pictures that are looked at for unused bits."""


class Masks(ABC):
    """One index mask for each picture of a `FileDataset`."""

    files: Sequence[str] = ()
    """Files that the masks are read from; their bytes enter the fingerprint."""

    @abstractmethod
    def read(self, index: int, height: int, width: int) -> UInt8[NDArray[np.uint8], "H W"]:
        """Return the mask of picture `index`: 0 background, k + 1 for class k, 255 ignored.

        Raises:
            BadImage: If the mask cannot be read or differs from the picture in size.
        """

    @abstractmethod
    def digest(self) -> str:
        """Return a hash of everything that determines the masks, except the content of `files`."""


@final
class MaskFiles(Masks):
    """Masks stored as palette or greyscale pictures."""

    def __init__(self, files: Sequence[str], tables: Int[NDArray[np.int16], "T 256"], rows: Sequence[int] = ()):
        """Store the mask files and the tables that translate their values.

        Args:
            files: One path for each picture; "" if it has no mask, and then its mask is 255 everywhere.
            tables: The target's value for each stored value; -1 if a stored value is not allowed.
            rows: The row of `tables` for each picture; empty if all use the first row.
        """
        self.files = [path for path in files if path]
        self.tables, self.rows, self._file_of = tables, rows, files

    def read(self, index: int, height: int, width: int) -> UInt8[NDArray[np.uint8], "H W"]:
        """Return the mask; see `Masks.read`."""
        path = self._file_of[index]
        if not path:
            return np.full((height, width), IGNORE, dtype=np.uint8)
        stored = decode_mask(path)
        if stored.shape != (height, width):
            raise BadImage(f"{path}: the mask is {stored.shape[1]}×{stored.shape[0]}, its picture {width}×{height}")
        table = self.tables[self.rows[index] if self.rows else 0]
        unknown = np.flatnonzero((np.bincount(stored.ravel(), minlength=256) > 0) & (table < 0))
        if len(unknown):
            raise BadImage(f"{path}: index {unknown[0]} in the mask is no class; name them (classes=) or it (ignore=)")
        return table.astype(np.uint8)[stored]

    def digest(self) -> str:
        """Return a hash of the tables and of which pictures have a mask; see `Masks.digest`."""
        has_mask = bytes(bool(path) for path in self._file_of)
        return digest(self.tables.tobytes(), ",".join(map(str, self.rows)), has_mask)


@final
class FileDataset(ImageDataset):
    """Pictures in files of their own or in larger ones. Annotations are in memory; masks come with each item."""

    thread_safe = True

    def __init__(
        self,
        *,
        root: Path,
        images: Sequence[str],
        classes: tuple[str, ...] = (),
        label: Int[Tensor, "N"] | None = None,
        objects: Objects | None = None,
        masks: Masks | None = None,
        labels_from_masks: bool = False,
        clip_of: Int[Tensor, "N"] | None = None,
        sizes: Sequence[tuple[int, int]] = (),
        store: Store | None = None,
    ) -> None:
        """Store the paths and annotations; all are in the order of `images`.

        Args:
            root: The folder of the data set; the fingerprint uses paths relative to it.
            images: The path of each picture; its name if it lies in a larger file.
            classes: Class names.
            label: The single class of each picture.
            objects: The objects of each picture.
            masks: The mask of each picture.
            labels_from_masks: Use the classes in a picture's mask as its `labels`.
            clip_of: The clip number of each picture.
            sizes: Height and width that the annotations were made for; a picture of another size raises
                `BadImage`. Empty if unknown.
            store: Where the pictures lie in larger files; None if each has a file of its own.
        """
        self.root, self.images, self.classes, self.sizes, self.store = root, images, classes, sizes, store
        self.label, self.objects, self.clip_of = label, objects, clip_of
        self.masks, self.labels_from_masks = masks, labels_from_masks
        has = {
            "label": label is not None,
            "labels": objects is not None or labels_from_masks,
            "boxes": objects is not None and objects.boxes is not None,
            "masks": masks is not None,
            "clip": clip_of is not None,
        }
        self.annotations = frozenset(name for name, present in has.items() if present)
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Target]:
        """Return picture and target; see `ImageDataset`."""
        return self.read(index, None)

    def file(self, index: int) -> str | StoredFile:
        """Return what to open to read a picture: its path, or its bytes if it lies in a larger file."""
        return self.images[index] if self.store is None else self.store.open(index)

    def read(self, index: int, at_least: int | None) -> tuple[UInt8[Tensor, "3 H W"], Target]:
        """Return an item; see `ImageDataset.read` and `decode_draft`.

        Raises:
            BadImage: If the picture or its mask cannot be decoded, or has another size than its annotations.
        """
        image, (height, width) = decode_draft(self.file(index), at_least)
        if self.sizes and self.sizes[index] != (height, width):
            made_for = "{1}×{0}".format(*self.sizes[index])
            raise BadImage(f"{self.images[index]}: is {width}×{height}, its annotations are for {made_for}")
        target = self.known_target(index, height, width)
        if self.masks is not None:
            mask = self.masks.read(index, height, width)
            target["masks"] = tv_tensors.Mask(torch.from_numpy(mask))
            if self.labels_from_masks:
                present = np.unique(mask).astype(np.int64)
                target["labels"] = torch.from_numpy(present[(present > 0) & (present != IGNORE)] - 1)
        return image, target

    @functools.cached_property
    def few_bits(self) -> str | None:
        """The first of a few pictures that uses 12 of its 16 bits or fewer; None if there is none."""
        some = range(len(self))[:: max(1, len(self) // FEW)][:FEW]
        return next((self.images[index] for index in some if uses_few_bits(self.file(index))), None)

    @property
    def fingerprint(self) -> str:
        """A hash of the bytes of all files and of the annotations."""
        if self._fingerprint is None:
            names = [os.path.relpath(path, self.root) for path in self.images]
            parts = [digest(*names), digest(*self.classes)]
            if self.store is not None:
                parts.append(self.store.digest())
            else:
                parts.append(digest_files(self.root, [*self.images, *(self.masks.files if self.masks else ())]))
            parts.append(digest(self.label.numpy().tobytes()) if self.label is not None else "")
            parts.append(self.objects.digest() if self.objects else "")
            parts.append(self.masks.digest() if self.masks else "")
            if self.clip_of is not None:
                parts.append(digest(self.clip_of.numpy().tobytes()))
            if self.few_bits is not None:  # else packs from before these were scaled would stay in use
                parts.append("few bits")
            self._fingerprint = digest(*parts)
        return self._fingerprint


def folder_at(kind: str, path: str) -> Path:
    """Return the folder at the path of a spec.

    Raises:
        UserError: If the path is empty or not a folder.
    """
    if not path:
        raise UserError(f"{kind}: the path is missing; write {kind}:DIR")
    folder = path_of(path)
    if not folder.is_dir():
        raise UserError(f"{kind}:{path}: {'is not a folder' if folder.exists() else 'no such folder'}")
    return folder


def text_lines(file: Path, what: str) -> list[str]:
    """Return the lines of a text file, stripped; a byte order mark is no part of the first.

    Args:
        file: The path of the file.
        what: What the file should be, for the error message.

    Raises:
        UserError: If the file cannot be read or is not UTF-8.
    """
    try:
        check_regular(file)
        return [line.strip() for line in file.read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not {what}: {error}") from None


def images_below(folder: Path, outputs: list[str] | None = None) -> Iterator[str]:
    """Yield the sorted paths of all pictures below a folder, by suffix.

    Hidden files and folders are skipped, and so are the folders below it that hold one of `OUTPUTS`: sheets of
    pictures that a command has drawn are no data.

    Args:
        folder: The folder.
        outputs: A list that receives the path of each output folder that is skipped.
    """
    seen = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(where)) in seen:  # a symbolic link to a parent folder
            folders.clear()
            continue
        seen.add(real)
        if not OUTPUTS.isdisjoint(files):
            is_whole = where != str(folder)  # else only the samples in the data's own folder are output
            if outputs is not None:
                outputs += [where] if is_whole else [os.path.join(where, "samples")] * ("samples" in folders)  # noqa: PTH118
            folders[:] = [] if is_whole else [name for name in folders if name != "samples"]
            if is_whole:
                continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            # strings, because a million Path objects are slow
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in image_suffixes():  # noqa: PTH122
                yield os.path.join(where, name)  # noqa: PTH118


def some(names: Sequence[str], at_most: int = 3) -> str:
    """Return the first names of many, joined by commas, and how many more there are."""
    rest = f" and {len(names) - at_most:,} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + rest


def chosen_classes(kind: str, text: str | None, known: Sequence[str]) -> tuple[str, ...]:
    """Return the classes listed in the option `classes=a,b`, in that order, or all known ones if it is None.

    Args:
        kind: The start of error messages.
        text: The option's value.
        known: All class names.

    Raises:
        UserError: If a name is unknown or listed twice.
    """
    if text is None:
        return tuple(known)
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in known:
            raise UserError(f"{kind}: no class {name!r}; {did_you_mean(name, known)}")
    if len(set(names)) < len(names):
        raise UserError(f"{kind}: classes={text} lists a class twice")
    return names

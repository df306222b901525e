"""Pictures that lie in files: the one data set class behind every kind that has a folder.

A kind reads its layout into lists and arrays once, when it is opened, and finds fault then; what is left to
do per item is to decode.
"""

from __future__ import annotations

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
from pretext.datasets.decoding import decode_draft, decode_mask, image_suffixes
from pretext.datasets.fingerprints import digest, digest_files
from pretext.datasets.objects import Objects
from pretext.system.errors import UserError, did_you_mean


class Masks(ABC):
    """One index mask for each picture of a `FileDataset`."""

    files: Sequence[str] = ()
    """Files whose bytes the masks depend on."""

    @abstractmethod
    def read(self, index: int, height: int, width: int) -> UInt8[NDArray[np.uint8], "H W"]:
        """Return picture `index`'s mask in the numbering of a target.

        Raises:
            BadImage: If it cannot be made or does not fit the picture.
        """

    @abstractmethod
    def digest(self) -> str:
        """Return a hash of what decides the masks besides the content of `files`."""


@final
class MaskFiles(Masks):
    """Masks that lie in palette or greyscale pictures."""

    def __init__(self, files: Sequence[str], tables: Int[NDArray[np.int16], "T 256"], rows: Sequence[int] = ()):
        """Keep the files and how to read them.

        Args:
            files: One a picture; empty where a picture has none, which is then to be ignored throughout.
            tables: From a stored index to the target's numbering; -1 where an index has no meaning.
            rows: Each picture's row in `tables`; empty where all use the first.
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
        strange = np.flatnonzero((np.bincount(stored.ravel(), minlength=256) > 0) & (table < 0))
        if len(strange):
            raise BadImage(f"{path}: index {strange[0]} in the mask is no class; name them (classes=) or it (ignore=)")
        return table.astype(np.uint8)[stored]

    def digest(self) -> str:
        """Return a hash of the tables and of which pictures have a mask; see `Masks.digest`."""
        there = bytes(bool(path) for path in self._file_of)
        return digest(self.tables.tobytes(), ",".join(map(str, self.rows)), there)


def mask_table(known: Sequence[str], chosen: Sequence[str], ignore: int) -> Int[NDArray[np.int16], "1 256"]:
    """Return the table for masks that number their classes from 1, with 0 for background.

    Args:
        known: The classes in the order of the masks' numbers.
        chosen: Those of them that a target is to hold, in its order; the others become background.
        ignore: The number in the masks that means neither; it may take the place of any other.

    Raises:
        UserError: If there are too many classes, or `ignore` fits no mask.
    """
    if len(known) >= IGNORE - 1:
        raise UserError(f"{len(known)} classes do not fit a mask of 8 bits; at most {IGNORE - 2} do")
    if not 0 <= ignore <= 255:
        raise UserError(f"ignore={ignore}: a mask's numbers run from 0 to 255")
    table = np.full(256, -1, dtype=np.int16)
    table[0] = 0
    for number, name in enumerate(known, 1):
        table[number] = chosen.index(name) + 1 if name in chosen else 0
    table[ignore] = IGNORE
    return table[None]


@final
class FileDataset(ImageDataset):
    """Pictures in files, with their annotations in memory (masks: in files, or drawn when asked for)."""

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
    ) -> None:
        """Keep the lists; all of them are in the order of `images`.

        Args:
            root: The folder that names in the fingerprint are relative to.
            images: Paths.
            classes: Class names.
            label: Each picture's one class.
            objects: Each picture's objects.
            masks: Each picture's mask.
            labels_from_masks: The classes in a picture's mask are its `labels`.
            clip_of: The clip that each picture is a frame of.
            sizes: Height and width that the annotations were made for; a picture of another size is a bad
                one.
        """
        self.root, self.images, self.classes, self.sizes = root, images, classes, sizes
        self.label, self.objects, self.masks, self.labels_from_masks = (
            label,
            objects,
            masks,
            labels_from_masks,
        )
        self.clip_of = clip_of
        has = {
            "label": label is not None,
            "labels": objects is not None or labels_from_masks,
            "boxes": objects is not None and objects.boxes is not None,
            "masks": masks is not None,
            "clip": clip_of is not None,
        }
        self.annotations = frozenset(name for name, there in has.items() if there)
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Target]:
        """Return picture and target; see `ImageDataset`."""
        return self.read(index, None)

    def read(self, index: int, at_least: int | None) -> tuple[UInt8[Tensor, "3 H W"], Target]:
        """Return picture and target as `[index]` does, the picture as `decode_draft` does.

        Boxes and mask are always in pixels of the full picture.
        """
        image, (height, width) = decode_draft(self.images[index], at_least)
        if self.sizes and self.sizes[index] != (height, width):
            made_for = "{1}×{0}".format(*self.sizes[index])
            raise BadImage(f"{self.images[index]}: is {width}×{height}, its annotations are for {made_for}")
        target: Target = {}
        if self.label is not None:
            target["label"] = self.label[index].clone()
        if self.clip_of is not None:
            target["clip"] = self.clip_of[index].clone()
        if self.objects is not None:
            target |= self.objects.target(index, height, width)
        if self.masks is not None:
            mask = self.masks.read(index, height, width)
            target["masks"] = tv_tensors.Mask(torch.from_numpy(mask))
            if self.labels_from_masks:
                present = np.unique(mask).astype(np.int64)
                target["labels"] = torch.from_numpy(present[(present > 0) & (present != IGNORE)] - 1)
        return image, target

    @property
    def fingerprint(self) -> str:
        """A hash of every file's bytes, and of the annotations."""
        if self._fingerprint is None:
            names = [os.path.relpath(path, self.root) for path in self.images]
            parts = [digest(*names), digest(*self.classes)]
            parts.append(digest_files(self.root, [*self.images, *(self.masks.files if self.masks else ())]))
            parts.append(digest(self.label.numpy().tobytes()) if self.label is not None else "")
            parts.append(self.objects.digest() if self.objects else "")
            parts.append(self.masks.digest() if self.masks else "")
            if self.clip_of is not None:
                parts.append(digest(self.clip_of.numpy().tobytes()))
            self._fingerprint = digest(*parts)
        return self._fingerprint


def folder_at(kind: str, path: str) -> Path:
    """Return the folder that a spec names.

    Raises:
        UserError: If none is named or there is none.
    """
    if not path:
        raise UserError(f"{kind}: name the folder, as in {kind}:DIR")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"{kind}:{path}: {'is not a folder' if folder.exists() else 'no such folder'}")
    return folder


def images_below(folder: Path) -> Iterator[str]:
    """Yield the paths of all pictures below a folder, by suffix, sorted; what is hidden is left out."""
    seen = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(where)) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            # strings, not Paths: there may be a million
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in image_suffixes():  # noqa: PTH122
                yield os.path.join(where, name)  # noqa: PTH118


def chosen_classes(kind: str, text: str | None, known: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that `classes=a,b` names, in its order, or all that are known.

    Raises:
        UserError: If a name is unknown or given twice.
    """
    if text is None:
        return tuple(known)
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in known:
            raise UserError(f"{kind}: no class {name!r}; {did_you_mean(name, known)}")
    if len(set(names)) < len(names):
        raise UserError(f"{kind}: classes={text} names a class twice")
    return names

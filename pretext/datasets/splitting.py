"""Complete the splits of a source to train, val and test; take subsets and join splits.

Nothing may be tuned on the held-out set. A source with a val but no test split therefore uses that val as test,
and a new val is drawn from train.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from pretext.datasets.base import ImageDataset, Target
from pretext.datasets.files import FileDataset
from pretext.datasets.fingerprints import digest
from pretext.datasets.view import View
from pretext.system.errors import UserError

SEED = 20160427
"""Seed of every drawn split; fixed, so that all results use the same pictures."""
VAL_SHARE, TEST_SHARE = 0.1, 0.2
"""Share of the training pictures that a drawn val or test split takes."""


@final
class Subset(View):
    """Some pictures of another data set.

    Attributes:
        indices: The index in `base` of each picture.
    """

    def __init__(self, base: ImageDataset, indices: Sequence[int] | NDArray[np.int64]) -> None:
        """Select the pictures of `base` at `indices`, in that order; `splits` stays that of `base`."""
        super().__init__(base)
        self.indices = np.asarray(indices, dtype=np.int64)
        rows = torch.from_numpy(self.indices)
        self.label = None if base.label is None else base.label[rows]
        self.clip_of = None if base.clip_of is None else base.clip_of[rows]
        self.objects = None if base.objects is None else base.objects.take(rows)
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Target]:
        """Return picture and target; see `ImageDataset`."""
        return self.base[int(self.indices[index])]

    def read(self, index: int, at_least: int | None) -> tuple[UInt8[Tensor, "3 H W"], Target]:
        """Return an item; see `ImageDataset.read`."""
        return self.base.read(int(self.indices[index]), at_least)

    def origin(self, index: int) -> tuple[ImageDataset, int]:
        """Return `base` and the picture's index in it."""
        return self.base, int(self.indices[index])

    @property
    def fingerprint(self) -> str:
        """A hash of the fingerprint of `base` and of the indices."""
        if self._fingerprint is None:
            self._fingerprint = digest(self.base.fingerprint, self.indices.tobytes())
        return self._fingerprint


@final
class Joined(View):
    """All splits of a data set, one after the other; for uses without training, such as a search index."""

    def __init__(self, data: ImageDataset) -> None:
        """Join all splits of `data`."""
        super().__init__(data)
        self.parts = list(data.splits.values())
        self.ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Target]:
        """Return picture and target; see `ImageDataset`."""
        part, number = self.origin(index)
        return part[number]

    def origin(self, index: int) -> tuple[ImageDataset, int]:
        """Return the split that holds the picture, and its index in that split.

        Raises:
            IndexError: If there is no such picture.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = int(np.searchsorted(self.ends, index, side="right"))
        return self.parts[which], index - int(self.ends[which]) + len(self.parts[which])

    @property
    def fingerprint(self) -> str:
        """A hash of the splits' fingerprints."""
        return digest(*(part.fingerprint for part in self.parts))


def split_or_all(data: ImageDataset, name: str) -> ImageDataset:
    """Return the split `name`, or all splits joined if `name` is `all`.

    Raises:
        UserError: If there is no such split.
    """
    return Joined(data) if name == "all" and name not in data.splits else data.split(name)


def complete(
    spec: str, splits: dict[str, ImageDataset], equal: Mapping[str, Int[NDArray[np.int64], "N"]]
) -> tuple[dict[str, ImageDataset], list[str]]:
    """Return train, val and test, besides any other splits given, and notes on the splits that were drawn.

    A split is drawn by content: equal pictures stay together.

    Args:
        spec: The start of error messages.
        splits: The splits of the source.
        equal: The numbers of `equal_pictures`.

    Raises:
        UserError: If train is missing, a split is empty, a file is in two splits, or train has too few pictures.
    """
    if "train" not in splits:
        raise UserError(f"{spec}: no training split; name it with train=")
    _check_disjoint(spec, splits)
    splits, notes = dict(splits), []
    units = _units(splits["train"], equal["train"])
    if "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")
        notes.append("The source has no test split: its val split serves as test, and nothing is chosen on it.")
    for name, share in (("test", TEST_SHARE), ("val", VAL_SHARE)):
        if name not in splits:
            before = len(splits["train"])
            taken = _drawn(spec, splits["train"], units, share)
            splits[name] = Subset(splits["train"], np.flatnonzero(taken))
            splits["train"] = Subset(splits["train"], np.flatnonzero(~taken))
            units = units[~taken]
            drawn = f"{len(splits[name]):,} of {before:,} pictures"
            drawn += ", whole clips" if splits[name].clip_of is not None else ""
            notes.append(f"The {name} split was drawn from train by a fixed seed: {drawn}.")
    for name, part in splits.items():
        if len(part) == 0:
            raise UserError(f"{spec}: the {name} split is empty")
    return splits, notes


def limited(data: ImageDataset, limit: int) -> ImageDataset:
    """Return at most `limit` pictures, drawn by a fixed seed; a smaller limit takes a subset of a larger one.

    Clips are drawn whole. If the first clip drawn is longer than `limit`, its first frames are taken.
    """
    if len(data) <= limit:
        return data
    if (clips := data.clip_of) is not None:
        names, lengths = np.unique(clips.numpy(), return_counts=True)
        order = np.random.default_rng(SEED).permutation(len(names))
        count = max(1, np.searchsorted(lengths[order].cumsum(), limit, side="right"))
        return Subset(data, np.flatnonzero(np.isin(clips.numpy(), names[order[:count]]))[:limit])
    return Subset(data, np.sort(np.random.default_rng(SEED).permutation(len(data))[:limit]))


def _check_disjoint(spec: str, splits: dict[str, ImageDataset]) -> None:
    files = {name: set(part.images) for name, part in splits.items() if isinstance(part, FileDataset)}
    for one, other in itertools.combinations(files, 2):
        if shared := files[one] & files[other]:
            raise UserError(
                f"{spec}: {len(shared):,} pictures are in {one} and in {other}, {min(shared)} among them; "
                "splits must not overlap"
            )


def _units(train: ImageDataset, equal: Int[NDArray[np.int64], "N"]) -> Int[NDArray[np.int64], "N"]:
    """Return the unit of each picture: units are drawn whole.

    A unit is all entries of one picture, or all clips of the same pictures; the frames of a clip are nearly equal.
    """
    if train.clip_of is None:
        return equal
    clips = train.clip_of.numpy()
    _, starts, lengths = np.unique(clips, return_index=True, return_counts=True)
    unit_of: dict[bytes, int] = {}
    units = [
        unit_of.setdefault(equal[start : start + length].tobytes(), int(clips[start]))
        for start, length in zip(starts, lengths, strict=True)
    ]
    return np.repeat(units, lengths)


def _drawn(
    spec: str, train: ImageDataset, units: Int[NDArray[np.int64], "N"], share: float
) -> Bool[NDArray[np.bool_], "N"]:
    """Draw `share` of the units of every class, or of the clips; return which pictures are in them."""
    names, firsts = np.unique(units, return_index=True)
    total, what = len(names), "picture(s)" if train.clip_of is None else "clip(s)"
    if total < 2:
        raise UserError(f"{spec}: {total} {what} are too few to draw val and test from; give at least 3 different ones")
    order = np.random.default_rng(SEED).permutation(total)
    if train.label is not None and train.clip_of is None:
        order = order[np.argsort(train.label.numpy()[firsts[order]], kind="stable")]
    count = max(1, round(share * total))
    # equal steps through the units, sorted by class, take the same share of each class
    drawn = order[((np.arange(count) + 0.5) * total / count).astype(np.int64)]
    return np.isin(units, names[drawn])

"""Small data sets for probe tests: coloured images, and scenes whose test targets can be shuffled."""

from __future__ import annotations

import numpy as np
import torch

from pretext.datasets import open_dataset
from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.fingerprints import digest
from pretext.datasets.view import View
from pretext.encoders import build_encoder

SIZE = 32
HUES = torch.tensor([[220, 40, 40], [40, 200, 40], [50, 50, 220], [210, 210, 60], [200, 60, 200], [60, 210, 210]])


class Colours(ImageDataset):
    """One colour a class under noise; without `learnable`, the labels are independent of the image."""

    def __init__(self, name, count, *, classes=3, multi=False, learnable=True, without=()):
        self.name, self.count, self.multi, self.learnable, self.without = name, count, multi, learnable, tuple(without)
        self.spec = "colours"
        self.classes = tuple("abcdefgh"[:classes])
        self.annotations = frozenset({"labels"} if multi else {"label"})

    def __len__(self):
        return self.count

    @property
    def fingerprint(self):
        return digest(str(sorted((key, str(value)) for key, value in vars(self).items() if key != "splits")))

    def __getitem__(self, index):
        rng = np.random.default_rng([index, *self.name.encode()])
        possible = [k for k in range(len(self.classes)) if k not in self.without]
        shown = int(rng.choice(possible))
        image = HUES[shown % len(HUES)].view(3, 1, 1) + torch.from_numpy(rng.normal(0, 20, (3, SIZE, SIZE)))
        named = shown if self.learnable else int(rng.choice(possible))
        image = image.clamp(0, 255).to(torch.uint8)
        if not self.multi:
            return image, {"label": torch.tensor(named)}
        # the last class is in every image, and marked difficult in half of them
        labels = torch.tensor([named, len(self.classes) - 1])
        difficult = torch.tensor([False, bool(rng.random() < 0.5)])
        return image, {"labels": labels, "difficult": difficult}


def colours(train=60, test=40, **settings):
    """The training split of a data set of colours; `without` lists classes that only the training split lacks."""
    lacking = settings.pop("without", ())
    splits = {
        "train": Colours("train", train, without=lacking, **settings),
        "val": Colours("val", 30, **settings),
        "test": Colours("test", test, **settings),
    }
    for part in splits.values():
        part.splits = splits
    return splits["train"]


class Altered(View):
    """A data set with shuffled targets, fewer annotations, or images that cannot be decoded."""

    def __init__(self, base, *, shuffled=False, only=None, unreadable=()):
        super().__init__(base)
        self.unreadable = tuple(unreadable)
        self.annotations = base.annotations if only is None else frozenset(only)
        self.truth_of = np.random.default_rng(5).permutation(len(base)) if shuffled else np.arange(len(base))

    def __len__(self):
        return len(self.base)

    def origin(self, index):
        return self.base, index

    @property
    def fingerprint(self):
        parts = self.truth_of.tobytes().hex(), str(sorted(self.annotations)), str(self.unreadable)
        return digest(self.base.fingerprint, *parts)

    def __getitem__(self, index):
        if index in self.unreadable:
            raise BadImage(f"{self.spec} {index}: cut short")
        target = self.base[int(self.truth_of[index])][1]
        kept = self.annotations | ({"difficult"} if "labels" in self.annotations else set())
        return self.base[index][0], {name: value for name, value in target.items() if name in kept}


def small_scenes(*, train=40, val=12, test=16, shuffle_test=False, **alterations):
    """The training split of a few synthetic scenes at 32 px."""
    opened = open_dataset(f"scenes?size={SIZE}&train={train}&val={val}&test={test}").splits
    splits = {
        name: Altered(part, shuffled=shuffle_test and name == "test", **alterations) for name, part in opened.items()
    }
    for part in splits.values():
        part.splits = splits
    return splits["train"]


def small_encoder():
    """A small, fast encoder with random weights."""
    return build_encoder("alexnet?width=0.125&stem_stride=2", input_size=SIZE, seed=0)

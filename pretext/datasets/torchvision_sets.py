"""torchvision's data sets by name: `cifar10:DIR`, where DIR is torchvision's `root`.

torchvision finds, checks and downloads the files. Data sets stored as one array (CIFAR, MNIST, STL-10, SVHN) stay
in memory; the others are decoded picture by picture. Greyscale becomes RGB. The trimaps of the Oxford pets become
masks: the pet has the number of its breed, the border is ignored.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from pretext.datasets.base import IGNORE, ImageDataset, Target
from pretext.datasets.files import FileDataset, MaskFiles
from pretext.datasets.fingerprints import digest
from pretext.system.errors import UserError
from pretext.system.specs import path_of


@dataclass(frozen=True)
class NamedSet:
    """One of torchvision's data sets."""

    name: str
    """Name of its class in `torchvision.datasets`."""
    splits: Mapping[str, Mapping[str, Any]]
    """Keyword arguments of the class for each of our splits."""


_WHOLE: dict[str, dict[str, Any]] = {"train": {}}
_TRAIN_TEST: dict[str, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}


def _split(**names: str) -> dict[str, dict[str, Any]]:
    return {ours: {"split": theirs} for ours, theirs in names.items()}


SETS: dict[str, NamedSet] = {
    "cifar10": NamedSet("CIFAR10", _TRAIN_TEST),
    "cifar100": NamedSet("CIFAR100", _TRAIN_TEST),
    "country211": NamedSet("Country211", _split(train="train", val="valid", test="test")),
    "dtd": NamedSet("DTD", _split(train="train", val="val", test="test")),
    "eurosat": NamedSet("EuroSAT", _WHOLE),
    "fashion_mnist": NamedSet("FashionMNIST", _TRAIN_TEST),
    "fgvc_aircraft": NamedSet("FGVCAircraft", _split(train="train", val="val", test="test")),
    "flowers102": NamedSet("Flowers102", _split(train="train", val="val", test="test")),
    "food101": NamedSet("Food101", _split(train="train", test="test")),
    "gtsrb": NamedSet("GTSRB", _split(train="train", test="test")),
    "imagenet": NamedSet("ImageNet", _split(train="train", val="val")),
    "imagenette": NamedSet("Imagenette", _split(train="train", val="val")),
    "kmnist": NamedSet("KMNIST", _TRAIN_TEST),
    "mnist": NamedSet("MNIST", _TRAIN_TEST),
    "oxford_iiit_pet": NamedSet("OxfordIIITPet", _split(train="trainval", test="test")),
    "places365": NamedSet("Places365", {"train": {"small": True}, "val": {"split": "val", "small": True}}),
    "stanford_cars": NamedSet("StanfordCars", _split(train="train", test="test")),
    "stl10": NamedSet("STL10", _split(train="train", test="test")),
    "sun397": NamedSet("SUN397", _WHOLE),
    "svhn": NamedSet("SVHN", _split(train="train", test="test")),
}
BY_HAND = frozenset({"imagenet", "stanford_cars"})
"""Data sets whose files torchvision cannot download."""


@dataclass(frozen=True)
class Options:
    """Options of torchvision's data sets, such as `cifar10:DIR?…`."""

    download: bool = False
    """Download the files if they are missing."""


@final
class ArrayDataset(ImageDataset):
    """Pictures of one size in one array, with or without one class each."""

    def __init__(
        self, images: UInt8[NDArray[np.uint8], "N ..."], label: Int[Tensor, "N"] | None, classes: tuple[str, ...]
    ) -> None:
        """Store the arrays.

        Args:
            images: N×H×W greyscale, N×H×W×3 or N×3×H×W.
            label: The class of each picture; None if they have none.
            classes: Class names.
        """
        grey = images.ndim == 3
        channels_last = images.ndim == 4 and images.shape[-1] == 3
        self.images: UInt8[NDArray[np.uint8], "N C H W"] = (
            images[:, None] if grey else images.transpose(0, 3, 1, 2) if channels_last else images
        )
        height, width = self.images.shape[2:]
        self.side = height if height == width else None
        self.label, self.classes = label, classes
        self.annotations = frozenset({"label"} if label is not None else ())
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Target]:
        """Return picture and target; see `ImageDataset`."""
        picture = self.images[index]
        image = torch.from_numpy(np.array(np.broadcast_to(picture, (3, *picture.shape[1:])), order="C"))
        return image, {} if self.label is None else {"label": self.label[index].clone()}

    @property
    def fingerprint(self) -> str:
        """A hash of all pixels, labels and class names."""
        if self._fingerprint is None:
            state = digest(np.ascontiguousarray(self.images).tobytes())
            shape = str(self.images.shape)
            label = b"" if self.label is None else self.label.numpy().tobytes()
            self._fingerprint = digest(shape, state, label, *self.classes)
        return self._fingerprint


def open_named(kind: str, path: str, options: Options) -> dict[str, ImageDataset]:
    """Return the splits of one of torchvision's data sets.

    Args:
        kind: A key of `SETS`.
        path: torchvision's `root`.
        options: Whether to download.

    Raises:
        UserError: If the files are missing, are not the expected ones, or cannot be downloaded.
    """
    if not path:
        raise UserError(f"{kind}: the path is missing; write {kind}:DIR, the folder of its files or for its download")
    root = path_of(path)
    if options.download and kind in BY_HAND:
        raise UserError(f"{kind}: torchvision cannot download it; {_where_from(kind, root)}")
    if not options.download and not root.is_dir():  # some of torchvision's classes would create the folder
        raise UserError(f"{kind}: no folder {root}; {_where_from(kind, root)}")
    return {ours: _opened(kind, root, ours, keywords, options) for ours, keywords in SETS[kind].splits.items()}


def _opened(kind: str, root: Path, split: str, keywords: Mapping[str, Any], options: Options) -> ImageDataset:
    import torchvision.datasets

    named = SETS[kind]
    known = getattr(torchvision.datasets, named.name)
    if "download" in inspect.signature(known).parameters:
        keywords = {**keywords, "download": options.download}
    try:
        found = known(str(root), **keywords)
        return _converted(kind, root, found)
    except Exception as error:  # each of torchvision's classes raises other errors
        words = " ".join(str(error).split()).removesuffix(" You can use download=True to download it")
        if options.download:
            raise UserError(f"{kind}: {split} could not be downloaded into {root}: {words}") from None
        raise UserError(
            f"{kind}: no valid {split} split of {named.name} in {root} ({words}); {_where_from(kind, root)}"
        ) from None


def _where_from(kind: str, root: Path) -> str:
    if kind in BY_HAND:
        other = "; open class folders without the archives as folder:DIR" if kind == "imagenet" else ""
        return f"put its files into {root} as torchvision.datasets.{SETS[kind].name} describes{other}"
    return "give the folder that contains it, or add --download"


def _converted(kind: str, root: Path, found: Any) -> ImageDataset:
    """Return one of torchvision's data sets as an `ImageDataset`, without decoding pictures."""
    files, numbers = _files_and_numbers(found)
    label = torch.as_tensor(np.asarray(numbers), dtype=torch.int64)
    classes = _class_names(kind, found, int(label.max()) + 1)
    if not 0 <= int(label.min()) <= int(label.max()) < len(classes):
        wrong = int(label.min()) if label.min() < 0 else int(label.max())
        raise ValueError(f"a picture has the class number {wrong}, but there are {len(classes)} classes")
    count = len(found.data) if files is None else len(files)
    if count != len(label):
        raise ValueError(f"{count} pictures, but class numbers of {len(label)}")
    for path in files or ():
        os.fsencode(path)  # fails for names that no file can have
    if files is None:
        return ArrayDataset(np.asarray(found.data), label, classes)
    masks = None
    if kind == "oxford_iiit_pet":
        masks = MaskFiles([str(path) for path in found._segs], _trimaps(len(classes)), label.tolist())
    return FileDataset(root=root, images=files, classes=classes, label=label, masks=masks)


def _files_and_numbers(found: Any) -> tuple[list[str] | None, Sequence[int]]:
    """Return the path (None if the pictures are in one array) and the class index of each picture."""
    for name in ("samples", "_samples", "imgs"):
        if pairs := getattr(found, name, None):
            return [str(path) for path, _ in pairs], [number for _, number in pairs]
    if files := getattr(found, "_image_files", None):
        pairs = sorted(zip(map(str, files), found._labels, strict=True))  # SUN397 lists its files in no fixed order
        return [path for path, _ in pairs], [number for _, number in pairs]
    if files := getattr(found, "_images", None):
        return [str(path) for path in files], found._labels
    return None, found.targets if hasattr(found, "targets") else found.labels


def _class_names(kind: str, found: Any, at_least: int) -> tuple[str, ...]:
    if names := getattr(found, "classes", None):
        # ImageNet lists the synonyms of each class
        return tuple(name if isinstance(name, str) else ", ".join(name) for name in names)
    return tuple(str(number) for number in range(max(at_least, {"gtsrb": 43, "svhn": 10}.get(kind, 0))))


def _trimaps(classes: int) -> Int[NDArray[np.int16], "T 256"]:
    """Return the table of each breed for `MaskFiles`; a trimap holds 1 for pet, 2 for background, 3 for border."""
    tables = np.full((classes, 256), -1, dtype=np.int16)
    tables[:, 1], tables[:, 2], tables[:, 3] = np.arange(1, classes + 1), 0, IGNORE
    return tables

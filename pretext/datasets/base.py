"""The interface of a data set: a picture and its target per item, named splits, and a fingerprint.

The target is a plain dict with torchvision's detection keys and types, so that `torchvision.transforms.v2`
transforms picture, boxes and mask together:

    label       int64 scalar: the picture's single class
    labels      int64 N: the class of each object; their set is the multi-label truth
    boxes       tv_tensors.BoundingBoxes N×4, XYXY, in pixels of the picture
    difficult   bool N: objects that an evaluation must ignore
    masks       tv_tensors.Mask H×W, uint8: 0 background, k + 1 for classes[k], 255 ignored
    clip        int64 scalar: the picture's clip; the frames of a clip are consecutive and in temporal order
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxtyping import Int, UInt8
from torch import Tensor

from pretext.system.errors import InputError, UserError, did_you_mean

if TYPE_CHECKING:
    from pretext.datasets.objects import Objects

Target = dict[str, Any]
ANNOTATIONS = frozenset({"label", "labels", "boxes", "masks", "clip"})
IGNORE = 255


class BadImage(InputError):  # noqa: N818 - the name needs no suffix
    """A file that cannot be decoded; its message names the file and the reason on one line."""


class Fault(str):
    """A note on something that is wrong with the data; other notes say what was decided or left out on purpose."""

    __slots__ = ()


class ImageDataset(ABC):
    """One split of a data set, with access to the other splits.

    Attributes:
        spec: The spec that opens the data set.
        classes: Class names; targets hold indices into them. Empty if nothing is labelled.
        annotations: The keys that every target holds, out of label, labels, boxes, masks and clip.
        splits: All splits by name, this one included. `open_dataset` guarantees train, val and test.
        notes: Sentences that a report must repeat, such as that a validation split was drawn; those that say that
            something is wrong are of the class `Fault`.
        lacking: Why an annotation is missing that the source nearly has, by its key; `require` says it.
        has_background: False if no pixel of a mask is background, which is then no class to predict.
        synthetic: True if the pictures are drawn, not photographed.
        squash: True if pictures are to be squashed to squares, by `resize=squash`; else they keep their shape.
        load_size: The most pixels of a picture's shorter side where views are cut from it; None is
            `pretext.datasets.kept.VIEW_DETAIL` times the views' side.
        side: Side in pixels of all pictures, if all are known to be squares of one size; else None.
        thread_safe: True if several threads may read pictures at once; else they are read one by one.
        label: The class of each picture, if known without decoding; else None.
        clip_of: The clip number of each picture, if pictures are frames of clips; else None.
        objects: The objects of each picture, in pixels as in its target, if known without decoding; else None.
    """

    spec: str = ""
    classes: tuple[str, ...] = ()
    annotations: frozenset[str] = frozenset()
    splits: Mapping[str, ImageDataset] = {}
    notes: tuple[str, ...] = ()
    lacking: Mapping[str, str] = {}
    has_background: bool = True
    synthetic: bool = False
    squash: bool = False
    load_size: int | None = None
    side: int | None = None
    thread_safe: bool = False
    label: Int[Tensor, "N"] | None = None
    clip_of: Int[Tensor, "N"] | None = None
    objects: Objects | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Target]:
        """Return the picture (RGB, EXIF orientation applied) and its target.

        Raises:
            BadImage: If the file cannot be decoded.
        """

    def read(self, index: int, at_least: int | None) -> tuple[UInt8[Tensor, "3 H W"], Target]:
        """Return an item, whose picture may be decoded at a reduced size where that is faster.

        Args:
            index: The item's index.
            at_least: Pixels that both sides keep, if they have as many; None decodes at full size. Boxes and mask stay
                in pixels of the full picture.

        Raises:
            BadImage: If the file cannot be decoded.
        """
        return self[index]

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of all pictures and annotations; equal only for equal data."""

    def known_target(self, index: int, height: int, width: int) -> Target:
        """Return what `label`, `clip_of` and `objects` say of picture `index`, which has height×width pixels."""
        target: Target = {}
        if self.label is not None:
            target["label"] = self.label[index].clone()
        if self.clip_of is not None:
            target["clip"] = self.clip_of[index].clone()
        if self.objects is not None:
            target |= self.objects.target(index, height, width)
        return target

    def split(self, name: str) -> ImageDataset:
        """Return the split `name`.

        Raises:
            UserError: If there is no such split.
        """
        if name not in self.splits:
            raise UserError(f"{self.spec}: no split {name!r}; {did_you_mean(name, self.splits)}")
        return self.splits[name]

    def require(self, *annotations: str) -> None:
        """Raise a `UserError` unless the data set has all of `annotations`."""
        missing = [name for name in annotations if name not in self.annotations]
        if missing:
            has = ", ".join(sorted(self.annotations)) or "nothing"
            why = next(
                (self.lacking[name] for name in missing if name in self.lacking), "give a data set that has them"
            )
            raise UserError(f"{self.spec}: this needs {' and '.join(missing)}, and the data set annotates {has}; {why}")

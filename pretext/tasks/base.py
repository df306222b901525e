"""The interface of a pretext task.

A task is one file in this folder with one final subclass of `Task`, which owns its settings, views, heads and
losses. The module docstring names the paper, the equations or sections, and every deviation. Its first line is
what `python -m pretext list` prints: `Name: what it does (Authors year)`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, final

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor, nn

from pretext.datasets.base import ImageDataset
from pretext.datasets.classification import is_multi_label
from pretext.datasets.pictures import Pictures
from pretext.encoders.base import Encoder
from pretext.transforms.augmentation import CropAndFlip, augment, cropping
from pretext.transforms.crops import squares

Players = Mapping[str, list[nn.Parameter]]


@dataclass(frozen=True)
class Clips:
    """Several frames of one clip per row, for a task with `frames` above 1."""

    frames: Pictures
    """The frames: its tensors have B × F rows."""
    number: Int[Tensor, "B"]
    """Index of the clip; rows with the same number show the same clip."""
    place: Int[Tensor, "B F"]
    """Position of each frame in its clip, from 0, in temporal order."""


@dataclass(frozen=True)
class Batch:
    """The input of a task at one step: `pictures` to cut views from, or `images` of the encoder's side."""

    pictures: Pictures
    labels: Shaped[Tensor, "B ..."] | None
    """Class targets, see `pretext.datasets.classification`; None unless the task `needs_labels`."""
    generator: torch.Generator
    """Source of all random draws of the step. The loop seeds it by the run's seed and the step, on its own device."""
    clips: Clips | None = None
    """Frames of each image's clip, if the task's `frames` is above 1 and the data has clips; else None."""

    def __len__(self) -> int:
        return len(self.pictures)

    @cached_property
    def images(self) -> UInt8[Tensor, "B 3 S S"]:
        """The centre of each picture, at the encoder's side S: for tasks that see whole images."""
        return squares(self.pictures)

    def cropped(self, settings: CropAndFlip) -> Float[Tensor, "B 3 S S"]:
        """Return random crops and flips of the pictures in [0, 1]; whole images draw nothing from the generator."""
        if settings.crop_min < 1:
            views = cropping(settings.crop_min, flip=settings.flip)
            return augment(self.pictures, views, self.generator)
        images = self.images.float() / 255
        if not settings.flip:
            return images
        flipped = torch.rand(len(images), 1, 1, 1, generator=self.generator, device=self.device) < settings.flip
        return torch.where(flipped, images.flip(-1), images)

    def magnified(self, zoom: float) -> UInt8[Tensor, "B 3 Z Z"]:
        """Return the centre of each picture with the detail that a task sees which magnifies parts of `images`.

        Args:
            zoom: How much the task magnifies them.

        Returns:
            Squares whose side Z is a multiple of S, at least `zoom` times as large if the pictures have that detail.
        """
        times = 1 if self.pictures.are_squares else math.ceil(zoom - 1e-6)
        return self.images if times <= 1 else squares(replace(self.pictures, side=times * self.side))

    @property
    def side(self) -> int:
        """S, the side of the encoder's images in pixels."""
        return self.pictures.side

    @property
    def device(self) -> torch.device:
        """Where the pictures are."""
        return self.pictures.device

    def rows(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return other rows of the batch, such as a slice. See `Pictures.rows`."""
        return self._changed(lambda pictures: pictures.rows(change), change)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device; the generator stays where it is."""
        return self._changed(lambda pictures: pictures.to(device), lambda tensor: tensor.to(device, non_blocking=True))

    def _changed(self, pictures: Callable[[Pictures], Pictures], tensor: Callable[[Tensor], Tensor]) -> Batch:
        """Return a copy with one change of all pictures, and one of every other tensor."""
        clips = self.clips
        return replace(
            self,
            pictures=pictures(self.pictures),
            labels=None if self.labels is None else tensor(self.labels),
            clips=clips and Clips(pictures(clips.frames), tensor(clips.number), tensor(clips.place)),
        )


class LabelKind(NamedTuple):
    """The number of classes and the kind of labels, for the task that needs them."""

    classes: int
    multi_label: bool


def label_kind(data: ImageDataset) -> LabelKind | None:
    """Return the kind of a data set's labels, or None if it has no class labels."""
    if not {"label", "labels"} & data.annotations:
        return None
    return LabelKind(len(data.classes), is_multi_label(data))


class Task(nn.Module, ABC):
    """An encoder together with the heads and losses that train it.

    The constructor is `__init__(self, encoder, config)`, with a third argument `labels` if the task `needs_labels`.
    It raises ValueError if the encoder does not fit. Only the encoder is exported after training. Other submodules
    are discarded, but their names are keys of checkpoints.

    `titles`, `variants`, `variant_help` and `training_defaults` contain literals only (numbers, strings, dicts and
    `Config(key=literal)`): `--help` reads them from the source text, without importing torch.
    """

    Config: ClassVar[type[Any]]
    """A nested frozen dataclass: every setting with its default and docstring; `__post_init__` checks the ranges."""
    variants: ClassVar[Mapping[str, Any]] = {}
    """Named `Config`s besides the default one: `context_encoder:adversarial`."""
    variant_help: ClassVar[Mapping[str, str]] = {}
    """One short phrase for each variant: how it differs from the default."""
    titles: ClassVar[Mapping[str, str]] = {}
    """Names in tables and figures, by variant; the key "" is the task's own. Where one is missing, it is the name that
    begins the module's docstring, and for a variant that name with the variant in brackets."""
    training_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Defaults of `train` that a variant replaces (`encoder`, `batch_size`); the key "" applies to the whole task.

    Not called `training`: every `nn.Module` has a train/eval flag of that name.
    """
    revision: ClassVar[int] = 0
    """Increase it when a change of this task's code changes its encoder: only its cells are then computed again."""
    needs_labels: ClassVar[bool] = False
    """True for the one task that is allowed to see labels."""
    frames: int = 1
    """Frames of one clip that a step reads; above 1, `choose_frames` selects them."""
    prepares_on: int = 0
    """Number of training images that `prepare` receives; 0 if the task needs no `prepare`."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def prepare(self, batch: Batch) -> None:
        """Initialise from training images. Called once, before the first step; the result must be in the state dict.

        Args:
            batch: `prepares_on` images (all of them if there are fewer), in an order drawn by the seed; no labels.
        """

    @abstractmethod
    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield `(player, loss)`; the loop updates that player's parameters before it requests the next loss."""

    def players(self) -> Players:
        """Return the parameters that each player's loss updates; by default one player, "task", has all."""
        return {"task": [parameter for parameter in self.parameters() if parameter.requires_grad]}

    def rate_factors(self) -> Mapping[str, float]:
        """Return each player's learning-rate multiplier; players that are not listed have 1."""
        return {}

    def after_step(self, progress: float) -> None:
        """Run after all players' optimiser steps, e.g. to update a momentum encoder.

        Args:
            progress: Completed share of the run, 0 to 1.
        """

    def choose_frames(
        self, place: Int[Tensor, "B"], length: Int[Tensor, "B"], generator: torch.Generator
    ) -> Int[Tensor, "B F"]:
        """Return the positions of the `frames` that a step reads from each clip.

        Args:
            place: Position of one frame drawn from each clip, on the generator's device.
            length: Number of frames of each clip, at least `frames`.
            generator: Source of all random draws.
        """
        return place[:, None]

    def metrics(self) -> Mapping[str, float]:
        """Return further numbers for the training log, e.g. accuracies or parts of the last step's loss."""
        return {}

    def warning(self) -> str | None:
        """Return what goes wrong in training though no loss shows it, and what to do about it; None if nothing does."""
        return None

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return the columns of a sample sheet by heading, in [0, 1]; empty if the task has no sheet."""
        return {}


class Fitted(Task, ABC):
    """A task without training steps: `prepare` computes the encoder's weights."""

    @abstractmethod
    def prepare(self, batch: Batch) -> None:
        """Set the encoder's weights."""

    @final
    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield nothing: there are no training steps."""
        yield from ()

    @final
    def players(self) -> Players:
        """Return no players."""
        return {}


class Inpainter(Task, ABC):
    """A task that can fill holes in images."""

    def can_fill(self, holes: Shaped[Tensor, "B 1 S S"]) -> bool:
        """Return whether it predicts all pixels of the holes; `inpaint` refuses others."""
        return True

    @abstractmethod
    def inpaint(self, images: UInt8[Tensor, "B 3 S S"], holes: Shaped[Tensor, "B 1 S S"]) -> Float[Tensor, "B 3 S S"]:
        """Return the images in [0, 1] with their holes filled; pixels outside of the holes are unchanged.

        Args:
            images: The images; the result does not depend on their pixels inside the holes.
            holes: True where a pixel is missing.
        """

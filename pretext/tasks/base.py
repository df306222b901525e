"""The interface of a pretext task.

A task is one file in this folder with one final subclass of `Task`, which owns its settings, views, heads and
losses. The module docstring names the paper, the equations or sections, and every deviation. Its first line is
what `python -m pretext list` prints: `Name: what it does (Authors year)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, final

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor, nn

from pretext.datasets.base import ImageDataset
from pretext.datasets.classification import is_multi_label
from pretext.encoders.base import Encoder

Players = Mapping[str, list[nn.Parameter]]


class Clips(NamedTuple):
    """Some frames of one clip a row, for a task that sees several at a time."""

    frames: UInt8[Tensor, "B F 3 S S"]
    number: Int[Tensor, "B"]
    """Which clip it is: rows of the same number are of the same clip."""
    place: Int[Tensor, "B F"]
    """Each frame's place in its clip, from 0, in time."""


class Batch(NamedTuple):
    """The input of a task at one step."""

    images: UInt8[Tensor, "B 3 S S"]
    labels: Shaped[Tensor, "B ..."] | None
    """Class targets, see `pretext.datasets.classification`; None unless the task `needs_labels`."""
    generator: torch.Generator
    """Source of all random draws of the step. The loop seeds it by the run's seed and the step, on its own device."""
    clips: Clips | None = None
    """Frames of each image's clip, if the task's `frames` is above 1 and the data has clips; else None."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return a copy with `change` applied to every tensor, such as a move to a device or a slice of the rows."""
        return self._replace(
            images=change(self.images),
            labels=None if self.labels is None else change(self.labels),
            clips=None if self.clips is None else Clips(*(change(tensor) for tensor in self.clips)),
        )


class LabelKind(NamedTuple):
    """What labels look like, for the task that needs them."""

    classes: int
    multi_label: bool


def label_kind(data: ImageDataset) -> LabelKind | None:
    """Return what the labels of a data set look like; None where pictures have no classes."""
    if not {"label", "labels"} & data.annotations:
        return None
    return LabelKind(len(data.classes), is_multi_label(data))


class Task(nn.Module, ABC):
    """An encoder together with the heads and losses that train it.

    A task is built as `Kind(encoder, config)`; one that `needs_labels`, as `Kind(encoder, config, labels)`. The
    constructor raises ValueError where the encoder does not fit. Only the encoder is exported after training.

    `variants`, `variant_help` and `training_defaults` contain literals only (numbers, strings, dicts and
    `Config(key=literal)`): `--help` reads them from the source text, without importing torch.
    """

    Config: ClassVar[type[Any]]
    """A nested frozen dataclass: every setting with its default and docstring; `__post_init__` checks the ranges."""
    variants: ClassVar[Mapping[str, Any]] = {}
    """Named `Config`s besides the default one: `context_encoder:adversarial`."""
    variant_help: ClassVar[Mapping[str, str]] = {}
    """One short phrase for each variant: how it differs from the default."""
    training_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Defaults of `train` that a variant replaces, by flag (`encoder`, `batch_size`); key "" applies to the whole task.

    Not called `training`, which is every `nn.Module`'s train/eval flag.
    """
    needs_labels: ClassVar[bool] = False
    """True for the one task that is allowed to see labels."""
    frames: int = 1
    """Frames of one clip that it sees at a time. Above 1, `choose_frames` says which."""
    prepares_on: int = 0
    """How many training pictures `prepare` is shown; it is called for no task that leaves this at 0."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def prepare(self, batch: Batch) -> None:
        """Look at some training pictures before the first step, once a run; what comes of it is in the state.

        Args:
            batch: As many as the task `prepares_on`, or all that there are, in an order of the seed's; no labels.
        """

    @abstractmethod
    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield `(player, loss)` in turn; the loop steps that player's parameters before it asks for the next."""

    def players(self) -> Players:
        """Return the parameters that each player's loss moves; one player moves all by default."""
        return {"task": [parameter for parameter in self.parameters() if parameter.requires_grad]}

    def rate_factors(self) -> Mapping[str, float]:
        """Return what each player's learning rate is multiplied by, where that is not 1."""
        return {}

    def after_step(self, progress: float) -> None:
        """Do what follows a step of all players: a momentum encoder's update, say.

        Args:
            progress: The share of the run that is done, 0 to 1.
        """

    def choose_frames(
        self, place: Int[Tensor, "B"], length: Int[Tensor, "B"], generator: torch.Generator
    ) -> Int[Tensor, "B F"]:
        """Return the places of the `frames` that a step sees of each clip.

        Args:
            place: A frame drawn from each clip, on the generator's device.
            length: Frames that the clip has: at least `frames`.
            generator: Draws everything random.
        """
        return place[:, None]

    def metrics(self) -> Mapping[str, float]:
        """Return what else is worth a line in the log: accuracies, parts of the loss. Asked for now and then."""
        return {}

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return columns of a sample sheet by heading, in [0, 1]: inputs, outputs, originals. Empty: no sheet."""
        return {}


class Fitted(Task, ABC):
    """A task that is ready once it is prepared: no player, no loss, no step."""

    @abstractmethod
    def prepare(self, batch: Batch) -> None:
        """Set the encoder's weights."""

    @final
    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield nothing."""
        yield from ()

    @final
    def players(self) -> Players:
        """Return none."""
        return {}


class Inpainter(Task, ABC):
    """A task whose decoder can fill holes."""

    @abstractmethod
    def inpaint(self, images: UInt8[Tensor, "B 3 S S"], holes: Shaped[Tensor, "B 1 S S"]) -> Float[Tensor, "B 3 S S"]:
        """Return the pictures in [0, 1] with their holes filled; outside of holes they are as they were.

        Args:
            images: Pictures; what they show inside the holes is not looked at.
            holes: True where a pixel is missing.
        """

"""How long, how fast, on what: the settings of a training run."""

from __future__ import annotations

import dataclasses
from typing import Literal

from pretext.datasets.packed import BadImages
from pretext.training.optimisers import OptimizerName, ScheduleName

BUDGETS = ("images", "steps", "epochs", "seconds", "flops")
DEFAULT_IMAGES = 100_000
"""Budget where none is given."""
NOT_IN_RESULT = ("checkpoint_seconds", "log_every", "workers", "device", "samples")
"""Settings that change nothing about the encoder that comes out."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long, how fast, on what. Exactly one of the budgets may be given."""

    images: int | None = None
    """Budget in pictures seen; 100,000 where no budget is given."""
    steps: int | None = None
    """Budget in optimiser steps."""
    epochs: float | None = None
    """Budget in passes over the training split."""
    seconds: float | None = None
    """Budget in seconds of training; such a run cannot be repeated to the same numbers."""
    flops: float | None = None
    """Budget in floating-point operations, counted on one batch."""
    batch_size: int = 128
    """Pictures a step, of all processes together."""
    accumulate: int = 1
    """Parts in which a batch goes through the network, where memory is short."""
    optimizer: OptimizerName = "adamw"
    """AdamW, Adam or SGD."""
    learning_rate: float = 1e-3
    """The highest."""
    weight_decay: float = 0.05
    """Of matrices and kernels."""
    beta1: float = 0.9
    """Momentum: SGD's, and Adam's first coefficient."""
    beta2: float = 0.999
    """Adam's second coefficient."""
    schedule: ScheduleName = "cosine"
    """Cosine to 0, or constant."""
    warmup: float = 0.05
    """Share of the run over which the learning rate rises."""
    clip_norm: float | None = None
    """Longest gradient of a player; None cuts none."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward pass; auto is bfloat16 on a GPU, float32 on a CPU, where bfloat16 is slower."""
    channels_last: bool = True
    """Memory layout; the faster one for convolutions."""
    compile: bool = False
    """Compile the encoder; pays on long runs."""
    seed: int = 0
    """Of weights, order, augmentation and masks."""
    device: str = "auto"
    """cpu, cuda, …; auto takes a GPU where there is one."""
    bad_images: BadImages = "skip"
    """Pictures that cannot be decoded: leave them out and say so, or stop."""
    workers: int = 2
    """Processes that decode, where the data set is too large to be packed."""
    checkpoint_seconds: float = 60.0
    """Time between checkpoints."""
    log_every: int = 50
    """Steps between lines of the log."""
    samples: int = 4
    """Sample sheets over the run, where the task paints."""

    def __post_init__(self) -> None:
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are given; give one budget")
        for name in (*given, "batch_size", "accumulate", "learning_rate", "log_every"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed is above 0")
        for name in ("weight_decay", "workers", "samples", "checkpoint_seconds", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed is 0 or more")
        for name in ("beta1", "beta2", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed is 0 to below 1")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} cannot be split in accumulate={self.accumulate} parts")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm is {self.clip_norm}; allowed is above 0, or none")

    def total_steps(self, *, pictures: int, flops_per_image: float) -> int | None:
        """Return the number of steps; None where only time decides.

        Args:
            pictures: In the training split.
            flops_per_image: Of every player's forward and backward pass.
        """
        if self.seconds is not None:
            return None
        if self.steps is not None:
            return self.steps
        images = float(self.images or DEFAULT_IMAGES)
        if self.epochs is not None:
            images = self.epochs * pictures
        if self.flops is not None:
            images = self.flops / flops_per_image
        return max(1, round(images / self.batch_size))

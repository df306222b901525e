"""Settings of a training run: budget, optimisation, checkpoints and logs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar

from pretext.datasets.packed import BadImages
from pretext.system.precision import Precision
from pretext.system.ranges import check_numbers, check_range
from pretext.training.optimisers import OptimizerName, ScheduleName
from pretext.training.watching import WatchName

BUDGETS = ("images", "steps", "epochs", "seconds", "flops")
DEFAULT_IMAGES = 100_000
"""Budget in images if no budget is given."""
KEEP = re.compile(r"([0-9]{1,9}|[0-9]{1,3}\.[0-9]{1,3}(?=%))(%?)")
"""What `keep` may be: steps, or percent of the budget."""
MOST_BUDGET = 1e30
"""Larger budgets are refused: their number of steps would not be finite."""
NOT_IN_RESULT = (
    "checkpoint_seconds",
    "log_every",
    "workers",
    "device",
    "samples",
    "watch",
    "watch_every",
    "track",
    "keep",
)
"""Settings that a run may be resumed with other values of. But for `device` they do not change the trained encoder: a
GPU rounds otherwise than a CPU, and by default computes in bfloat16. `run.json` names the device and the precision."""
BY_CONTENT = ("init",)
"""Settings that name a file: its content tells runs apart, wherever it lies."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Budget, optimisation, checkpoints and logs. At most one of the budgets may be given."""

    images: int | None = None
    """Budget in training images; 100,000 if no budget is given."""
    steps: int | None = None
    """Budget in optimiser steps."""
    epochs: float | None = None
    """Budget in passes over the training split."""
    seconds: float | None = None
    """Budget in seconds of training; such a run is not reproducible."""
    flops: float | None = None
    """Budget in floating-point operations; one image's cost is measured at the start."""
    batch_size: int = 128
    """Images per step, over all processes."""
    accumulate: int = 1
    """Split each batch into this many micro-batches to save memory; must divide the batch size. Losses that compare the
    images of a batch (simclr, moco:v3, barlow_twins, vicreg, swav, temporal) see only those of one micro-batch. A loss
    over a number of values that differs between images (context_encoder's holes) is the mean of those of its parts."""
    optimizer: OptimizerName = "adamw"
    """Optimiser: AdamW, Adam or SGD with momentum."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 0.05
    """Weight decay, an L2 penalty for Adam and SGD; not applied to biases and norms."""
    beta1: float = 0.9
    """First beta of Adam and AdamW; momentum of SGD."""
    beta2: float = 0.999
    """Second beta of Adam and AdamW; SGD ignores it."""
    schedule: ScheduleName = "cosine"
    """Learning rate after the warm-up: cosine decay to 0, or constant."""
    warmup: float = 0.05
    """Share of the run over which the learning rate rises linearly; 0 disables the warm-up."""
    clip_norm: float | None = None
    """Clip the gradient norm to this value; None disables clipping."""
    precision: Precision = "auto"
    """Number format of the layers in training; auto is bfloat16 on a GPU and float32 on a CPU. On a CPU that has
    instructions for it, bfloat16 is 1.3 to 1.8 times as fast."""
    channels_last: bool = True
    """Use the channels-last memory format, which is faster for convolutions."""
    compile: bool = False
    """Compile the encoder with torch.compile, for long runs on a GPU. Measured on a CPU, steps took a third longer."""
    init: str | None = None
    """Start from the weights of an encoder file, or of a spec such as timm:resnet18?weights=FILE; random weights if
    omitted."""
    seed: int = 0
    """Seed of the initial weights, the image order, augmentations and masks."""
    device: str = "auto"
    """Torch device, such as cpu or cuda; auto takes a GPU if there is one."""
    bad_images: BadImages = "skip"
    """Images that cannot be decoded: skip them with a message, or stop with an error."""
    workers: int = 2
    """Decoding processes, for data sets too large to be packed; 0 decodes in the main process."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints."""
    log_every: int = 50
    """Steps between lines of log.jsonl."""
    samples: int = 4
    """Sample sheets to write over the run, if the task outputs images; 0 writes none."""
    watch: WatchName | None = None
    """Measure the encoder while it trains, on fixed pictures of train and val: k-NN accuracy, or RankMe, which needs
    no labels."""
    watch_every: int = 200
    """Steps between measurements of --watch; the last step has one too."""
    track: tuple[str, ...] = ()
    """Send the log's lines and the sample sheets to tensorboard, or to a file of your own, my_tracker.py."""
    keep: str | None = None
    """Keep an encoder file in OUT/kept every N steps (500), or every N percent of the budget (10%)."""

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "how long": ("images", "steps", "epochs", "seconds", "flops"),
        "how": (
            "batch_size",
            "accumulate",
            "optimizer",
            "learning_rate",
            "weight_decay",
            "beta1",
            "beta2",
            "schedule",
            "warmup",
            "clip_norm",
            "precision",
            "channels_last",
            "compile",
            "init",
            "seed",
            "bad_images",
        ),
        "while it trains": ("watch", "watch_every", "track", "keep"),
        "where and when to save": ("device", "workers", "checkpoint_seconds", "log_every", "samples"),
    }

    def __post_init__(self) -> None:
        check_numbers(self)
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are given; give at most one budget")
        check_range(self, *BUDGETS, most=MOST_BUDGET)
        check_range(self, *BUDGETS, "batch_size", "accumulate", "learning_rate", "log_every", "watch_every", above=0)
        check_range(self, "weight_decay", "workers", "samples", "checkpoint_seconds", least=0)
        check_range(self, "beta1", "beta2", "warmup", least=0, below=1)
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is not divisible by accumulate {self.accumulate}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm is {self.clip_norm}; allowed is above 0, or none to disable clipping")
        if self.keep is not None:
            found = KEEP.fullmatch(self.keep)
            if not found or not 0 < float(found[1]) <= (100 if found[2] else MOST_BUDGET):
                raise ValueError(f"keep is {self.keep}; allowed is a number of steps, such as 500, or 0.001% to 100%")
        if self.seconds is not None and self.keep is not None and self.keep.endswith("%"):
            raise ValueError(f"keep is {self.keep}, but a budget in seconds has no known steps; give a number of steps")

    def keeps(self, step: int, total_steps: int | None) -> bool:
        """Return whether the encoder is kept after a step; see `keep`.

        Args:
            step: Steps that are done, from 1.
            total_steps: What `total_steps` returns.
        """
        if self.keep is None:
            return False
        if not self.keep.endswith("%"):
            return step % int(self.keep) == 0
        assert total_steps is not None
        interval = total_steps * Fraction(self.keep.rstrip("%")) / 100  # exact, unlike a float
        return step // interval > (step - 1) // interval

    def total_steps(self, *, image_count: int, flops_per_image: float) -> int | None:
        """Return the number of steps; None if the budget is in seconds.

        Args:
            image_count: Number of images in the training split.
            flops_per_image: Floating-point operations of one image; see `pretext.training.flops`.
        """
        if self.seconds is not None:
            return None
        if self.steps is not None:
            return self.steps
        images = float(self.images or DEFAULT_IMAGES)
        if self.epochs is not None:
            images = self.epochs * image_count
        if self.flops is not None:
            images = self.flops / flops_per_image
        return max(1, round(images / self.batch_size))

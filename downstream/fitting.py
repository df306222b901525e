"""Training a head on an encoder's maps, and the encoder with it: what detection and segmentation share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as TF

from pretext.checkpoint import atomic_write
from pretext.datasets.base import BadImage, ImageDataset, Target
from pretext.errors import UserError
from pretext.judging import Probe

WARM_UP = 0.05
"""Share of the steps over which the learning rate rises."""
LARGEST_GRADIENT = 5.0
"""Norm to which a longer gradient is cut."""


@dataclass(frozen=True)
class FittedProbe(Probe):
    """A probe that trains a head on the encoder, and the encoder with it."""

    train_images: int = 400
    """Labelled training pictures, drawn by the seed; 0 takes all."""
    test_images: int = 0
    """Test pictures, the first so many; 0 takes all."""
    steps: int = 250
    """Batches to train on."""
    batch_size: int = 8
    """Pictures a batch."""
    learning_rate: float = 2e-3
    """Highest learning rate of the head."""
    encoder_learning_rate_factor: float = 0.5
    """The encoder's learning rate, as a share of the head's; 0 leaves the encoder as it is."""
    weight_decay: float = 0.01
    """AdamW's."""

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("train_images", 0), ("test_images", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed is {least} or more")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; allowed is above 0")
        if not 0 <= self.encoder_learning_rate_factor <= 1:
            raise ValueError(f"encoder_learning_rate_factor is {self.encoder_learning_rate_factor}; allowed is 0 to 1")


def draw(data: ImageDataset, count: int, *, seed: int) -> NDArray[np.int64]:
    """Return `count` of a data set's indices in random order; all of them where it is 0 or too many.

    With the same seed, fewer are a part of more.
    """
    order = np.random.default_rng(seed).permutation(len(data))
    return order[:count] if count else order


def batches(indices: NDArray[np.int64], batch_size: int, steps: int, *, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield `steps` batches: pass after pass, each in an order of its own, batches running across passes."""
    rng = np.random.default_rng(seed)
    waiting = np.zeros(0, dtype=np.int64)
    for _ in range(steps):
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, rng.permutation(indices)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def read(data: ImageDataset, indices: NDArray[np.int64]) -> tuple[UInt8[Tensor, "B 3 S S"], list[Target]]:
    """Return pictures and targets; a picture that turns out undecodable is left out.

    Raises:
        UserError: If none of them can be decoded.
    """
    images, targets = [], []
    for index in indices:
        try:
            image, target = data[int(index)]
        except BadImage:  # of data too large to be packed; packing has named all others
            continue
        images.append(image)
        targets.append(target)
    if not images:
        raise UserError(f"{data.spec}: {len(indices)} pictures in a row cannot be decoded; see to the files")
    return torch.stack(images), targets


def flip_some(images: UInt8[Tensor, "B 3 S S"], targets: list[Target]) -> UInt8[Tensor, "B 3 S S"]:
    """Mirror each picture, and what its target holds, with a chance of one half; targets change in place."""
    flipped = torch.rand(len(images)) < 0.5
    for target, turn in zip(targets, flipped, strict=True):
        for name in ("boxes", "masks"):
            if turn and name in target:
                target[name] = TF.horizontal_flip(target[name])
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)


def fit(
    encoder: nn.Module,
    head: nn.Module,
    loss_of: Callable[[NDArray[np.int64]], Tensor | None],
    batch_indices: Iterator[NDArray[np.int64]],
    *,
    name: str,
    steps: int,
    learning_rate: float,
    encoder_factor: float,
    weight_decay: float,
) -> list[float]:
    """Train by AdamW, the learning rate rising over the first steps and falling as a cosine to 0.

    Args:
        encoder: Learns at `learning_rate` times `encoder_factor`; at 0 it is left as it is.
        head: Learns at `learning_rate`.
        loss_of: The loss of a batch; None where the batch has nothing to learn from, and is passed over.
        batch_indices: At least `steps` of them.
        name: What is trained, for the progress bar and errors.
        steps: Batches to train on.
        learning_rate: The highest.
        encoder_factor: See `encoder`.
        weight_decay: AdamW's.

    Returns:
        The loss of every step that had one.

    Raises:
        UserError: If the loss is not finite.
    """
    from tqdm import tqdm

    groups = [{"params": [*head.parameters()], "lr": learning_rate}]
    encoder.requires_grad_(encoder_factor > 0)
    encoder.train(encoder_factor > 0)
    head.train()
    if encoder_factor:
        groups.append({"params": [*encoder.parameters()], "lr": learning_rate * encoder_factor})
    parameters = [parameter for group in groups for parameter in group["params"]]  # type: ignore[attr-defined]
    optimiser = torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)
    highest = [group["lr"] for group in optimiser.param_groups]
    curve: list[float] = []
    with tqdm(batch_indices, name, steps, delay=2, disable=None, leave=False, unit="step") as bar:
        for step, indices in enumerate(bar):
            for group, most in zip(optimiser.param_groups, highest, strict=True):
                group["lr"] = most * _rate(step, steps)
            loss = loss_of(indices)
            if loss is not None:
                if not math.isfinite(loss.item()):
                    raise UserError(
                        f"{name}: the loss is {loss.item()} at step {step + 1} of {steps}; "
                        "lower learning_rate, or check the encoder's weights"
                    )
                optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
                optimiser.step()
                curve.append(loss.item())
    encoder.eval()
    head.eval()
    return curve


def write_curve(out: Path, curve: list[float]) -> None:
    """Write the loss of every step to `curve.json`."""
    with atomic_write(out / "curve.json") as path:
        path.write_text(json.dumps({"loss": [round(loss, 6) for loss in curve]}))


def _rate(step: int, steps: int) -> float:
    """Return the share of the highest learning rate at a step."""
    rising = (step + 1) / max(1.0, WARM_UP * steps)
    return min(rising, 0.5 * (1 + math.cos(math.pi * step / steps)))

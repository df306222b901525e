"""Train a head on an encoder's maps, and the encoder with it: the loop of detection, segmentation and fine-tuning."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from downstream.reading import batches
from downstream.resuming import CHECKPOINT, Fitting, Resume
from pretext.datasets.base import ImageDataset
from pretext.encoders.base import Encoder, deepest_shape
from pretext.judging import Probe
from pretext.modules.schedules import cosine
from pretext.system.checkpoint import atomic_write
from pretext.system.errors import UserError
from pretext.system.memory_order import steps_in_memory_order
from pretext.system.precision import Precision, autocast, say_if_slow
from pretext.system.progress import progress_bar
from pretext.system.ranges import check_range
from pretext.system.stopping import Stop, stop_politely

Head = TypeVar("Head", bound=nn.Module)

WARM_UP = 0.05
"""Share of the steps used for linear learning rate warm-up."""
LARGEST_GRADIENT = 5.0
"""Gradients are clipped to this norm."""
EVERY_S = 60.0
"""Seconds between checkpoints."""


@dataclass(frozen=True)
class FittedProbe(Probe):
    """A probe that trains a head on the encoder, and by default the encoder too."""

    train_images: int = 400
    """Number of labelled training images, drawn by the seed; 0 uses all."""
    test_images: int = 0
    """Number of test images, the same for every seed; 0 uses all."""
    steps: int = 250
    """Number of training steps."""
    batch_size: int = 8
    """Number of images per batch."""
    learning_rate: float = 2e-3
    """Peak learning rate of the head."""
    encoder_learning_rate_factor: float = 0.5
    """Learning rate of the encoder relative to the head's, from 0 to 1; 0 freezes the encoder."""
    weight_decay: float = 0.01
    """AdamW weight decay of the head and the encoder."""
    precision: Precision = "float32"
    """Number format of the encoder's layers in training; auto is bfloat16 on a GPU and float32 on a CPU. The head, and
    the encoder at test time, are always float32."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "steps", "batch_size", least=1)
        check_range(self, "train_images", "test_images", least=0)
        check_range(self, "learning_rate", above=0)
        check_range(self, "weight_decay", least=0)
        check_range(self, "encoder_learning_rate_factor", least=0, most=1)

    def check_encoder(self, encoder: Encoder) -> None:
        """See `Probe.check_encoder`: one image whose deepest map has one cell cannot be batch-normalised."""
        if self.batch_size == 1 and deepest_shape(encoder)[1:] == (1, 1):
            raise UserError(
                f"batch_size is 1, and the deepest map of {encoder.spec} has one cell at {encoder.input_size} px: "
                "batch normalisation needs more than one value; raise batch_size"
            )

    def _maps(self, encoder: Encoder, images: Tensor) -> list[Tensor]:
        """Return an encoder's maps of a training batch, computed in `precision`, as float32."""
        with autocast(self.precision, images.device):
            maps = encoder(images)
        return [stage.float() for stage in maps]

    def _fit(
        self,
        encoder: Encoder,
        make_head: Callable[[], Head],
        loss_of: Callable[[Head, NDArray[np.int64]], Tensor | None],
        train: ImageDataset,
        indices: NDArray[np.int64],
        *,
        name: str,
        encoder_factor: float | Mapping[str, float],
        out: Path | None,
        generators: tuple[torch.Generator, ...] = (),
    ) -> tuple[Head, list[float]]:
        """Build a head and train it, and `encoder` in place, by the probe's settings. See `fit`.

        Torch's own generators are seeded for it and restored afterwards.

        Args:
            encoder: The network to judge.
            make_head: Builds the head with random weights.
            loss_of: The loss of a head on a batch of indices; None skips the batch.
            train: The training images.
            indices: Those of `train` to train on.
            name: The probe's name, for progress and errors.
            encoder_factor: Learning rate of the encoder relative to the head's: one value, or one per parameter name.
            out: Folder of the checkpoint; None writes none.
            generators: Generators that the loss draws from, besides torch's own.

        Returns:
            The trained head, and the loss of every step that had one.
        """
        device = next(encoder.parameters()).device
        say_if_slow(self.precision, device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            head = make_head().to(device)
            curve = fit(
                encoder,
                head,
                functools.partial(loss_of, head),
                batches(indices, self.batch_size, self.steps, seed=self.seed),
                name=name,
                steps=self.steps,
                learning_rate=self.learning_rate,
                encoder_factor=encoder_factor,
                weight_decay=self.weight_decay,
                resume=self._resume(out, train, generators),
            )
        return head, curve

    def _resume(self, out: Path | None, train: ImageDataset, generators: tuple[torch.Generator, ...]) -> Resume | None:
        """Return where `fit` keeps its checkpoint and what the checkpoint depends on; None if `out` is None.

        Args:
            out: See `evaluate`.
            train: The training images.
            generators: Generators that the loss draws from, besides torch's own.
        """
        if out is None:
            return None
        depends_on = dataclasses.asdict(self) | {"data": train.fingerprint}
        return Resume(out / CHECKPOINT, depends_on, generators)


def fit(
    encoder: Encoder,
    head: nn.Module,
    loss_of: Callable[[NDArray[np.int64]], Tensor | None],
    batch_indices: Iterator[NDArray[np.int64]],
    *,
    name: str,
    steps: int,
    learning_rate: float,
    encoder_factor: float | Mapping[str, float],
    weight_decay: float,
    resume: Resume | None = None,
) -> list[float]:
    """Train with AdamW, linear warm-up and a cosine schedule to 0.

    Args:
        encoder: Trained at `learning_rate` times `encoder_factor`. Parameters with factor 0 are frozen. Modules with
            only frozen parameters stay in evaluation mode, so that their batch normalisation statistics do not change.
        head: Trained at `learning_rate`.
        loss_of: Returns the loss of a batch; None skips the batch.
        batch_indices: At least `steps` batches of indices.
        name: Name for the progress bar and errors.
        steps: Number of training steps.
        learning_rate: Peak learning rate.
        encoder_factor: See `encoder`: one value for all parameters, or one per parameter name.
        weight_decay: AdamW weight decay.
        resume: Checkpoint settings. A checkpoint is written every minute, on a stop signal, and at the end. A call that
            finds one continues from it; on a CPU the result is bit-identical. `write_curve` deletes it. None writes
            no checkpoint.

    Returns:
        The loss of every step that had one.

    Raises:
        UserError: If the loss is not finite.
        KeyboardInterrupt: On SIGINT or SIGTERM, after the current step is saved.
    """
    groups = [{"params": [*head.parameters()], "lr": learning_rate}]
    groups += [
        {"params": parameters, "lr": learning_rate * factor}
        for factor, parameters in _trainable(encoder, encoder_factor).items()
    ]
    parameters = [parameter for group in groups for parameter in group["params"]]  # type: ignore[attr-defined]
    optimiser = steps_in_memory_order(torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True))
    peaks = [group["lr"] for group in optimiser.param_groups]
    head.train()
    fitting = None if resume is None else Fitting(name, encoder, head, optimiser, resume)
    first, curve = (0, []) if fitting is None else fitting.load()
    saved = time.monotonic()
    with (
        nullcontext(Stop()) if fitting is None else stop_politely() as stop,
        progress_bar(name, steps, initial=first, unit="step") as bar,
    ):
        for step, indices in enumerate(itertools.islice(batch_indices, first, steps), first):
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * _rate(step, steps)
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
                bar.set_postfix(loss=f"{curve[-1]:.4f}", refresh=False)
            done, now = step + 1, time.monotonic()
            due = now - saved >= EVERY_S
            saved = now if due else saved
            if fitting is not None and (due or stop.requested or done == steps):
                fitting.save(done, curve)
                if stop.requested:
                    raise KeyboardInterrupt
            bar.update()
    encoder.eval()
    head.eval()
    return curve


def write_curve(out: Path, curve: list[float]) -> None:
    """Write the loss of every step to `curve.json`, and delete the checkpoint, which is no longer needed."""
    with atomic_write(out / "curve.json") as path:
        path.write_text(json.dumps({"loss": [round(loss, 6) for loss in curve]}))
    (out / CHECKPOINT).unlink(missing_ok=True)


def _trainable(encoder: Encoder, factors: float | Mapping[str, float]) -> dict[float, list[nn.Parameter]]:
    """Freeze the parameters with factor 0 and the modules that have no others; return the rest by factor."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in encoder.named_parameters():
        factor = factors[name] if isinstance(factors, Mapping) else factors
        parameter.requires_grad_(factor > 0)
        if factor > 0:
            groups.setdefault(factor, []).append(parameter)
    encoder.train()
    for module in encoder.modules():
        own = [*module.parameters()]
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()
    return groups


def _rate(step: int, steps: int) -> float:
    """Return the learning rate at a step, relative to its peak."""
    warm_up = (step + 1) / max(1.0, WARM_UP * steps)
    return min(warm_up, cosine(step, steps))

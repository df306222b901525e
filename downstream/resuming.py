"""Checkpoints of probe training: an interrupted run continues and gives the same numbers."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pretext.datasets.fingerprints import digest
from pretext.encoders.base import Encoder
from pretext.encoders.files import encoder_digest, load_strictly
from pretext.system.checkpoint import load_optimizer, optimizer_tensors, read_checkpoint, save_checkpoint
from pretext.system.errors import UserError

CHECKPOINT = "fitting.safetensors"
"""File name in the probe's folder while it runs. It differs from the name of a pretraining checkpoint."""


@dataclass(frozen=True)
class Resume:
    """Path of a checkpoint, and what must match for training to continue from it."""

    path: Path
    depends_on: dict[str, Any]
    """Settings and data fingerprint, which decide the result besides the weights and the device type."""
    generators: tuple[torch.Generator, ...] = ()
    """Generators that the loss draws from, besides torch's own."""


class Fitting:
    """The state of training that a checkpoint saves and restores."""

    def __init__(
        self, name: str, encoder: Encoder, head: nn.Module, optimiser: torch.optim.Optimizer, resume: Resume
    ) -> None:
        """Compute the key of this training. Call before the first step.

        Args:
            name: Name for printed lines.
            encoder: The encoder to judge, with its initial weights.
            head: The head, with its initial weights.
            optimiser: The optimiser of both.
            resume: Path of the checkpoint, and what else the key depends on.
        """
        self.name, self.encoder, self.head, self.optimiser, self.resume = name, encoder, head, optimiser, resume
        self.device = next(head.parameters()).device
        first = (
            part
            for key, value in head.state_dict().items()
            for part in (key, str(value.shape), value.cpu().contiguous().numpy().tobytes())
        )
        settings = json.dumps(resume.depends_on, sort_keys=True, default=str)
        self.key = digest(name, settings, encoder_digest(encoder), self.device.type, *first)

    def load(self) -> tuple[int, list[float]]:
        """Restore the checkpoint; return the number of completed steps and their losses.

        A checkpoint with another key is deleted with a line on stderr, and training starts from the beginning.
        """
        path = self.resume.path
        if not path.exists():
            return 0, []
        try:
            tensors, about = read_checkpoint(path)
        except UserError:
            tensors, about = {}, {}
        if about.get("key") != self.key:
            self._print(
                f"{path} is damaged or belongs to other settings, data or weights; deleted it, training starts over"
            )
            path.unlink()
            return 0, []
        for prefix, module in (("encoder.", self.encoder), ("head.", self.head)):
            own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            load_strictly(module, own, str(path))
        load_optimizer("fit", self.optimiser, tensors)
        torch.set_rng_state(tensors["random"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        for i, generator in enumerate(self.resume.generators):
            generator.set_state(tensors[f"random.{i}"])
        self._print(f"continues after step {about['step']} of {path}")
        return int(about["step"]), tensors["curve"].tolist()

    def save(self, step: int, curve: list[float]) -> None:
        """Write the checkpoint atomically."""
        tensors = {f"encoder.{key}": value for key, value in self.encoder.state_dict().items()}
        tensors |= {f"head.{key}": value for key, value in self.head.state_dict().items()}
        tensors |= optimizer_tensors("fit", self.optimiser)
        tensors |= {f"random.{i}": generator.get_state() for i, generator in enumerate(self.resume.generators)}
        tensors |= {"random": torch.get_rng_state(), "curve": torch.tensor(curve, dtype=torch.float64)}
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        save_checkpoint(self.resume.path, tensors, {"key": self.key, "step": step})

    def _print(self, text: str) -> None:
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)

"""Fitting that goes on where it was cut off, to the same numbers: its checkpoint in the probe's folder."""

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
"""Lies in the probe's folder while it is at work. A pretraining's is called otherwise: it is never touched."""


@dataclass(frozen=True)
class Resume:
    """Where a fitting keeps its checkpoint, and what a checkpoint must agree with to be gone on from."""

    path: Path
    depends_on: dict[str, Any]
    """What decides the result beside the weights and the kind of device: settings and the data's fingerprint."""
    generators: tuple[torch.Generator, ...] = ()
    """What the loss draws from, beside torch's own generators."""


class Fitting:
    """What changes while a head is fitted. With a `Resume`, it can be written to a file and read back."""

    def __init__(
        self, name: str, encoder: Encoder, head: nn.Module, optimiser: torch.optim.Optimizer, resume: Resume
    ) -> None:
        """Take note of where the fitting starts; nothing has been learned yet.

        Args:
            name: What is fitted, for what is printed.
            encoder: With the weights to judge.
            head: With its first weights.
            optimiser: Of both.
            resume: Where to, and what else counts.
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
        """Return the steps that an earlier call made and their losses, everything set as it was then.

        A checkpoint of anything else is deleted with a line on stderr, and the fitting starts from the beginning.
        """
        path = self.resume.path
        if not path.exists():
            return 0, []
        try:
            tensors, about = read_checkpoint(path)
        except UserError:
            tensors, about = {}, {}
        if about.get("key") != self.key:
            self._say(f"{path} is damaged, or of other settings, data or weights: deleted, training starts anew")
            path.unlink()
            return 0, []
        for prefix, module in (("encoder.", self.encoder), ("head.", self.head)):
            mine = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            load_strictly(module, mine, str(path))
        load_optimizer("fit", self.optimiser, tensors)
        torch.set_rng_state(tensors["random"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        for i, generator in enumerate(self.resume.generators):
            generator.set_state(tensors[f"random.{i}"])
        self._say(f"goes on after step {about['step']} of {path}")
        return int(about["step"]), tensors["curve"].tolist()

    def save(self, step: int, curve: list[float]) -> None:
        """Write the checkpoint, whole or not at all."""
        tensors = {f"encoder.{key}": value for key, value in self.encoder.state_dict().items()}
        tensors |= {f"head.{key}": value for key, value in self.head.state_dict().items()}
        tensors |= optimizer_tensors("fit", self.optimiser)
        tensors |= {f"random.{i}": generator.get_state() for i, generator in enumerate(self.resume.generators)}
        tensors |= {"random": torch.get_rng_state(), "curve": torch.tensor(curve, dtype=torch.float64)}
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        save_checkpoint(self.resume.path, tensors, {"key": self.key, "step": step})

    def _say(self, text: str) -> None:
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)

"""How far a training run has come, as its checkpoint stores it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import NoneType
from typing import NamedTuple

import torch

from pretext.system.stored_json import Shape
from pretext.training.stopwatch import Spent

STATE: Shape = {
    "step": int,
    "seconds": float,
    "cpu_seconds": float,
    "flops_per_image": float,
    "finished": bool,
    "images_seen?": (int, NoneType),
    "device?": str,
}


class RunState(NamedTuple):
    """How far a run has come."""

    step: int
    seconds: float
    """Training time, over all calls that resumed the run."""
    cpu_seconds: float
    """Processor time; see `Spent`."""
    flops_per_image: float
    """Operations per image; see `pretext.training.flops`."""
    finished: bool
    images_seen: int | None = None
    """Images that were trained on, over all processes, and those that `Task.prepare` received; None is not counted, as
    earlier versions did not."""
    device: str = ""
    """Type of the torch device, such as cpu or cuda; empty if not known."""

    def say_if_moved(self, out: Path, device: torch.device) -> None:
        """Say on stderr that the run in `out` goes on on another type of device, which changes the encoder."""
        if self.device not in ("", device.type):
            print(
                f"{out}: trained on {self.device} until step {self.step}, and goes on on {device.type}; "
                f"the encoder will differ from one that is trained on {self.device} alone",
                file=sys.stderr,
                flush=True,
            )

    @property
    def spent(self) -> Spent:
        """The time of the run so far."""
        return Spent(self.seconds, self.cpu_seconds)

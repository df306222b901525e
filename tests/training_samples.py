"""A short training run on a CPU, for tests of what it writes."""

from __future__ import annotations

from pathlib import Path

from pretext.datasets import open_dataset
from pretext.training.config import TrainConfig
from pretext.training.loop import train

DATA = "scenes?size=32&train=96&val=8&test=8"
ENCODER = "alexnet?width=0.1&stem_stride=2"


def run(out: Path, task: str = "context_encoder", **settings) -> Path:
    settings = {"steps": 6, "batch_size": 16, "log_every": 2, "workers": 0, "device": "cpu"} | settings
    return train(task, ENCODER, open_dataset(DATA), TrainConfig(**settings), out, image_size=32)

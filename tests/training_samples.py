"""A short training run on a CPU, for tests of what it writes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
from PIL import Image

from pretext.datasets import open_dataset
from pretext.training import loop
from pretext.training.config import TrainConfig
from pretext.training.loop import train
from pretext.training.run_folder import RunFolder

DATA = "scenes?size=32&train=96&val=8&test=8"
ENCODER = "alexnet?width=0.1&stem_stride=2"


def run(out: str | Path, task: str = "context_encoder", **settings) -> Path:
    settings = {"steps": 6, "batch_size": 16, "log_every": 2, "workers": 0, "device": "cpu"} | settings
    return train(task, ENCODER, open_dataset(DATA), TrainConfig(**settings), out, image_size=32)


def stop_in_step(monkeypatch, step: int) -> None:
    """Let a signal arrive while a run takes its `step`-th step."""
    taken, calls = loop._step, 0

    def stopped(*given):
        nonlocal calls
        calls += 1
        if calls == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return taken(*given)

    monkeypatch.setattr(loop, "_step", stopped)


def pictures(folder: Path, broken=()) -> str:
    """Write 32 noise pictures, some of them cut short; return the spec of the folder."""
    folder.mkdir(parents=True)
    for k in range(32):
        file = folder / f"{k:02}.png"
        noise = np.random.default_rng(k).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file)
        if k in broken:
            file.write_bytes(file.read_bytes()[:60])
    return f"folder:{folder}"


def fail_to_save(monkeypatch, *, step):
    """Raise in place of saving the checkpoint of a step, as if the run was killed there."""
    save = RunFolder.save

    def killed(folder, model, optimizers, state):
        if state.step == step:
            raise RuntimeError("killed")
        save(folder, model, optimizers, state)

    monkeypatch.setattr(RunFolder, "save", killed)

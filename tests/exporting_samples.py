"""Encoders to export, and a process that runs the lines of model cards without this project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from pretext.encoders import Encoder, build_encoder

WITHOUT_PRETEXT = """
import json, sys, warnings
warnings.simplefilter("ignore")
import numpy, torch
for card, arrays in json.loads(sys.argv[1]):
    text = open(card, encoding="utf-8").read()
    code = text.split("```python\\n")[1].split("```")[0]
    images = numpy.load(f"{card}.images.npy")
    names = {"images": images if arrays else torch.from_numpy(images)}
    with torch.no_grad():
        exec(code, names)
    numpy.savez(f"{card}.npz", vectors=numpy.asarray(names["vectors"]), deepest=numpy.asarray(names["maps"][-1]))
assert "pretext" not in sys.modules
"""


def alive(spec: str, side: int, seed: int = 1) -> Encoder:
    """Return an encoder in which all tensors differ from their initial values, batch statistics included."""
    encoder = build_encoder(spec, input_size=side, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, value in encoder.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator)
            value.add_(0.02 * (noise.abs() if name.endswith("var") else noise))
    return encoder.eval()


def run_cards(made: list, encoders: list[Encoder]) -> list[tuple[float, float]]:
    """Run each card's lines in a folder that has only the files; return both outputs' largest differences.

    Args:
        made: From `export_encoder`.
        encoders: The encoders that were exported.
    """
    wanted = []
    for exported, encoder in zip(made, encoders, strict=True):
        images = torch.rand(4, 3, encoder.input_size, encoder.input_size, generator=torch.Generator().manual_seed(7))
        np.save(f"{exported.card}.images.npy", images.numpy())
        with torch.no_grad():
            wanted.append((encoder.embed(images), encoder(images)[-1]))
    folder = made[0].card.parent
    cards = json.dumps([(exported.card.name, exported.file.suffix == ".onnx") for exported in made])
    command = [sys.executable, "-I", "-c", WITHOUT_PRETEXT, cards]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = []
    for exported, (vectors, deepest) in zip(made, wanted, strict=True):
        with np.load(f"{exported.card}.npz") as theirs:
            found.append((share(theirs["vectors"], vectors), share(theirs["deepest"], deepest)))
    return found


def share(theirs: np.ndarray, ours: torch.Tensor) -> float:
    """Return the largest difference as a share of the largest value."""
    assert theirs.shape == tuple(ours.shape)
    return float(np.abs(theirs - ours.numpy()).max() / np.abs(ours.numpy()).max())


def block(card: Path) -> str:
    """Return the lines of Python in a card."""
    return card.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]

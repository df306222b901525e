"""Indexes for the tests of the search page, and an uploaded file."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from pretext.datasets import open_dataset
from pretext.encoders import build_encoder, save_encoder
from pretext.training.config import TrainConfig
from pretext.training.loop import train
from retrieval.__main__ import main

DATA, SIZE = "scenes?size=32&train=30&val=6&test=6", 32
SPEC = "alexnet?width=0.125&stem_stride=2"


def make_folders(root: Path) -> tuple[Path, ...]:
    """Make indexes of images and contexts by a context encoder, and of patches by random weights."""
    config = TrainConfig(steps=1, batch_size=4, workers=0, device="cpu")
    trained = train("context_encoder", SPEC, open_dataset(DATA), config, root / "run", image_size=SIZE)
    random = root / "random.safetensors"
    save_encoder(build_encoder(SPEC, input_size=SIZE, seed=0), random, {"task": "random"})
    for mode, file in (("images", trained), ("contexts", trained), ("grid", random)):
        main(["index", "--encoder", str(file), "--data", DATA, "--mode", mode, "--out", str(root / mode)])
    return tuple(root / name for name in ("images", "contexts", "grid"))


def png(size: tuple[int, int] = (40, 30), colour: str = "red") -> bytes:
    written = io.BytesIO()
    Image.new("RGB", size, colour).save(written, "PNG")
    return written.getvalue()

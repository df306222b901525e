"""Helpers for index tests: an encoder, pictures in folders, an index of them, and a way to interrupt a build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
from PIL import Image

from pretext.datasets import ImageDataset, at_size, open_dataset
from pretext.datasets.splitting import split_or_all
from pretext.encoders import Encoder, build_encoder
from retrieval.indexing.building import build_index
from retrieval.indexing.index import PatchIndex
from retrieval.regions import Regions

SIZE = 32
SPEC = f"scenes?train=40&val=12&test=16&size={SIZE}"
FILES = ["index.faiss", "manifest.json", "patches.npy", "pictures.npy"]


def make_encoder(seed: int = 0) -> Encoder:
    return build_encoder("alexnet?width=0.125&stem_stride=1", input_size=SIZE, seed=seed)


def build(encoder: Encoder, data: ImageDataset, regions: Regions, out: Path, **options: object) -> PatchIndex:
    given = {"encoder_source": "e", "split": "train", "stage": None, "factory": None, "bad_images": "stop"} | options
    return build_index(encoder, data, regions, out, picture_size=SIZE, **given)  # type: ignore[arg-type]


def photographs(folder: Path, numbers: range) -> Path:
    """Write one noise picture per number into a folder; the number determines the pixels."""
    folder.mkdir(exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


def opened(folder: Path, bad_images: str = "stop") -> ImageDataset:
    """Open all splits of a folder, at the encoder's input size."""
    return at_size(split_or_all(open_dataset(f"folder:{folder}"), "all"), SIZE, bad_images=bad_images)  # type: ignore[arg-type]


def class_folders(root: Path, pictures: int) -> Path:
    """Write `pictures` dark and as many light noise pictures, one folder per class."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("dark", "light")):
        (root / name).mkdir(parents=True)
        for i in range(pictures):
            pixels = rng.integers(200 * number, 200 * number + 50, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


class Killed(BaseException):
    """Simulates a killed process."""


def stop_at(monkeypatch: pytest.MonkeyPatch, where: str, call: int) -> None:
    """Raise `Killed` at the given call of a function, counted from 0."""
    original: Callable[..., object] = resolve_name(where)
    calls = iter(range(1_000_000))

    def dying(*args: object, **kwargs: object) -> object:
        if next(calls) == call:
            raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(where, dying)

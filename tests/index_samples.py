"""What the tests of indices share: an encoder, drawn pictures, photographs in a folder, and an index of either."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pretext.datasets import ImageDataset, at_size, open_dataset
from pretext.datasets.splitting import split_or_all
from pretext.encoders import Encoder, build_encoder
from retrieval.indexing.building import build_index
from retrieval.indexing.index import PatchIndex
from retrieval.regions import Regions

SIZE = 32
SPEC = f"scenes?train=40&val=12&test=16&size={SIZE}"


def make_encoder(seed: int = 0) -> Encoder:
    return build_encoder("alexnet?width=0.125&stem_stride=1", input_size=SIZE, seed=seed)


def build(encoder: Encoder, data: ImageDataset, regions: Regions, out: Path, **options: object) -> PatchIndex:
    given = {"encoder_source": "e", "split": "train", "stage": None, "factory": None, "bad_images": "stop"} | options
    return build_index(encoder, data, regions, out, picture_size=SIZE, **given)  # type: ignore[arg-type]


def photographs(folder: Path, numbers: range) -> Path:
    """Write one picture of noise for each number, the same for the same number, beside those that are there."""
    folder.mkdir(exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


def opened(folder: Path, bad_images: str = "stop") -> ImageDataset:
    """Open all splits of a folder, at the encoder's size."""
    return at_size(split_or_all(open_dataset(f"folder:{folder}"), "all"), SIZE, bad_images=bad_images)  # type: ignore[arg-type]

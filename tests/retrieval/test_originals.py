"""From a resized picture back to its original and its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from index_samples import SIZE
from PIL import Image

from pretext.datasets import ImageDataset, at_size, open_dataset
from retrieval.originals import file_of, original


@pytest.mark.parametrize("pack_gb", ["4", "0"])
def test_a_picture_leads_back_to_its_photograph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack_gb: str) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        pixels = rng.integers(0, 256, (20 + number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    if pack_gb == "4":  # a pack skips unreadable pictures, which shifts later numbers
        for name in ("0a.png", "3a.png"):
            (tmp_path / name).write_bytes(b"no picture")
    monkeypatch.setenv("PRETEXT_PACK_GB", pack_gb)
    splits = at_size(open_dataset(f"folder:{tmp_path}"), SIZE, bad_images="skip").splits
    found = {}
    for split in splits.values():
        for index in range(len(split)):
            file = file_of(split, index)
            assert file is not None
            with Image.open(file) as photograph:
                expected = np.asarray(photograph)
            assert np.array_equal(original(split, index).permute(1, 2, 0), expected)
            found[Path(file).name] = index
    assert set(found) == {f"{number}.png" for number in range(8)}


def test_a_drawn_picture_is_in_no_file(data: ImageDataset) -> None:
    assert file_of(data, 3) is None
    assert torch.equal(original(data, 3), data[3][0])

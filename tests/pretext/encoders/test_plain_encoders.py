"""Encoders without learning: HOG against scikit-image, pixels, and what both see of a hidden region."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.feature import hog as histograms

from pretext.datasets import ImageDataset
from pretext.encoders import build_encoder, load_encoder, save_encoder
from pretext.system.errors import UserError
from retrieval.patches import describe
from retrieval.regions import PATCH, Regions


def pictures(count: int = 5, size: int = 32) -> torch.Tensor:
    """Return random pictures, the second without a gradient, the third half flat."""
    shown = torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(0)).byte()
    shown[1] = 128
    shown[2, :, :, : size // 2] = 64
    return shown


@pytest.mark.parametrize(("size", "cells"), [(32, 8), (27, 8), (64, 8), (64, 4)])
def test_gradients_are_those_of_scikit_image(size: int, cells: int) -> None:
    encoder = build_encoder(f"hog?cells={cells}", input_size=size, seed=0)
    (found,) = encoder(pictures(size=size))
    cell = size // cells
    for blocks, picture in zip(found.permute(0, 2, 3, 1).numpy(), pictures(size=size), strict=True):
        expected = histograms(
            picture.permute(1, 2, 0).numpy(),
            pixels_per_cell=(cell, cell),
            cells_per_block=(2, 2),
            channel_axis=-1,
            feature_vector=False,
        )
        np.testing.assert_allclose(blocks, expected.reshape(blocks.shape), atol=1e-5)


def test_floats_and_bytes_have_equal_gradients() -> None:
    encoder = build_encoder("hog", input_size=32, seed=0)
    torch.testing.assert_close(encoder(pictures())[0], encoder(pictures().float() / 255)[0])


def test_pixels_are_the_normalised_picture() -> None:
    encoder = build_encoder("pixels", input_size=32, seed=0)
    assert torch.equal(encoder(pictures())[0], encoder.normalised(pictures()))


@pytest.mark.parametrize("spec", ["hog", "pixels"])
def test_nothing_is_random_and_a_file_keeps_it(spec: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    first, other = (build_encoder(spec, input_size=32, seed=seed) for seed in (0, 1))
    assert torch.equal(first(pictures())[0], other(pictures())[0])
    save_encoder(first, tmp_path / "plain.safetensors", {})
    assert torch.equal(load_encoder(tmp_path / "plain.safetensors")(pictures())[0], first(pictures())[0])


def test_pictures_smaller_than_two_cells_are_refused() -> None:
    with pytest.raises(UserError, match="hog needs 8 px or more"):
        build_encoder("hog", input_size=7, seed=0)
    with pytest.raises(UserError, match="cells is 1"):
        build_encoder("hog?cells=1", input_size=32, seed=0)


class Two(ImageDataset):
    """Two pictures."""

    spec, classes, annotations, fingerprint = "two", (), frozenset(), "two"

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.splits = images, {}

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.images[index], {}


@pytest.mark.parametrize("spec", ["hog", "pixels"])
def test_a_hidden_region_is_not_seen(spec: str) -> None:
    encoder = build_encoder(spec, input_size=32, seed=0)
    table = np.array([(0, 0.27, 0.3, 0.33, 0.41, -1), (1, 0.7, 0.6, 0.3, 0.4, -1)], dtype=PATCH)
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(3)).byte()
    inside, outside = images.clone(), images.clone()
    inside[0, :, 9:23, 8:20] = 255 - inside[0, :, 9:23, 8:20]  # every pixel that the box touches
    inside[1, :, 19:, 22:] = 255 - inside[1, :, 19:, 22:]
    outside[0, :, 7, 8:20] = outside[1, :, 14:17] = 0
    seen, hidden, shown = (
        describe(encoder, Two(each), table, Regions(mode="contexts", pool=4), stages=[spec])[spec]
        for each in (images, inside, outside)
    )
    np.testing.assert_array_equal(seen, hidden)
    assert (np.abs(seen - shown).max(axis=1) > 1e-3).all()

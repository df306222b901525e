"""Encoders refuse images in another range than they normalise; uint8 images are not looked through."""

from __future__ import annotations

import pytest
import torch

from pretext.encoders import base, build_encoder
from pretext.system.errors import UserError


@pytest.fixture(scope="module")
def encoder():
    return build_encoder("alexnet?width=0.125&stem_stride=2", input_size=32, seed=0).eval()


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.full((2, 3, 32, 32), 255.0), "from 255 to 255"),
        (torch.linspace(-2.1, 2.6, 3 * 32 * 32).view(1, 3, 32, 32), "from -2.1 to 2.6"),
        (torch.full((1, 3, 32, 32), torch.nan), "from nan to nan"),
        (torch.full((1, 3, 32, 32), torch.inf), "from inf to inf"),
        (torch.full((1, 3, 32, 32), 200), "type torch.int64"),
        (torch.ones(1, 3, 32, 32, dtype=torch.bool), "type torch.bool"),
    ],
)
def test_images_in_another_range_are_refused(encoder, images, said):
    with pytest.raises(UserError) as caught:
        encoder.embed(images)
    assert said in str(caught.value) and "give uint8 from 0 to 255 or floats from 0 to 1" in str(caught.value)
    assert str(caught.value).isprintable()


def test_images_in_range_give_the_same_vectors(encoder, monkeypatch):
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    floats = images.float() / 255
    with torch.no_grad():
        assert torch.equal(encoder.embed(images), encoder.embed(floats))
        encoder.embed(floats * 1.0005)
        monkeypatch.setattr(base.torch, "aminmax", lambda _: pytest.fail("uint8 images were looked through"))
        encoder.embed(images)

"""Quarter turns are exact, and the head has to tell them apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pretext.encoders import build_encoder
from pretext.errors import UserError
from pretext.tasks import Batch, build_task
from pretext.tasks.rotation import quarter_turns


def encoder():
    return build_encoder("alexnet?width=0.125&stem_stride=1", input_size=32, seed=0)


def batch(images, seed=0):
    return Batch(images, None, torch.Generator().manual_seed(seed))


def noise(count=8):
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))


def test_quarter_turns_are_numpys_pixel_for_pixel():
    images = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    turned = quarter_turns(images)
    for turns in range(4):
        np.testing.assert_array_equal(turned[turns].numpy(), np.rot90(images.numpy(), turns, axes=(2, 3)))


@pytest.mark.parametrize("rotations", ["all", "one"])
def test_every_label_says_how_its_picture_was_turned(rotations):
    images = noise()
    task = build_task(f"rotation?crop=1&flip=0&rotations={rotations}", encoder(), seed=0)
    turned, labels = task.rotated(batch(images))
    assert len(turned) == (32 if rotations == "all" else 8)
    for i, (view, turns) in enumerate(zip(turned, labels.tolist(), strict=True)):
        expected = np.rot90(images[i % 8].numpy(), turns, axes=(1, 2)) / np.float32(255)
        np.testing.assert_allclose(view.numpy(), expected, atol=1e-6)


def test_all_rotations_are_balanced_and_one_is_drawn():
    every = build_task("rotation", encoder(), seed=0).rotated(batch(noise()))[1]
    assert every.bincount().tolist() == [8, 8, 8, 8]
    one = build_task("rotation?rotations=one", encoder(), seed=0)
    assert set(one.rotated(batch(noise(200)))[1].tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("head", ["linear", "mlp", "conv"])
def test_accuracy_rises_from_chance_where_up_can_be_told_from_down(head):
    images = noise(16) // 4
    images[:, 2, :16] += 150  # a blue sky
    task = build_task(f"rotation?head={head}&hidden=16", encoder(), seed=0)
    optimiser = torch.optim.Adam(task.parameters(), 3e-3)
    for step in range(25):
        for _, loss in task.losses(batch(images, step)):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    assert task.metrics()["accuracy"] > 0.9


def test_an_unknown_head_is_refused():
    with pytest.raises(UserError, match=r"head=deep.*linear, mlp, conv"):
        build_task("rotation?head=deep", encoder(), seed=0)

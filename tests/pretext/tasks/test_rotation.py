"""RotNet: exact quarter turns, their labels, and no trace of interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from task_samples import batch, built, generator, noise, step

import pretext.transforms.augmentation
from pretext.system.errors import UserError
from pretext.tasks.rotation import quarter_turns
from pretext.transforms.augmentation import Augmentation, augment, crop_boxes


def test_quarter_turns_are_numpys_pixel_for_pixel():
    images = torch.rand(2, 3, 5, 5, generator=generator())
    turned = quarter_turns(images)
    for turns in range(4):
        np.testing.assert_array_equal(turned[turns].numpy(), np.rot90(images.numpy(), turns, axes=(2, 3)))


@pytest.mark.parametrize("rotations", ["all", "one"])
def test_every_label_is_its_images_rotation(rotations):
    images = noise(8)
    task = built(f"rotation?crop=1&flip=0&rotations={rotations}")
    turned, labels = task.rotated(batch(images))
    assert len(turned) == (32 if rotations == "all" else 8)
    for i, (view, turns) in enumerate(zip(turned, labels.tolist(), strict=True)):
        expected = np.rot90(images[i % 8].numpy(), turns, axes=(1, 2)) / np.float32(255)
        np.testing.assert_allclose(view.numpy(), expected, atol=1e-6)


def test_all_rotations_are_balanced_and_one_is_drawn():
    every = built("rotation").rotated(batch(noise(8)))[1]
    assert every.bincount().tolist() == [8, 8, 8, 8]
    one = built("rotation?rotations=one")
    assert set(one.rotated(batch(noise(200)))[1].tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_turned_crop_is_a_crop_of_the_turned_picture(monkeypatch, turns):
    """A rotated crop has the same interpolation traces as a crop of the rotated image, so that they reveal nothing."""
    images = noise(8)
    left, top = torch.rand(2, 8, generator=generator(1)) / 8
    side = torch.full((8,), 7 / 8)
    task = built("rotation?rotations=all&flip=0")

    def crop(pictures, left, top):
        monkeypatch.setattr(pretext.transforms.augmentation, "crop_boxes", lambda *_: (left, top, side, side))
        return task.rotated(batch(pictures))[0].view(4, 8, 3, 32, 32)

    turned = crop(images, left, top)[turns]
    for _ in range(turns):  # counter-clockwise: the right edge becomes the top
        left, top = top, 1 - left - side
    upright = crop(torch.rot90(images, turns, dims=(2, 3)), left, top)[0]
    torch.testing.assert_close(turned, upright, atol=1e-5, rtol=0)


def test_crops_are_equally_likely_after_a_rotation():
    crops = built("rotation").crops
    draws = torch.rand(4, 1000, generator=generator(2))
    left, top, width, height = crop_boxes(draws, crops)
    assert torch.equal(width, height) and width.unique().numel() == 1
    other_left, other_top = crop_boxes(torch.stack([draws[0], draws[1], draws[3], 1 - draws[2]]), crops)[:2]
    torch.testing.assert_close(other_left, top)  # equally likely draws, of the box rotated by a quarter turn
    torch.testing.assert_close(other_top, 1 - left - width)


def accuracy_of_sharpness(settings):
    """Return the accuracy of a linear classifier of the rotation of noise, which has no orientation but the crop's.

    Its features are squared differences of neighbouring pixels, averaged over quarters of the image: they show where
    and along which axis interpolation has smoothed pixels.
    """
    seen, labels = [], []
    for number in range(4):
        views = augment(noise(400).roll(number, 3), settings, generator(number))
        for turns, view in enumerate(quarter_turns(views)):
            axes = [view.diff(dim=d)[:, :, :31, :31].square().mean(dim=1, keepdim=True) for d in (2, 3)]
            coarse = [torch.nn.functional.adaptive_avg_pool2d(a, 2).flatten(1) for a in axes]
            seen.append(torch.cat(coarse, dim=1))
            labels.append(torch.full((400,), turns))
    x, y = torch.cat(seen).double(), torch.cat(labels)
    x = torch.cat([(x - x.mean(dim=0)) / x.std(dim=0), torch.ones(len(x), 1)], dim=1)
    half = torch.arange(len(x)) % 400 < 200
    rule = torch.linalg.lstsq(x[half], torch.nn.functional.one_hot(y[half], 4).double()).solution
    return ((x[~half] @ rule).argmax(dim=1) == y[~half]).double().mean().item()


def test_interpolation_does_not_reveal_the_rotation(monkeypatch):
    crops = built("rotation").crops
    assert abs(accuracy_of_sharpness(crops) - 0.25) < 0.04
    # The test can fail: crops that are wider than high reveal the axis, which halves the classes.
    wide = Augmentation(jitter=0, greyscale=0, blur=0)
    box = torch.tensor([[0.0], [0.0], [1.0], [0.6]]).expand(4, 400)
    monkeypatch.setattr(pretext.transforms.augmentation, "crop_boxes", lambda *_: tuple(box))
    assert accuracy_of_sharpness(wide) > 0.45


@pytest.mark.slow
@pytest.mark.parametrize("head", ["linear", "mlp", "conv"])
def test_accuracy_rises_from_chance_on_images_with_a_sky(head):
    images = noise(16) // 4
    images[:, 2, :16] += 150  # a blue sky
    task = built(f"rotation?head={head}&hidden=16")
    optimiser = torch.optim.Adam(task.parameters(), 3e-3)
    for number in range(25):
        step(task, batch(images, number), optimiser)
    assert task.metrics()["accuracy"] > 0.9


def test_an_unknown_head_is_refused():
    with pytest.raises(UserError, match=r"head=deep.*linear, mlp, conv"):
        built("rotation?head=deep")

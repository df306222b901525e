from __future__ import annotations

import io
import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from downstream.corruptions import CORRUPTIONS, SEVERITIES, corrupted, disc, jpeg_quality

NOISES = {"gaussian_noise", "shot_noise", "impulse_noise"}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def flat(value, *, side=56, count=4):
    return torch.full((count, 3, side, side), value, dtype=torch.uint8)


def textured(side, count=3):
    """Smooth images with some detail."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(40, 215, (count, 3, 8, 8))).float()
    smooth = torch.nn.functional.interpolate(coarse, size=side, mode="bilinear")
    return (smooth + torch.from_numpy(rng.normal(0, 12, smooth.shape))).clamp(0, 255).to(torch.uint8)


def off(images, changed):
    return (changed.float() - images.float()).square().mean().sqrt().item()


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("side", [32, 64])
def test_each_severity_changes_more_than_the_one_before(name, side):
    images = textured(side)
    before = images.clone()
    errors = [off(images, corrupted(images, name, severity, seeded())) for severity in SEVERITIES]
    assert torch.equal(images, before)
    assert errors[0] > 1 and all(more > 1.03 * less for less, more in itertools.pairwise(errors))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_generator_alone_decides_and_only_noises_draw(name):
    images = textured(32)
    first, same, other = (corrupted(images, name, 3, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert torch.equal(first, other) == (name not in NOISES)
    assert first.dtype == torch.uint8 and first.shape == images.shape


def test_gaussian_noise_has_its_deviation():
    changed = corrupted(flat(128), "gaussian_noise", 2, seeded())
    assert changed.float().std().item() / 255 == pytest.approx(0.08 * 2 * math.sqrt(56 / 224), rel=0.03)


def test_shot_noise_has_poissons_variance_and_the_gaussian_ones_at_a_half():
    deviations = {}
    for value in (32, 64, 128):
        changed = corrupted(flat(value), "shot_noise", 2, seeded()).float() / 255
        assert changed.mean().item() == pytest.approx(value / 255, abs=0.005)
        deviations[value] = changed.std().item()
    assert deviations[128] == pytest.approx(0.08 * 2 * math.sqrt(56 / 224), rel=0.04)
    assert deviations[32] == pytest.approx(deviations[128] / 2, rel=0.05)


def test_impulse_noise_replaces_its_share_of_values_by_black_and_white_alike():
    changed = corrupted(flat(100), "impulse_noise", 5, seeded())
    black, white = ((changed == value).double().mean().item() for value in (0, 255))
    assert black + white == pytest.approx(0.04 * 5 * math.sqrt(56 / 224), rel=0.06)
    assert black == pytest.approx(white, rel=0.12)
    assert ((changed == 100) | (changed == 0) | (changed == 255)).all()


def test_blur_is_a_mean_over_the_disc():
    images = textured(32, count=1)
    changed = corrupted(images, "defocus_blur", 5, seeded())
    weights = disc(0.5 + 0.05 * 32).numpy()
    reach = len(weights) // 2
    picture = np.pad(images[0].numpy().astype(float), ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    for y, x in ((0, 0), (10, 17), (31, 5)):
        window = picture[:, y : y + len(weights), x : x + len(weights)]
        np.testing.assert_allclose(changed[0, :, y, x].numpy(), (window * weights).sum((1, 2)), atol=0.51)


@pytest.mark.parametrize("radius", [0.5, 0.82, 1.5, 2.1, 11.7])
def test_a_disc_covers_its_area(radius):
    weights = disc(radius)
    assert weights.sum().item() == pytest.approx(1)
    assert 1 / weights.max().item() == pytest.approx(math.pi * radius**2, rel=0.05) or radius < 0.8
    assert torch.equal(weights, weights.T) and torch.equal(weights, weights.flip(0))
    assert radius <= len(weights) / 2 < radius + 1


def test_brightness_and_contrast_by_hand():
    images = textured(32)
    bright = corrupted(images, "brightness", 2, seeded())
    assert torch.equal(bright, (images.float() + 51).round().clamp(0, 255).to(torch.uint8))
    pale = corrupted(images, "contrast", 3, seeded()).double()
    mean = images.double().mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(pale, mean + 0.6**3 * (images - mean), atol=0.51, rtol=0)


def test_jpeg_is_what_a_file_would_hold():
    images = textured(32)
    changed = corrupted(images, "jpeg", 4, seeded())
    for picture, found in zip(images, changed, strict=True):
        file = io.BytesIO()
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=24)
        np.testing.assert_array_equal(found.permute(1, 2, 0).numpy(), np.asarray(Image.open(file)))


@pytest.mark.parametrize(("percent", "quality"), [(0.1, 100), (50, 75), (100, 50), (200, 25), (700, 7), (1e6, 1)])
def test_jpeg_quality_has_the_requested_quantisation_steps(percent, quality):
    assert jpeg_quality(percent) == quality


def test_qualities_step_as_the_library_does():
    def table(quality):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
        return np.array(Image.open(file).quantization[0], dtype=float)

    standard = table(50)
    for percent in (60.0, 130.0, 300.0):
        found = table(jpeg_quality(percent)) / standard
        assert np.median(found) == pytest.approx(percent / 100, rel=0.06)

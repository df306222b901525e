"""Colorization: soft bins, rebalancing and the loss against float64 loops; the encoder's input is grey."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from task_samples import batch, built, generator, noise, scenes, trained

import pretext.modules.cross_channel
from pretext.modules.cross_channel import Bins
from pretext.system.errors import UserError
from pretext.transforms.colour import gamut, rgb_to_lab


def colours(count=60, seed=0):
    """Return values of a and b, mostly near grey, as in photographs."""
    values = 25 * torch.randn(count, 2, generator=generator(seed))
    return values.clamp(-80, 80)


def logits(count=60, bins=313):
    return 3 * torch.randn(count, bins, generator=generator(5))


def dense(values, centres):
    """Return the soft encoding of section 2.1, one value at a time in float64: N×Q."""
    centres = centres.double().numpy()
    distances, indices = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(centres).kneighbors(values.double())
    z = np.zeros((len(values), len(centres)))
    for row, near, found in zip(z, distances, indices, strict=True):
        shares = [math.exp(-(d**2) / (2 * 5.0**2)) for d in near]
        for q, share in zip(found, shares, strict=True):
            row[q] = share / sum(shares)
    return z


def by_hand(prior, centres, uniform):
    """Return the weights of equation 4 and the smoothed prior, bin by bin."""
    centres, q = centres.double().numpy(), len(centres)
    smooth = np.zeros(q)
    for i in range(q):
        kernel = np.exp(-((centres - centres[i]) ** 2).sum(axis=1) / (2 * 5.0**2))
        smooth += prior[i] * kernel / kernel.sum()
    raw = [1 / ((1 - uniform) * p + uniform / q) for p in smooth]
    scale = sum(p * w for p, w in zip(smooth, raw, strict=True))
    return np.array(raw) / scale, smooth


def bins(uniform=0.5):
    return Bins(gamut(), sigma=5.0, uniform=uniform)


def test_colours_are_shared_between_their_five_nearest_bins():
    values = colours(200)
    indices, shares = bins().encode(values)
    found = torch.zeros(200, 313).scatter(1, indices, shares)
    np.testing.assert_allclose(found.numpy(), dense(values, gamut()), atol=2e-3)
    nearest = torch.cdist(values, gamut()).argmin(dim=1)
    assert torch.equal(indices[:, 0], nearest)


@pytest.mark.parametrize("uniform", [0.1, 0.5, 1.0])
def test_weights_are_equation_4(uniform):
    counted = bins(uniform)
    nearest = counted.encode(colours(500))[0][:, 0]
    counted.update_prior(nearest)
    prior = np.bincount(nearest.numpy(), minlength=313) / 500
    np.testing.assert_allclose(counted.prior.numpy(), prior, atol=1e-6)
    expected, smooth = by_hand(prior, gamut(), uniform)
    assert smooth.sum() == pytest.approx(1) and (smooth * expected).sum() == pytest.approx(1)
    np.testing.assert_allclose(counted.weights().numpy(), expected, rtol=1e-4)
    assert uniform == 1 or expected[prior.argmax()] < 1 < expected[prior.argmin()]


def test_the_loss_is_equations_2_and_3():
    values, answers = colours(), logits()
    found = bins().cross_entropy(answers, values)
    z = dense(values, gamut())
    prior = np.bincount(z.argmax(axis=1), minlength=313) / len(z)
    weights, _ = by_hand(prior, gamut(), 0.5)
    for i, row in enumerate(answers.double().numpy()):
        log_probability = row - math.log(np.exp(row).sum())
        expected = -weights[z[i].argmax()] * (z[i] * log_probability).sum()
        assert found[i].item() == pytest.approx(expected, rel=1e-3)


def test_without_rebalancing_a_uniform_prediction_costs_log_of_the_bins():
    loss = bins(uniform=1.0).cross_entropy(torch.zeros(60, 313), colours())
    torch.testing.assert_close(loss, torch.full((60,), math.log(313)))


def test_the_prior_is_the_mean_over_batches_and_is_fixed_outside_of_training():
    counted = bins()
    both = [colours(50, seed) for seed in (1, 2)]
    for values in both:
        counted.cross_entropy(logits(50), values)
    nearest = torch.cdist(torch.cat(both), gamut()).argmin(dim=1)
    expected = nearest.bincount(minlength=313) / 100
    torch.testing.assert_close(counted.prior, expected)
    counted.eval().cross_entropy(logits(50), colours(50, 3))
    torch.testing.assert_close(counted.prior, expected)


def test_the_prior_counts_all_processes(monkeypatch):
    other = torch.zeros(1, 313)
    other[0, 7] = 300
    monkeypatch.setattr(pretext.modules.cross_channel, "gather", lambda rows: torch.cat([rows, other]))
    counted = bins()
    counted.update_prior(torch.tensor([3] * 100))
    assert counted.prior[[3, 7]].tolist() == pytest.approx([0.25, 0.75]) and counted.prior.sum() == pytest.approx(1)


def test_the_prior_is_in_the_checkpoint():
    first, second = (built("colorization") for _ in range(2))
    list(first.losses(batch(noise(4), 1)))
    second.load_state_dict(first.state_dict())
    for task in (first, second):
        list(task.losses(batch(noise(4), 2)))
    assert first.colours.bins.batches == 2
    assert torch.equal(first.colours.bins.prior, second.colours.bins.prior)


@pytest.mark.parametrize("temperature", [1.0, 0.38, 0.05])
def test_a_painted_colour_is_the_annealed_mean(temperature):
    answers = logits(5)
    found = bins().annealed_mean(answers, temperature)
    for row, point in zip(answers.double(), found, strict=True):
        probability = row.softmax(0)
        annealed = np.exp(np.log(probability.numpy()) / temperature)
        expected = annealed @ gamut().numpy() / annealed.sum()
        np.testing.assert_allclose(point.numpy(), expected, rtol=1e-3, atol=1e-3)


def test_the_regression_is_half_the_squared_error():
    task = built("colorization?loss=regression&cell=8").eval()
    channels = torch.rand(2, 2, 32, 32, generator=generator(3)) * 100 - 50
    deepest = task.encoder(noise(2))[-1]
    with torch.no_grad():
        loss = task.colours.loss(deepest, channels).item()
        shown = task.colours.predict(deepest, 4)
    total = 0.0
    for i in range(2):
        for y in range(4):
            for x in range(4):
                truth = channels[i, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8].mean(dim=(1, 2))
                total += 0.5 * float(((shown[i, :, y, x] - truth) / 105).square().sum())
    assert loss == pytest.approx(total / 32, rel=1e-4)


@pytest.mark.parametrize("loss", ["classification", "regression"])
def test_the_encoder_sees_lightness_alone(loss):
    task = built(f"colorization?loss={loss}")
    seen = []
    task.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    list(task.losses(batch(noise(4))))
    (picture,) = seen
    assert (picture.amax(dim=1) - picture.amin(dim=1)).max() < 1e-3
    assert picture.std() > 0.05


def test_a_painted_picture_keeps_its_lightness():
    task = built("colorization").eval()
    images = (noise(4) // 8 + 110).to(torch.uint8)
    columns = task.pictures(batch(images))
    lightness = [rgb_to_lab(columns[name])[:, 0] for name in ("lightness", "painted", "original")]
    for other in lightness[1:]:
        torch.testing.assert_close(other, lightness[0], atol=0.05, rtol=0)


@pytest.mark.parametrize(("spec", "size"), [("timm:resnet18", 32), ("timm:vit_tiny_patch16_224", 64), ("alexnet", 67)])
def test_all_kinds_of_encoders_paint(spec, size):
    pytest.importorskip("timm")
    task = built("colorization?hidden=8", spec, size)
    ((_, loss),) = task.losses(batch(noise(2, size=size)))
    assert torch.isfinite(loss)
    assert task.pictures(batch(noise(2, size=size)))["painted"].shape == (2, 3, size, size)


def test_a_cell_is_no_larger_than_the_picture():
    with pytest.raises(UserError, match=r"cell is 33.*32 px"):
        built("colorization?cell=33")


def constant_answer(task, images):
    """Return the lowest loss of one prediction for all cells: the weighted entropy of the targets."""
    lab = rgb_to_lab(images.float() / 255)[:, 1:]
    cells = torch.nn.functional.adaptive_avg_pool2d(lab, 8).movedim(1, -1).flatten(0, 2)
    nearest, shares = task.colours.bins.encode(cells)
    weight = task.colours.bins.weights()[nearest[:, 0]]
    mass = torch.zeros(313).index_add_(0, nearest.flatten(), (weight[:, None] * shares).flatten()) / len(cells)
    return float(-(mass * (mass / mass.sum()).clamp(min=1e-12).log()).sum())


@pytest.mark.slow
def test_it_learns_more_than_the_distribution_of_colours():
    run = trained("colorization?crop=1", "alexnet?width=0.25&stem_stride=1", steps=120, rate=3e-3)
    chance = constant_answer(run.task, scenes("test"))
    assert run.unseen_loss() < 0.85 * chance, chance

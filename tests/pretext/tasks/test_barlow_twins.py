"""Barlow Twins: the loss against loops and lightly, and its invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from task_samples import assert_two_processes_are_as_one, batch, built, generator, lightly, noise, step, trained

from pretext.tasks.barlow_twins import cross_correlation, terms


def projections(count=12, length=5, seed=0):
    draws = generator(seed)
    return tuple(torch.randn(count, length, generator=draws) for _ in range(2))


def loss_of(z1, z2, redundancy=5e-3):
    first, second = terms(cross_correlation(z1, z2))
    return first + redundancy * second


def by_loops(z1, z2, redundancy):
    """Equations 1 and 2 in float64, one entry at a time."""
    a, b = (z.double().numpy() - z.double().numpy().mean(axis=0) for z in (z1, z2))
    total = 0.0
    for i in range(a.shape[1]):
        for j in range(a.shape[1]):
            norms = math.sqrt(sum(x * x for x in a[:, i])) * math.sqrt(sum(x * x for x in b[:, j]))
            entry = sum(x * y for x, y in zip(a[:, i], b[:, j], strict=True)) / norms
            total += (1 - entry) ** 2 if i == j else redundancy * entry**2
    return total


@pytest.mark.parametrize("redundancy", [5e-3, 1.0])
@pytest.mark.parametrize("count", [3, 40])
def test_the_loss_is_equation_1(count, redundancy):
    z1, z2 = projections(count)
    assert loss_of(z1, z2, redundancy).item() == pytest.approx(by_loops(z1, z2, redundancy), rel=2e-4)


def test_the_loss_is_lightlys(monkeypatch):
    z1, z2 = projections(9, 16)
    expected = lightly(monkeypatch).BarlowTwinsLoss(lambda_param=0.02)(z1, z2).item()
    assert loss_of(z1, z2, 0.02).item() == pytest.approx(expected, rel=1e-5)


def test_scaling_and_shifting_each_feature_changes_nothing():
    z1, z2 = projections()
    scale = torch.tensor([0.3, 1.0, 7.0, 40.0, 2.0])
    for a, b in ((z1 * scale + 3, z2), (z1, z2 * scale.flip(0) - scale), (z1 * scale, z2 * scale)):
        torch.testing.assert_close(cross_correlation(a, b), cross_correlation(z1, z2), atol=2e-4, rtol=0)
    # Not invariant to the sign: a feature negated in one view only has the opposite correlation.
    turned = z2 * torch.tensor([-1.0, 1, 1, 1, 1])
    assert cross_correlation(z1, turned)[0, 0] == pytest.approx(-cross_correlation(z1, z2)[0, 0].item(), abs=1e-6)


def test_each_term_is_zero_alone():
    independent = torch.tensor(hadamard(8)[:, 1:6], dtype=torch.float32)  # centred and uncorrelated
    assert [term.item() for term in terms(cross_correlation(independent, independent))] == pytest.approx(
        [0, 0], abs=1e-6
    )
    invariance, redundancy = terms(cross_correlation(independent, independent.roll(1, dims=1)))
    assert invariance.item() == pytest.approx(5) and redundancy.item() == pytest.approx(5, abs=1e-3)
    copies = independent[:, :1].expand(8, 5)
    invariance, redundancy = terms(cross_correlation(copies, copies))
    assert invariance.item() == pytest.approx(0, abs=1e-6) and redundancy.item() == pytest.approx(20, abs=1e-3)


def test_collapsed_projections_cost_one_per_feature_with_a_finite_gradient():
    z = torch.ones(6, 5, requires_grad=True)
    loss = loss_of(z, z.detach())
    loss.backward()
    assert loss.item() == 5 and torch.isfinite(z.grad).all()


def test_mixed_precision_does_not_round_correlations():
    z1, z2 = projections(16, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = loss_of(z1, z2)
    assert mixed.item() == loss_of(z1, z2).item()


@pytest.mark.parametrize(("encoder", "size"), [("timm:resnet18", 32), ("timm:vit_tiny_patch16_224", 32)])
def test_other_encoders_are_trained_too(encoder, size):
    pytest.importorskip("timm", reason="timm is not installed")
    model = built("barlow_twins?hidden=16&projection=16", encoder, size)
    assert np.isfinite(step(model, batch(noise(4, size=size))))
    assert next(model.encoder.parameters()).grad.abs().sum() > 0


def test_the_second_view_alone_is_solarized():
    settings = "flip=0&jitter=0&greyscale=0&blur=0&other_blur=0&crop_min=1&aspect=1"
    given = batch(noise(8))
    pictures = given.images.float() / 255
    first, second = built(f"barlow_twins?{settings}&other_solarize=1").views(given)
    torch.testing.assert_close(first, pictures)
    torch.testing.assert_close(second, torch.where(pictures >= 0.5, 1 - pictures, pictures), atol=1e-5, rtol=0)


def test_the_terms_are_logged():
    model = built("barlow_twins?hidden=16&projection=8")
    loss = step(model, batch(noise(8)))
    metrics = model.metrics()
    assert metrics["invariance"] + 5e-3 * metrics["redundancy"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one_with_the_joined_batch(tmp_path):
    assert_two_processes_are_as_one(loss_of, tmp_path)


@pytest.mark.slow
def test_views_agree_after_some_steps():
    """At chance the loss is 1 per feature; a random encoder is already a little better."""
    _, losses, metrics = trained("barlow_twins?hidden=128&projection=64", steps=60, rate=2e-3)
    assert np.mean(losses[-10:]) < min(0.6 * 64, 0.7 * losses[0]), losses
    assert metrics[-1]["invariance"] < 0.5 * 64

"""VICReg: each of the three terms against its formula, and the loss against lightly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from task_samples import assert_two_processes_are_as_one, batch, built, generator, lightly, noise, step, trained

from pretext.system.distributed import gather
from pretext.tasks.vicreg import covariance, invariance, variance


def projections(count=12, length=5, seed=0):
    draws = generator(seed)
    return tuple(0.8 * torch.randn(count, length, generator=draws) for _ in range(2))


def loops(z1, z2):
    """Return invariance, and variance and covariance of z1, by equations 1 to 5 in float64, one entry at a time."""
    a, b = z1.double().numpy(), z2.double().numpy()
    n, d = a.shape
    apart = sum((a[i, j] - b[i, j]) ** 2 for i in range(n) for j in range(d)) / (n * d)
    means = [sum(a[:, j]) / n for j in range(d)]
    matrix = [
        [sum((a[k, i] - means[i]) * (a[k, j] - means[j]) for k in range(n)) / (n - 1) for j in range(d)]
        for i in range(d)
    ]
    short = sum(max(0.0, 1 - (matrix[j][j] + 1e-4) ** 0.5) for j in range(d)) / d
    together = sum(matrix[i][j] ** 2 for i in range(d) for j in range(d) if i != j) / d
    return apart, short, together


@pytest.mark.parametrize("count", [2, 3, 40])
def test_each_term_is_its_equation(count):
    z1, z2 = projections(count)
    found = [invariance(z1, z2).item(), variance(z1).item(), covariance(z1).item()]
    assert found == pytest.approx(loops(z1, z2), rel=1e-4)


def test_the_loss_is_lightlys_which_halves_the_variance(monkeypatch):
    z1, z2 = projections(9, 16)
    expected = lightly(monkeypatch).VICRegLoss(lambda_param=25, mu_param=2 * 25, nu_param=1)(z1, z2).item()
    assert loss_of(z1, z2).item() == pytest.approx(expected, rel=1e-5)


def loss_of(z1, z2):
    z1, z2 = gather(z1), gather(z2)
    return 25 * invariance(z1, z2) + 25 * (variance(z1) + variance(z2)) + covariance(z1) + covariance(z2)


INDEPENDENT = torch.tensor(hadamard(8)[:, 1:5], dtype=torch.float32)
"""Four centred, uncorrelated features of standard deviation √(8/7)."""


def test_all_terms_are_zero_together():
    found = [invariance(INDEPENDENT, INDEPENDENT), variance(INDEPENDENT), covariance(INDEPENDENT)]
    assert torch.stack(found).tolist() == pytest.approx([0, 0, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("z1", "z2", "costs"),
    [
        (INDEPENDENT, -INDEPENDENT, "invariance"),
        (0.1 * INDEPENDENT, 0.1 * INDEPENDENT, "variance"),
        (INDEPENDENT[:, [0, 0, 1, 1]], INDEPENDENT[:, [0, 0, 1, 1]], "covariance"),
    ],
)
def test_one_term_costs_alone(z1, z2, costs):
    found = {"invariance": invariance(z1, z2), "variance": variance(z1), "covariance": covariance(z1)}
    assert {name for name, value in found.items() if value > 1e-3} == {costs}


@pytest.mark.parametrize(
    ("z1", "z2", "free"),
    [
        (0.1 * INDEPENDENT[:, [0, 0, 1, 1]], 0.1 * INDEPENDENT[:, [0, 0, 1, 1]], "invariance"),
        (INDEPENDENT[:, [0, 0, 1, 1]], INDEPENDENT[:, [1, 1, 0, 0]], "variance"),
        (0.1 * INDEPENDENT, -0.1 * INDEPENDENT, "covariance"),
    ],
)
def test_one_term_is_free_alone(z1, z2, free):
    found = {"invariance": invariance(z1, z2), "variance": variance(z1), "covariance": covariance(z1)}
    assert {name for name, value in found.items() if value < 1e-6} == {free}


def test_collapse_costs_the_whole_hinge_and_has_a_finite_gradient():
    z = torch.ones(6, 5, requires_grad=True)
    variance(z).backward()
    assert variance(z).item() == pytest.approx(1 - 1e-2) and torch.isfinite(z.grad).all()
    assert covariance(z).item() == 0


def test_a_standard_deviation_above_one_costs_nothing():
    assert variance(INDEPENDENT * 50) == 0
    far = (INDEPENDENT * 50).requires_grad_()
    variance(far).backward()
    assert far.grad.abs().sum() == 0


def test_the_terms_are_logged_and_weighted():
    model = built("vicreg?hidden=16&projection=8&invariance=3&variance=5&covariance=7")
    loss = step(model, batch(noise(8)))
    noted = model.metrics()
    expected = 3 * noted["invariance"] + 5 * noted["variance"] + 7 * noted["covariance"]
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "size"), [("timm:resnet18", 32), ("timm:vit_tiny_patch16_224", 32)])
def test_other_encoders_are_trained_too(encoder, size):
    pytest.importorskip("timm", reason="timm is not installed")
    model = built("vicreg?hidden=16&projection=16", encoder, size)
    assert np.isfinite(step(model, batch(noise(4, size=size))))
    assert next(model.encoder.parameters()).grad.abs().sum() > 0


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one_with_the_joined_batch(tmp_path):
    assert_two_processes_are_as_one(loss_of, tmp_path)


@pytest.mark.slow
def test_the_loss_falls_below_a_collapse_after_some_steps():
    """A collapse has a loss of 25 · 2 · (1 - √ε) = 49.5."""
    _, losses, noted = trained("vicreg?hidden=128&projection=64", steps=60, rate=2e-3)
    assert np.mean(losses[-10:]) < 0.7 * 49.5, losses
    assert noted[-1]["variance"] < 0.5 * 2

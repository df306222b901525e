"""SimSiam: the loss against a loop and lightly, and the stop-gradient."""

from __future__ import annotations

import math

import pytest
import torch
from task_samples import COARSE, SMALL, batch, built, generator, lightly, noise, trained
from torch import nn

from pretext.tasks.simsiam import negative_cosine
from pretext.transforms.views import two_views


def vectors(count=5, length=6, seed=0):
    return torch.randn(count, length, generator=generator(seed))


def simsiam(options="", architecture=SMALL):
    return built(f"simsiam?hidden=32&projection=16&bottleneck=4{options}", architecture)


def cosine_loop(p, z):
    """Return equation 1 in float64, as a mean over images."""
    total = 0.0
    for u, v in zip(p.double().tolist(), z.double().tolist(), strict=True):
        dot = sum(a * b for a, b in zip(u, v, strict=True))
        total -= dot / (math.sqrt(sum(a * a for a in u)) * math.sqrt(sum(b * b for b in v)))
    return total / len(p)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_loss_is_equation_1(count):
    p, z = 3 * vectors(count), vectors(count, seed=1)
    assert negative_cosine(p, z).item() == pytest.approx(cosine_loop(p, z), rel=1e-5)
    assert negative_cosine(p, 2 * p).item() == pytest.approx(-1, rel=1e-6)


def test_the_loss_is_lightlys(monkeypatch):
    p, z = vectors(9), vectors(9, seed=1)
    expected = lightly(monkeypatch).NegativeCosineSimilarity()(p, z).item()
    assert negative_cosine(p, z).item() == pytest.approx(expected, rel=1e-5)


def test_mixed_precision_does_not_round_cosines():
    p, z = vectors(16, 32), vectors(16, 32, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = negative_cosine(p, z)
    assert mixed.item() == negative_cosine(p, z).item()


def test_only_the_prediction_gets_a_gradient():
    p, z = vectors().requires_grad_(), vectors(seed=1).requires_grad_()
    negative_cosine(p, z).backward()
    assert z.grad is None
    for i, j in ((0, 0), (3, 2)):
        values = []
        for change in (1e-5, -1e-5):
            moved = p.detach().double().clone()
            moved[i, j] += change
            values.append(cosine_loop(moved, z.detach()))
        assert p.grad[i, j].item() == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-5)


def two_ways(model, given, *, stopped):
    """Return equation 4, or equation 2, which has gradients through both branches."""
    views = two_views(given.images, model.config, model.config, given.generator)
    z1, z2 = (model.projector(model.encoder.embed(view)) for view in views)
    p1, p2 = model.predictor(z1), model.predictor(z2)
    t1, t2 = (z1.detach(), z2.detach()) if stopped else (z1, z2)
    cosine = nn.functional.cosine_similarity
    return -cosine(p1, t2).mean() / 2 - cosine(p2, t1).mean() / 2, cosine_loop(p1, z2) / 2 + cosine_loop(p2, z1) / 2


def test_the_task_stops_the_gradient_of_both_branches():
    model, stopping, flowing = simsiam(), simsiam(), simsiam()
    found = next(model.losses(batch(noise(8))))[1]
    expected, by_loop = two_ways(stopping, batch(noise(8)), stopped=True)
    assert found.item() == pytest.approx(by_loop, rel=1e-5, abs=1e-6)
    for loss in (found, expected, two_ways(flowing, batch(noise(8)), stopped=False)[0]):
        loss.backward()
    gradients = [torch.cat([p.grad.flatten() for p in one.encoder.parameters()]) for one in (model, stopping, flowing)]
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-3)
    assert (gradients[0] - gradients[2]).norm() > 0.1 * gradients[0].norm()


def test_projector_and_predictor_are_the_papers():
    made = built("simsiam:paper", "alexnet?width=0.125&stem_stride=2", 64)
    linear = [part for part in made.projector if isinstance(part, nn.Linear)]
    assert [part.out_features for part in linear] == [2048] * 3
    assert isinstance(made.projector[-1], nn.BatchNorm1d)  # without a ReLU
    shapes = [(part.in_features, part.out_features) for part in made.predictor if isinstance(part, nn.Linear)]
    assert shapes == [(2048, 512), (512, 2048)]
    assert isinstance(made.predictor[-1], nn.Linear)


@pytest.mark.parametrize("architecture", ["timm:resnet18", "timm:vit_tiny_patch16_224"])
def test_other_architectures_take_a_step(architecture):
    pytest.importorskip("timm", reason="timm is not installed")
    model = simsiam("", architecture)
    loss = next(model.losses(batch(noise(4))))[1]
    loss.backward()
    assert -1 <= loss.item() <= 1
    assert all(p.grad is not None for p in model.players()["task"])


@pytest.mark.slow
def test_it_learns_and_does_not_collapse():
    """At chance prediction and projection are orthogonal: a loss of 0."""
    run = trained("simsiam", COARSE, steps=60)
    losses, spread = run.losses, run.spread()
    assert losses[0] == pytest.approx(0, abs=0.1)
    assert sum(losses[-8:]) / 8 < -0.4 and spread > 0.3, (losses, spread)

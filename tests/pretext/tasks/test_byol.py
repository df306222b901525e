"""BYOL: the loss against a loop and lightly, the momentum encoder, and the stop-gradient."""

from __future__ import annotations

import math

import pytest
import torch
from task_samples import COARSE, SMALL, batch, built, generator, lightly, noise, step, trained
from torch import nn

from pretext.tasks.byol import regression
from pretext.transforms.augmentation import augment
from pretext.transforms.views import two_views


def vectors(count=5, length=6, seed=0):
    return torch.randn(count, length, generator=generator(seed))


def byol(options="", architecture=SMALL):
    return built(f"byol?hidden=32&projection=16{options}", architecture)


def whole_step(model, given, progress):
    loss = step(model, given, torch.optim.SGD(model.players()["task"], 0.1))
    model.after_step(progress)
    return loss


def distance_loop(predicted, target):
    """Equation 2 in float64: the squared distance of the normalised vectors, one number at a time."""
    total = 0.0
    for p, t in zip(predicted.double().tolist(), target.double().tolist(), strict=True):
        p_norm, t_norm = (math.sqrt(sum(a * a for a in x)) for x in (p, t))
        total += sum((a / p_norm - b / t_norm) ** 2 for a, b in zip(p, t, strict=True))
    return total / len(predicted)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_loss_is_equation_2(count):
    p, t = 3 * vectors(count), vectors(count, seed=1)
    assert regression(p, t).item() == pytest.approx(distance_loop(p, t), rel=1e-5)
    assert regression(p, 5 * p).item() == pytest.approx(0, abs=1e-6)
    assert regression(p, -p).item() == pytest.approx(4, rel=1e-6)


def test_the_loss_is_lightlys(monkeypatch):
    p, t = vectors(9), vectors(9, seed=1)
    expected = 2 + 2 * lightly(monkeypatch).NegativeCosineSimilarity()(p, t).item()
    assert regression(p, t).item() == pytest.approx(expected, rel=1e-5)


def test_mixed_precision_does_not_round_cosines():
    p, t = vectors(16, 32), vectors(16, 32, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = regression(p, t)
    assert mixed.item() == regression(p, t).item()


def test_two_views_differ_by_their_settings():
    model = byol("&other_blur=0.3&solarize=0.4")
    assert (model.first.blur, model.first.solarize) == (1, 0.4)
    assert (model.second.blur, model.second.solarize) == (0.3, 0.2)
    images = noise(8)
    made = two_views(images, model.first, model.second, generator(2))
    draws = generator(2)
    for view, settings in zip(made, (model.first, model.second), strict=True):
        assert torch.equal(view, augment(images, settings, draws))
    model = byol("&jitter=0&greyscale=0&crop_min=1&aspect=1&flip=0&solarize=0&other_solarize=1")
    picture, first, second = model.pictures(batch(noise(8))).values()
    torch.testing.assert_close(first, picture)
    torch.testing.assert_close(second, torch.where(first >= 0.5, 1 - first, first))


def test_the_loss_goes_both_ways_and_nothing_flows_through_the_target():
    """The gradient is that of the formula with the target's output as constants."""
    model, twin = byol(), byol()
    found = next(model.losses(batch(noise(8))))[1]
    found.backward()
    given = batch(noise(8))
    v1, v2 = two_views(given.images, twin.first, twin.second, given.generator)
    # At first the target equals the online network, and in training mode its output does too.
    t1, t2 = (twin.projector(twin.encoder.embed(view)).detach() for view in (v1, v2))
    p1, p2 = (twin.predictor(twin.projector(twin.encoder.embed(view))) for view in (v1, v2))
    expected = (2 - 2 * nn.functional.cosine_similarity(p1, t2)).mean()
    expected = expected + (2 - 2 * nn.functional.cosine_similarity(p2, t1)).mean()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert found.item() == pytest.approx(distance_loop(p1, t2) + distance_loop(p2, t1), rel=1e-5)
    theirs = dict(twin.named_parameters())
    for name, parameter in model.named_parameters():
        if name.startswith("target."):
            assert parameter.grad is None and not parameter.requires_grad
        else:
            torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-5, rtol=1e-3)


def test_the_target_is_the_moving_average_with_a_rising_momentum():
    model = byol("&momentum=0.9")
    pairs = [
        *zip(model.target.network.encoder.parameters(), model.encoder.parameters(), strict=True),
        *zip(model.target.network.projector.parameters(), model.projector.parameters(), strict=True),
    ]
    assert {id(target) for target, _ in pairs} == {id(p) for p in model.parameters() if not p.requires_grad}
    for number, progress in enumerate((0.25, 0.5, 1.0)):
        before = [target.double().clone() for target, _ in pairs]
        whole_step(model, batch(noise(8), number), progress)
        share = 1 - (1 - 0.9) * (math.cos(math.pi * progress) + 1) / 2
        for old, (target, online) in zip(before, pairs, strict=True):
            expected = share * old + (1 - share) * online.double()
            torch.testing.assert_close(target.double(), expected, atol=1e-6, rtol=1e-5)
        moved = any(not torch.equal(old, target.double()) for old, (target, _) in zip(before, pairs, strict=True))
        assert moved == (progress < 1)  # at the end the momentum is 1


def test_a_collapse_costs_nothing():
    """The loss alone does not show learning: equal vectors for all images reach its minimum."""
    one = vectors(1).repeat(8, 1)
    assert regression(one, one).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("architecture", ["timm:resnet18", "timm:vit_tiny_patch16_224"])
def test_other_architectures_take_a_step(architecture):
    pytest.importorskip("timm", reason="timm is not installed")
    assert 0 < whole_step(byol("", architecture), batch(noise(4)), 0.5) < 8


@pytest.mark.slow
def test_it_learns_and_does_not_collapse():
    """At chance prediction and target are orthogonal: a loss of 2 in each direction."""
    run = trained("byol", COARSE, steps=60)
    losses, spread = run.losses, run.spread()
    assert losses[0] == pytest.approx(4, abs=0.3)
    assert sum(losses[-8:]) / 8 < 2 and spread > 0.3, (losses, spread)

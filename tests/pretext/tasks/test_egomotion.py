"""Egomotion: the motion between views, measured on ramps, matches its classes; the known shortcuts fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from task_samples import COARSE, batch, built, generator, noise, ramp, trained
from torch import nn

from pretext.system.errors import UserError


def measured(view):
    """Return a window's centre, and the vector along its upper side, in image pixels."""
    xy = 255 * view[:, :2].double() / 4 + 0.5
    size = view.shape[-1]
    along = (xy[..., -1] - xy[..., 0]).mean(dim=2) * size / (size - 1)
    return xy.mean(dim=(2, 3)), along


@pytest.mark.parametrize("spec", ["egomotion", "egomotion?shift=0.107&shifts=5&turn=180&turns=8&crop=0.3"])
def test_the_measured_motion_is_the_one_of_its_classes(spec):
    model = built(spec, size=64)
    config = model.config
    (first, second), classes = model.views(batch(ramp(200)))
    (centre, along), (other, other_along) = measured(first), measured(second)
    side = along.norm(dim=1, keepdim=True)
    torch.testing.assert_close(side, torch.full_like(side, config.crop * 64), rtol=1e-3, atol=0)
    right = along / side
    down = torch.stack([-right[:, 1], right[:, 0]], dim=1)
    for axis, truth in ((right, classes[0]), (down, classes[1])):
        shift = ((other - centre) * axis).sum(1) / side[:, 0]
        by_hand = torch.linspace(-config.shift, config.shift, config.shifts, dtype=torch.float64)[truth]
        torch.testing.assert_close(shift, by_hand, rtol=0, atol=2e-4)
    turn = torch.atan2(
        right[:, 0] * other_along[:, 1] - right[:, 1] * other_along[:, 0], (right * other_along).sum(1)
    ).rad2deg()
    bins = (turn + config.turn) / (2 * config.turn) * config.turns
    off = (bins - classes[2] - 0.5).abs()
    assert (torch.minimum(off, config.turns * (360 / 2 / config.turn) - off) < 0.51).all()
    assert all(set(row.tolist()) == set(range(count)) for row, count in zip(classes, model.bins, strict=True))


def test_views_lie_inside_the_image():
    (first, second), _ = built("egomotion?turn=180", size=64).views(batch(ramp(300)))
    for view in (first, second):
        steps = view[:, :2].diff(dim=3)  # a repeated border would interrupt the ramp
        assert (steps - steps.mean(dim=(2, 3), keepdim=True)).abs().max() < 1e-4


def test_the_first_window_does_not_depend_on_the_classes():
    first, _, classes = built("egomotion").motions(20_000, 64, generator())
    for known in (first.x, first.y, first.turn):
        for answer in classes:
            assert abs(np.corrcoef(known.numpy(), answer.numpy())[0, 1]) < 0.03
    assert first.x.std() > 0.5 and first.turn.std() > 0.2
    for row, count in zip(classes, built("egomotion").bins, strict=True):
        assert row.bincount(minlength=count).float().div(20_000 / count).sub(1).abs().max() < 0.15


def spectrum(views):
    """Return image statistics that do not depend on the positions of objects."""
    grey = views.mean(dim=1)
    window = torch.hann_window(grey.shape[-1])
    waves = torch.fft.rfft2((grey - grey.mean(dim=(1, 2), keepdim=True)) * torch.outer(window, window))
    return (waves.abs().square() + 1e-6).log().flatten(1)


def test_interpolation_reveals_no_shift_but_hints_at_rotations():
    count, known = 2400, 2000
    images = noise(count)
    (first, second), classes = built("egomotion").views(batch(images))
    given = torch.cat([spectrum(first), spectrum(second)], dim=1)
    given = (given - given.mean(dim=0)) / given.std(dim=0)
    answers = classes.T - classes.T.float().mean(dim=0)
    ridge = given[:known].T @ given[:known] + 3000 * torch.eye(given.shape[1])
    guess = given[known:] @ torch.linalg.solve(ridge, given[:known].T @ answers[:known])
    found = [np.corrcoef(guess[:, k].numpy(), answers[known:, k].numpy())[0, 1] for k in range(3)]
    assert max(abs(found[0]), abs(found[1])) < 0.15  # three standard errors
    assert 0.15 < found[2] < 0.6  # not blocked, see the module docstring


def test_the_loss_is_the_mean_of_three_cross_entropies():
    model = built("egomotion")
    images = noise(6)
    _, classes = model.views(batch(images))
    logits = torch.randn(6, 34, generator=generator(2))

    class Answer(nn.Module):
        def forward(self, maps):
            assert len(maps) == 6
            return logits

    model.top = Answer()
    ((_, loss),) = model.losses(batch(images))
    total, right = 0.0, []
    for start, stop, truth in ((0, 7, classes[0]), (7, 14, classes[1]), (14, 34, classes[2])):
        for row, answer in zip(logits[:, start:stop].double().numpy(), truth.tolist(), strict=True):
            total += math.log(np.exp(row).sum()) - row[answer]
        right.append(float(np.mean(logits[:, start:stop].numpy().argmax(1) == truth.numpy())))
    assert loss.item() == pytest.approx(total / 18, rel=1e-5)
    assert list(model.metrics().values()) == pytest.approx(right)


def test_the_top_network_sees_both_views_of_one_image():
    model = built("egomotion")
    images = noise(5)
    (first, second), _ = model.views(batch(images))
    seen = []
    model.top.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.eval()
    list(model.losses(batch(images)))
    maps = [model.encoder(view)[-1].flatten(1) for view in (first, second)]
    torch.testing.assert_close(seen[0], torch.cat(maps, dim=1))


def test_it_works_with_a_resnet_and_windows_that_do_not_fit_are_refused():
    model = built("egomotion", "timm:resnet18")
    ((_, loss),) = model.losses(batch(torch.zeros(3, 3, 32, 32, dtype=torch.uint8)))
    assert torch.isfinite(loss)
    with pytest.raises(UserError, match=r"crop is 0\.6; allowed is from 0\.05 to 0\.495, with shift=0\.2"):
        built("egomotion?crop=0.6")


@pytest.mark.slow
def test_it_learns_on_scenes():
    run = trained("egomotion", COARSE, steps=300, rate=3e-3)
    chance = (2 * math.log(7) + math.log(20)) / 3
    assert np.mean(run.losses[-10:]) < chance - 0.12

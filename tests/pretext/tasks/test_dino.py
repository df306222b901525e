"""DINO: loss and centre against loops and lightly, both collapses, and the momentum teacher."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from task_samples import COARSE, assert_two_processes_are_as_one, batch, built, generator, lightly, noise, step, trained

from pretext.modules.prototypes import cross_view_entropy
from pretext.tasks.dino import DINO, moved_centre, sharpened, teacher_temperature

SMALL = "dino?hidden=16&bottleneck=8&outputs=12&local_crops=2"


def outputs_of(views=2, count=6, outputs=5, seed=0):
    return torch.randn(views, count, outputs, generator=generator(seed))


def by_loops(teacher, student, centre, cold, warm):
    """Return equations 1 and 3 in float64, one pair of views of one image at a time."""
    teacher, student, centre = (x.double().numpy() for x in (teacher, student, centre))
    terms = []
    for t in range(len(teacher)):
        for v in range(len(student)):
            if v != t:
                for b in range(teacher.shape[1]):
                    target = np.exp((teacher[t, b] - centre) / cold)
                    target /= target.sum()
                    answer = np.exp(student[v, b] / warm)
                    terms.append(-(target * np.log(answer / answer.sum())).sum())
    return np.mean(terms)


@pytest.mark.parametrize("views", [2, 5])
def test_the_loss_is_equation_3(views):
    teacher, student, centre = outputs_of() / 4, outputs_of(views, seed=1) / 4, outputs_of(1, 1, seed=2)[0, 0] / 4
    found = cross_view_entropy(sharpened(teacher, centre, torch.tensor(0.07)), student / 0.1).item()
    assert found == pytest.approx(by_loops(teacher, student, centre, 0.07, 0.1), rel=1e-5)


def test_loss_and_centre_are_lightlys_over_several_steps(monkeypatch):
    theirs = lightly(monkeypatch).DINOLoss(output_dim=5, teacher_temp=0.04, student_temp=0.1, center_momentum=0.9)
    centre = torch.zeros(5)
    for number in range(4):
        teacher, student = outputs_of(seed=number) / 4, outputs_of(4, seed=10 + number) / 4
        expected = theirs(list(teacher), list(student)).item()
        found = cross_view_entropy(sharpened(teacher, centre, torch.tensor(0.04)), student / 0.1).item()
        centre = moved_centre(centre, teacher, 0.9)
        assert found == pytest.approx(expected, rel=1e-5)
        torch.testing.assert_close(centre, theirs.center.flatten())


def test_the_centre_is_equation_4_after_three_steps():
    first, second, third = (outputs_of(seed=number) for number in range(3))
    centre = torch.zeros(5)
    for given in (first, second, third):
        centre = moved_centre(centre, given, 0.75)
    means = [given.double().numpy().reshape(-1, 5).mean(axis=0) for given in (first, second, third)]
    expected = 0.25 * (0.75**2 * means[0] + 0.75 * means[1] + means[2])
    np.testing.assert_allclose(centre.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_the_centre_is_updated_with_the_teachers_output():
    model = built(SMALL + "&centre_momentum=0.75")
    seen = []
    model.slow_head.register_forward_hook(lambda module, given, answer: seen.append(answer))
    losses = [step(model, batch(noise(8), number)) for number in range(2)]
    expected = 0.25 * (0.75 * seen[0].mean(dim=0) + seen[1].mean(dim=0))
    torch.testing.assert_close(model.centre, expected)
    noted = model.metrics()
    assert noted["teacher_entropy"] + noted["divergence"] == pytest.approx(losses[1], rel=1e-5)


# Collapse


def test_centring_penalises_one_output_for_all_images():
    """If all images have the same peaked output, the loss is near 0 without a centre, and above chance with it."""
    peaked = torch.zeros(2, 6, 5)
    peaked[..., 3] = 1.0
    never, cold = torch.zeros(5), torch.tensor(0.04)
    assert cross_view_entropy(sharpened(peaked, never, cold), peaked / 0.1).item() < 1e-3
    centre = never
    for _ in range(100):
        centre = moved_centre(centre, peaked, 0.9)
    centred = sharpened(peaked, centre, cold)
    torch.testing.assert_close(centred, torch.full_like(centred, 0.2), atol=1e-3, rtol=0)
    # A uniform prediction of uniform targets costs log K, the minimum; a peaked one costs more.
    assert cross_view_entropy(centred, torch.zeros(2, 6, 5)).item() == pytest.approx(math.log(5), rel=1e-3)
    assert cross_view_entropy(centred, peaked / 0.1).item() > 2 * math.log(5)


@pytest.mark.parametrize(("temperature", "sign"), [(0.04, -1), (0.1, 0), (0.3, 1)])
def test_a_lower_teacher_temperature_sharpens_near_uniform_outputs(temperature, sign):
    """Near the uniform collapse, a lower teacher temperature makes the student's output sharper, an equal one leaves
    it, and a higher one makes it flatter."""
    same = (outputs_of(1) / 100).expand(2, -1, -1)
    scale = torch.ones((), requires_grad=True)
    centred = sharpened(same, same.mean(dim=(0, 1)) * 0, torch.tensor(temperature))
    cross_view_entropy(centred, scale * same / 0.1).backward()
    assert scale.grad.item() * sign >= 0 and (abs(scale.grad.item()) > 1e-4) == (sign != 0)


def test_uniform_outputs_cost_log_k():
    flat = sharpened(torch.zeros(2, 6, 5), torch.zeros(5), torch.tensor(0.04))
    assert cross_view_entropy(flat, torch.zeros(3, 6, 5)).item() == pytest.approx(math.log(5), rel=1e-6)


# The teacher


def test_the_teacher_gets_no_gradient_and_follows():
    model = built(SMALL + "&momentum=0.9")
    step(model, batch(noise(8)))
    slow = [*model.slow_encoder.parameters(), *model.slow_head.parameters()]
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in slow)
    quick = [*model.encoder.parameters(), *model.head.parameters()]
    before = [parameter.clone() for parameter in slow]
    with torch.no_grad():
        for parameter in quick:
            parameter.add_(1)
    model.after_step(0.0)
    for old, new, theirs in zip(before, slow, quick, strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * theirs)
    kept = [parameter.clone() for parameter in slow]
    model.after_step(1.0)  # the momentum is 1 here
    assert all(torch.equal(old, new) for old, new in zip(kept, slow, strict=True))


def test_the_teacher_sees_the_large_crops_alone():
    model, shapes = built(SMALL), []
    model.slow_encoder.network.register_forward_hook(lambda module, given, maps: shapes.append(given[0].shape))
    model.encoder.register_forward_hook(lambda module, given, maps: shapes.append(given[0].shape))
    step(model, batch(noise(4)))
    assert [tuple(shape) for shape in shapes] == [(8, 3, 32, 32), (8, 3, 32, 32), (8, 3, 16, 16)]


def test_the_teachers_temperature_is_linear_then_constant():
    config = DINO.Config(teacher_start=0.04, teacher_temperature=0.07, teacher_warmup=0.3)
    found = [teacher_temperature(config, progress) for progress in (0, 0.1, 0.3, 0.9)]
    assert found == pytest.approx([0.04, 0.05, 0.07, 0.07])
    assert teacher_temperature(DINO.Config(teacher_start=0.02, teacher_warmup=0), 0.0) == 0.04


def test_a_resumed_run_has_centre_temperature_and_last_layer_as_they_were():
    spec = SMALL + "&freeze=0.2&teacher_start=0.02"
    model = built(spec)
    step(model, batch(noise(8)))
    assert model.head.prototypes.weight.grad is None
    model.after_step(0.5)
    resumed = built(spec)
    resumed.load_state_dict(model.state_dict())
    assert resumed.temperature == pytest.approx(0.04) and resumed.centre.abs().sum() > 0
    torch.testing.assert_close(resumed.centre, model.centre)
    step(resumed, batch(noise(8)))
    assert resumed.head.prototypes.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("encoder", "size"), [("timm:resnet18", 32), ("timm:vit_tiny_patch16_224", 64)])
def test_other_encoders_are_trained_too(encoder, size):
    pytest.importorskip("timm", reason="timm is not installed")
    model = built(SMALL, encoder, size)
    assert np.isfinite(step(model, batch(noise(4, size=size))))
    assert next(model.encoder.parameters()).grad.abs().sum() > 0


def joint_loss(z1, z2):
    views = torch.stack([z1, z2])
    centre = moved_centre(torch.zeros(views.shape[2]), views.detach(), 0.5)  # over all processes
    return cross_view_entropy(sharpened(views, centre, torch.tensor(0.1)), views / 0.2)


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one_with_the_joined_batch(tmp_path):
    assert_two_processes_are_as_one(joint_loss, tmp_path)


@pytest.mark.slow
def test_the_student_predicts_the_teachers_output_after_some_steps():
    """The divergence falls below 3/4 of a uniform output's, far from either collapse."""
    _, losses, noted = trained("dino?hidden=128&outputs=64&local_crops=2", COARSE, steps=100, rate=2e-3)
    assert np.mean(losses[-10:]) < 0.97 * math.log(64), losses
    missed = [one["divergence"] / (one["chance"] - one["teacher_entropy"]) for one in noted]
    assert np.mean(missed[-10:]) < 0.75 < missed[0], missed
    assert 0.2 * math.log(64) < noted[-1]["teacher_entropy"] < 0.95 * math.log(64)

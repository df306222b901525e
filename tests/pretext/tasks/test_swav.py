"""SwAV: Sinkhorn and the swapped prediction against loops and lightly, and the frozen prototypes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from task_samples import COARSE, assert_two_processes_are_as_one, batch, built, generator, lightly, noise, step, trained

from pretext.modules.prototypes import Prototypes, cross_view_entropy
from pretext.tasks import task_config, task_training
from pretext.tasks.swav import assigned, sinkhorn


def scores(count=9, prototypes=4, views=None, seed=0):
    draws = generator(seed)
    shape = (count, prototypes) if views is None else (views, count, prototypes)
    return 2 * torch.rand(shape, generator=draws) - 1


def by_loops(given, epsilon, iterations):
    """Return equations 3 to 5 in float64: scale each prototype's sum to 1/K, then each image's to 1/B, repeatedly."""
    q = np.exp(given.double().numpy() / epsilon).T
    q /= q.sum()
    K, B = q.shape
    for _ in range(iterations):
        for k in range(K):
            q[k] /= q[k].sum() * K
        for b in range(B):
            q[:, b] /= q[:, b].sum() * B
    return (q * B).T


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_assignments_are_the_equations(epsilon, iterations):
    found = sinkhorn(scores(), epsilon=epsilon, iterations=iterations)
    np.testing.assert_allclose(found.numpy(), by_loops(scores(), epsilon, iterations), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("count", "prototypes"), [(12, 4), (5, 7)])
def test_both_marginals_are_equal_when_it_has_converged(count, prototypes):
    found = sinkhorn(scores(count, prototypes), epsilon=0.2, iterations=200)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(count))
    torch.testing.assert_close(found.sum(dim=0), torch.full((prototypes,), count / prototypes))


def test_three_iterations_spread_images_that_prefer_one_prototype():
    given = scores(64, 8) / 10
    given[:, 2] += 0.5
    assert (given.argmax(dim=1) == 2).all()
    found = sinkhorn(given, epsilon=0.05, iterations=3)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(64))
    assert (found.sum(dim=0) - 8).abs().max() < 0.5


def test_the_sharpest_assignment_does_not_overflow():
    found = sinkhorn(scores(), epsilon=1e-3, iterations=3)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(9))


def test_assignments_and_loss_are_lightlys(monkeypatch):
    theirs = lightly(monkeypatch, "loss.swav_loss")
    views = scores(views=5)
    targets = torch.stack([assigned(view, epsilon=0.05, iterations=3) for view in views[:2]])
    for target, view in zip(targets, views[:2], strict=True):
        torch.testing.assert_close(target, theirs.sinkhorn(view, iterations=3, epsilon=0.05))
    expected = theirs.SwaVLoss(temperature=0.1)(list(views[:2]), list(views[2:])).item()
    assert cross_view_entropy(targets, views / 0.1).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("views", [2, 5])
def test_every_other_view_predicts_an_assignment(views):
    logits, targets = scores(views=views).double(), scores(views=2, seed=1).double().softmax(dim=2)
    terms = []
    for t in range(2):
        for v in range(views):
            if v != t:
                for b in range(9):
                    log_sum = math.log(sum(math.exp(x) for x in logits[v, b]))
                    terms.append(-sum(q * (x - log_sum) for q, x in zip(targets[t, b], logits[v, b], strict=True)))
    expected = float(sum(terms) / len(terms))
    assert cross_view_entropy(targets, logits).item() == pytest.approx(expected, rel=1e-6)


def test_a_view_alone_has_nothing_to_predict():
    with pytest.raises(ValueError, match="one view"):
        cross_view_entropy(torch.ones(1, 2, 3) / 3, torch.zeros(1, 2, 3))


def test_no_gradient_flows_into_an_assignment():
    views = scores(views=3).requires_grad_()
    targets = torch.stack([assigned(view, epsilon=0.05, iterations=3) for view in views[:2]])
    assert not targets.requires_grad
    cross_view_entropy(views.softmax(dim=2)[:1], torch.stack([views.detach()[0], views[2]])).backward()
    assert views.grad[0].abs().sum() == 0 and views.grad[2].abs().sum() > 0


def test_prototypes_return_cosines_for_any_norms():
    made = Prototypes(5, 3, frozen=False)
    vectors = torch.randn(4, 5, generator=generator())
    expected = [[F.cosine_similarity(v, w, dim=0).item() for w in made.weight] for v in vectors]
    np.testing.assert_allclose(made(vectors).detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    before = made(vectors).detach()
    with torch.no_grad():
        made.weight *= torch.tensor([[0.2], [3.0], [40.0]])
    torch.testing.assert_close(made(vectors * 7), before)


def test_frozen_prototypes_get_no_gradient_but_pass_it_on():
    made, vectors = Prototypes(5, 3, frozen=True), torch.randn(4, 5, requires_grad=True)
    made(vectors).square().sum().backward()
    assert made.weight.grad is None and vectors.grad.abs().sum() > 0
    made.frozen.fill_(False)
    made(vectors).square().sum().backward()
    assert made.weight.grad.abs().sum() > 0


def test_prototypes_are_frozen_for_a_share_of_the_run_also_when_resumed():
    model = built("swav?freeze=0.3&hidden=16&local_crops=1")
    step(model, batch(noise(8)))
    assert model.prototypes.weight.grad is None
    model.after_step(0.29)
    assert model.prototypes.frozen
    model.after_step(0.3)
    resumed = built("swav?freeze=0.3&hidden=16&local_crops=1")
    resumed.load_state_dict(model.state_dict())
    step(resumed, batch(noise(8)))
    assert resumed.prototypes.weight.grad.abs().sum() > 0


def test_a_chance_prediction_costs_log_of_the_prototypes():
    model = built("swav?hidden=16&prototypes=50&local_crops=2")
    targets = torch.stack([sinkhorn(view, epsilon=0.05, iterations=3) for view in scores(9, 50, views=2)])
    uniform = cross_view_entropy(targets, torch.zeros(4, 9, 50)).item()
    assert uniform == pytest.approx(math.log(50), rel=1e-5)
    assert model.metrics()["chance"] == pytest.approx(uniform, rel=1e-5)


def test_metrics_are_of_the_assignments_that_were_predicted():
    model, seen = built("swav?hidden=16&prototypes=5&local_crops=1"), []
    model.prototypes.register_forward_hook(lambda module, given, cosines: seen.append(cosines.detach().view(3, 8, 5)))
    loss = step(model, batch(noise(8)))
    targets = np.stack([by_loops(view, 0.05, 3) for view in seen[0][:2]])
    shares = targets.mean(axis=(0, 1))
    noted = model.metrics()
    assert noted["prototypes_used"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-4)
    entropy = -(targets * np.log(np.maximum(targets, 1e-12))).sum(axis=2).mean()
    assert noted["divergence"] == pytest.approx(loss - entropy, rel=1e-3)


@pytest.mark.parametrize(("encoder", "size"), [("timm:resnet18", 32), ("timm:vit_tiny_patch16_224", 64)])
def test_other_encoders_are_trained_too(encoder, size):
    pytest.importorskip("timm", reason="timm is not installed")
    model = built("swav?hidden=16&local_crops=1", encoder, size)
    assert np.isfinite(step(model, batch(noise(4, size=size))))
    assert next(model.encoder.parameters()).grad.abs().sum() > 0


def joint_loss(z1, z2):
    views = torch.stack([F.normalize(z, dim=1) for z in (z1, z2)])
    targets = torch.stack([assigned(view, epsilon=0.05, iterations=3) for view in views])
    return cross_view_entropy(targets, views / 0.1)


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one_with_the_joined_batch(tmp_path):
    assert_two_processes_are_as_one(joint_loss, tmp_path)


@pytest.mark.slow
def test_assignments_are_predicted_after_some_steps():
    """The divergence falls below 0.7 of a uniform prediction's."""
    _, losses, noted = trained("swav?hidden=128&prototypes=32&local_crops=2", COARSE, steps=80, rate=2e-3)
    assert np.mean(losses[-10:]) < 0.95 * math.log(32) < losses[0], losses
    apart = [one["divergence"] for one in noted]
    missed = [here / (math.log(32) - loss + here) for loss, here in zip(losses, apart, strict=True)]
    assert np.mean(missed[-10:]) < 0.7 and missed[0] > 1, missed
    assert noted[-1]["prototypes_used"] > 16


def test_fewer_images_than_prototypes_are_warned_of():
    model = built("swav?prototypes=12&hidden=16&local_crops=1", COARSE)
    assert model.warning() is None
    step(model, batch(noise(8)))
    assert model.warning().startswith("8 images at a time are assigned to 12 prototypes")
    step(model, batch(noise(12)))
    assert model.warning() is None


def test_the_papers_batch_holds_more_images_than_its_prototypes():
    assert task_training("swav:paper")["batch_size"] == 4096 > task_config("swav:paper").prototypes

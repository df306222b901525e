from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from probe_samples import colours, small_encoder
from sklearn.linear_model import LogisticRegression

from downstream.features import Features
from downstream.probes.linear import Linear, minimise, objective, principal

pytestmark = pytest.mark.usefixtures("own_cache")


def problem(seed, *, n, d, classes, noise):
    """Features of three very different scales, and labels that depend on them."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d)) * rng.choice([0.01, 1, 100], d) + rng.normal(size=d)
    standard = (features - features.mean(0)) / features.std(0)
    logits = standard @ np.random.default_rng(99).normal(size=(d, classes)) / d**0.5
    return features.astype(np.float32), (logits + noise * rng.gumbel(size=logits.shape)).argmax(1)


@pytest.mark.parametrize("penalty", [1.0, 0.1, 0.01, 0.001])
def test_the_default_number_of_iterations_is_enough_for_scikit_learns_answers(penalty):
    features, labels = problem(0, n=400, d=300, classes=10, noise=0.3)
    probe = Linear(penalties=(penalty,))
    inputs, targets = torch.from_numpy(features), torch.from_numpy(labels)
    classifier, _ = probe.fit(inputs[:300], targets[:300], inputs[300:], targets[300:], 10)
    mean, scale = features[:300].mean(0), features[:300].std(0)
    theirs = LogisticRegression(C=1 / (300 * penalty), tol=1e-8, max_iter=3000)
    theirs.fit((features[:300] - mean) / scale, labels[:300])
    ours = classifier(inputs[300:]).argmax(1).numpy()
    agreed = (ours == theirs.predict((features[300:] - mean) / scale)).mean()
    assert agreed >= 0.98
    assert abs((ours == labels[300:]).mean() - theirs.score((features[300:] - mean) / scale, labels[300:])) <= 0.02


def test_several_classes_are_as_many_problems_of_two():
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(150, 8))
    targets = (inputs @ rng.normal(size=(8, 3)) + rng.normal(size=(150, 3)) > 0).astype(np.int64)
    targets[:20, 1] = -1
    parts = torch.from_numpy(inputs), torch.from_numpy(targets), 3
    weight, bias = next(minimise(*parts, penalties=[0.02], iterations=500, tolerance=1e-10))
    for k in range(3):
        known = targets[:, k] >= 0
        theirs = LogisticRegression(C=1 / (150 * 0.02), tol=1e-10, max_iter=5000)
        theirs.fit(inputs[known], targets[known, k])
        np.testing.assert_allclose(weight[k].numpy(), theirs.coef_[0], atol=2e-3)
        assert bias[k].item() == pytest.approx(theirs.intercept_[0], abs=2e-3)


@pytest.mark.parametrize("multi", [False, True])
def test_the_gradient_is_the_formula(multi):
    rng = np.random.default_rng(2)
    inputs, start = rng.normal(size=(20, 4)), rng.normal(size=(3, 4))
    targets = rng.integers(-1, 2, (20, 3)) if multi else rng.integers(0, 3, 20)
    weight = torch.tensor(start, requires_grad=True)
    logits = torch.from_numpy(inputs) @ weight.T
    objective(logits, torch.from_numpy(targets), weight, 0.3).backward()
    values = inputs @ start.T
    if multi:
        off = np.where(targets >= 0, 1 / (1 + np.exp(-values)) - targets, 0)
    else:
        off = np.exp(values) / np.exp(values).sum(1, keepdims=True) - np.eye(3)[targets]
    np.testing.assert_allclose(weight.grad.numpy(), off.T @ inputs / 20 + 0.3 * start, rtol=1e-9)


def test_the_penalty_is_the_one_that_does_best_on_val(monkeypatch):
    exactly = functools.partial(minimise, tolerance=1e-12)  # where a penalty starts from does not matter then
    monkeypatch.setattr("downstream.probes.linear.minimise", exactly)
    features, labels = problem(3, n=200, d=120, classes=4, noise=1.0)
    inputs, targets = torch.from_numpy(features).double(), torch.from_numpy(labels)
    parts = inputs[:100], targets[:100], inputs[100:], targets[100:]
    singly = {p: Linear(penalties=(p,), iterations=300).fit(*parts, 4)[1] for p in (3.0, 0.3, 1e-4)}
    _, reached = Linear(penalties=tuple(singly), iterations=300).fit(*parts, 4)
    assert len({round(value) for value in singly.values()}) > 1
    assert reached == pytest.approx(max(singly.values()), abs=1e-3)


def test_a_feature_that_never_changes_does_no_harm():
    features, labels = problem(4, n=60, d=5, classes=3, noise=0.1)
    features[:, 2] = 7
    inputs, targets = torch.from_numpy(features), torch.from_numpy(labels)
    classifier, reached = Linear().fit(inputs, targets, inputs, targets, 3)
    assert np.isfinite(reached) and classifier(inputs).isfinite().all()


def test_several_classes_a_picture_end_to_end():
    data = colours(multi=True, train=80)
    scores = list(Linear(train_images=0, penalties=(0.1,), iterations=20, features=64).evaluate(small_encoder(), data))
    assert [score.metric for score in scores] == ["mAP"] * 6
    headline = next(score for score in scores if score.headline)
    assert headline.n == 40 and headline.value > headline.chance + 20


def test_a_seed_draws_other_pictures():
    data = colours(learnable=False, train=200)
    probe, encoder = Linear(train_images=30, penalties=(0.1,), features=64), small_encoder()
    first, other = ([s.value for s in replace(probe, seed=seed).evaluate(encoder, data)] for seed in (0, 1))
    assert first != other


def wide(seed, *, n, d, classes, multi=False):
    """Standardised float32 features with a steep spectrum, and noisy labels."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 60)) / np.arange(1, 61) ** 0.7
    features = hidden @ rng.normal(size=(60, d)) + 0.1 * rng.normal(size=(n, d))
    features = ((features - features.mean(0)) / features.std(0)).astype(np.float32)
    logits = 8 * hidden @ rng.normal(size=(60, classes)) + rng.gumbel(size=(n, classes))
    labels = (logits > 1).astype(np.int64) if multi else logits.argmax(1)
    return torch.from_numpy(features), torch.from_numpy(labels)


@pytest.mark.parametrize("penalty", [0.1, 0.001])
@pytest.mark.parametrize("multi", [False, True])
def test_it_ends_about_as_near_to_the_minimum_as_it_says(penalty, multi, monkeypatch):
    inputs, targets = wide(5, n=600, d=300, classes=5, multi=multi)
    passes = []

    def counting(*args):
        passes.append(1)
        return objective(*args)

    def value(weight, bias):
        return objective(inputs.double() @ weight.T.double() + bias.double(), targets, weight.double(), penalty).item()

    best = value(*next(minimise(inputs.double(), targets, 5, penalties=[penalty], iterations=2000, tolerance=1e-14)))
    if not multi:
        theirs = LogisticRegression(C=1 / (600 * penalty), tol=1e-9, max_iter=5000)
        theirs.fit(inputs.double().numpy(), targets.numpy())
        assert best == pytest.approx(
            value(torch.from_numpy(theirs.coef_), torch.from_numpy(theirs.intercept_)), abs=1e-7
        )
    monkeypatch.setattr("downstream.probes.linear.objective", counting)
    for tolerance in (1e-3, 1e-5):
        passes.clear()
        found = value(*next(minimise(inputs, targets, 5, penalties=[penalty], iterations=100, tolerance=tolerance)))
        assert best - 1e-6 <= found <= best + 30 * tolerance  # the estimate is rough
        assert len(passes) < 60
    plain = torch.optim.LBFGS(
        [w := torch.zeros(5, 300, requires_grad=True)], max_iter=len(passes), max_eval=len(passes)
    )

    def closure():
        plain.zero_grad()
        loss = objective(inputs @ w.T, targets, w, penalty)
        loss.backward()
        return loss

    plain.step(closure)
    assert value(w.detach(), torch.zeros(5)) > found + tolerance  # the same number of passes without preconditioner


def test_principal_directions_are_the_covariances():
    inputs, _ = wide(6, n=200, d=40, classes=2)
    vectors, variances = principal(inputs)
    values, axes = np.linalg.eigh(inputs.double().numpy().T @ inputs.double().numpy() / 200)
    np.testing.assert_allclose(variances.numpy(), values[::-1], rtol=1e-3)
    np.testing.assert_allclose(np.abs(vectors[:, :5].numpy().T @ axes[:, ::-1][:, :5]), np.eye(5), atol=5e-3)


@pytest.mark.parametrize("multi", [False, True])
def test_a_penalty_starts_from_the_solution_before_without_a_pass_over_the_data(multi, monkeypatch):
    inputs, targets = wide(7, n=300, d=100, classes=4, multi=multi)
    passes = []
    monkeypatch.setattr("downstream.probes.linear.objective", lambda *args: passes.append(1) or objective(*args))
    rough = minimise(inputs.double(), targets, 4, penalties=[0.1, 0.1, 0.05], iterations=200, tolerance=1e-12)
    first, again, other = ((solution, len(passes)) for solution in rough)
    assert all(torch.equal(*pair) for pair in zip(first[0], again[0], strict=True)) and first[1] == again[1] < other[1]
    alone = next(minimise(inputs.double(), targets, 4, penalties=[0.05], iterations=200, tolerance=1e-12))
    np.testing.assert_allclose(other[0][0].numpy(), alone[0].numpy(), atol=1e-4)


def test_inputs_that_do_not_vary_are_no_trouble():
    weight, bias = next(minimise(torch.zeros(12, 3), torch.arange(12) % 2, 2, penalties=[0.0], iterations=10))
    assert weight.abs().max() == 0 and bias.isfinite().all()


@pytest.mark.parametrize("penalties", [(), (-1.0,), (float("nan"),), (float("inf"),)])
def test_penalties_out_of_range_are_named(penalties):
    with pytest.raises(ValueError, match="penalties are"):
        Linear(penalties=penalties)


@pytest.mark.parametrize(
    ("on_val", "kept"), [([5.0, 9.0, 7.0], 1), ([9.0, 5.0, 7.0], 0), ([5.0, 7.0, 9.0], 2), ([float("nan")] * 3, 0)]
)
def test_the_penalty_that_does_best_on_val_is_kept_and_the_largest_where_val_says_nothing(monkeypatch, on_val, kept):
    reached, tried = iter(on_val), []

    def solved(inputs, targets, classes, *, penalties, iterations):
        for penalty in penalties:
            tried.append(penalty)
            yield torch.full((classes, inputs.shape[1]), penalty), torch.zeros(classes)

    monkeypatch.setattr("downstream.probes.linear.minimise", solved)
    monkeypatch.setattr("downstream.probes.linear.quality", lambda *_: next(reached))
    features, targets = torch.rand(8, 3, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2
    classifier, best = Linear(penalties=(1.0, 0.1, 0.01)).fit(features, targets, features, targets, 2)
    assert tried == [1.0, 0.1, 0.01]
    assert (classifier.weight == tried[kept]).all() and (best == on_val[kept] or best != best)


@pytest.mark.parametrize(
    ("on_val", "chosen"), [([10.0, 30.0, 20.0], "b"), ([float("nan"), 10.0, 5.0], "b"), ([float("nan")] * 3, "c")]
)
def test_the_stage_that_does_best_on_val_is_chosen_and_the_deepest_where_val_says_nothing(monkeypatch, on_val, chosen):
    reached = iter(on_val)
    monkeypatch.setattr(Linear, "fit", lambda *_: (None, next(reached)))
    part = Features(
        {stage: torch.zeros(4, 2) for stage in "abc"}, torch.arange(4) % 2, torch.arange(4), torch.arange(4) % 2
    )
    assert Linear().classifiers(part, part, 2)[1] == chosen

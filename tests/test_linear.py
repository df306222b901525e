from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from probe_samples import colours, small_encoder
from sklearn.linear_model import LogisticRegression

from downstream.probes.linear import Linear, minimise, objective


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRETEXT_CACHE", str(tmp_path / "cache"))


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
    weight, bias = minimise(
        torch.from_numpy(inputs),
        torch.from_numpy(targets),
        torch.zeros(3, 8, dtype=torch.float64),
        torch.zeros(3, dtype=torch.float64),
        penalty=0.02,
        iterations=500,
    )
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


def test_the_penalty_is_the_one_that_does_best_on_val():
    features, labels = problem(3, n=200, d=120, classes=4, noise=1.0)
    inputs, targets = torch.from_numpy(features), torch.from_numpy(labels)
    parts = inputs[:100], targets[:100], inputs[100:], targets[100:]
    singly = {p: Linear(penalties=(p,), iterations=300).fit(*parts, 4)[1] for p in (3.0, 0.3, 1e-4)}
    _, reached = Linear(penalties=tuple(singly), iterations=300).fit(*parts, 4)
    assert len({round(value) for value in singly.values()}) > 1
    assert reached == pytest.approx(max(singly.values()), abs=1.5)


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
    data = colours(told=False, train=200)
    probe, encoder = Linear(train_images=30, penalties=(0.1,), features=64), small_encoder()
    first, other = ([s.value for s in replace(probe, seed=seed).evaluate(encoder, data)] for seed in (0, 1))
    assert first != other

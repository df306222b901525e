"""Scores of classification and their chance, against scikit-learn and by simulation."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from probe_samples import Colours, colours, small_encoder
from sklearn.dummy import DummyClassifier
from sklearn.metrics import average_precision_score, balanced_accuracy_score

import downstream.probes
from downstream.__main__ import table
from downstream.classification import (
    CLASS_MEAN,
    chance_of_top,
    check_classes,
    classification_scores,
    mean_class_accuracy,
)
from downstream.label_sampling import every_metric_over_samples
from downstream.probes.linear import Linear
from pretext.judging import Score, probes_in
from pretext.system.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

QUICK = {
    "train_images": 20,
    "val_images": 10,
    "test_images": 0,
    "steps": 1,
    "batch_size": 4,
    "iterations": 3,
    "penalties": (1.0,),
    "costs": (1.0,),
    "features": 64,
    "shots": (1,),
    "samples": 1,
    "percents": (20.0,),
}
PROBES = {
    name: probe
    for name, probe in probes_in(downstream.probes).items()
    if frozenset({"label"}) in probe.needs and frozenset() not in probe.needs
}


def labels_of(*counts):
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


class Skewed(Colours):
    """Nine of ten images show the last class."""

    def __getitem__(self, index):
        image, _ = super().__getitem__(index)
        return image, {"label": torch.tensor(2 if index % 10 else index // 10 % 2)}


def skewed(train=50, test=20):
    splits = {"train": Skewed("train", train), "val": Skewed("val", 10), "test": Skewed("test", test)}
    for part in splits.values():
        part.splits = splits
    return splits["train"]


def test_chance_of_top1_is_scikit_learns_most_frequent_guess():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        training = rng.choice(5, 300, p=[0.1, 0.3, 0.05, 0.45, 0.1])
        tested = rng.choice(5, 70, p=[0.1, 0.2, 0.1, 0.5, 0.1])
        guess = DummyClassifier(strategy="most_frequent").fit(np.zeros((300, 1)), training)
        expected = 100 * guess.score(np.zeros((70, 1)), tested)
        found = chance_of_top(1, torch.from_numpy(tested), torch.from_numpy(training), classes=5)
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("k", range(1, 6))
def test_chance_of_topk_is_the_mean_over_all_orders_of_equally_frequent_classes(k):
    counts, tested = [6, 3, 3, 3, 0], np.array([0] * 9 + [1] * 2 + [2] * 5 + [4])
    every = []
    for order in itertools.permutations(range(5)):
        guessed = sorted(order, key=lambda c: -counts[c])[:k]  # a stable sort: `order` breaks ties
        every.append(100 * np.isin(tested, guessed).mean())
    found = chance_of_top(k, torch.from_numpy(tested), labels_of(*counts), classes=5)
    assert found == pytest.approx(np.mean(every))


def test_200_to_3_is_not_a_half():
    found = chance_of_top(1, labels_of(200, 3), labels_of(200, 3), classes=2)
    assert found == pytest.approx(100 * 200 / 203)
    assert chance_of_top(5, labels_of(200, 3), labels_of(200, 3), classes=2) == 100


@pytest.mark.parametrize("classes", [2, 3, 7, 10, 37, 100, 1000])
def test_chance_in_balanced_data_is_the_same_number_as_ever(classes):
    skew = torch.arange(classes).repeat(2)[: classes + 1]
    for k, images in itertools.product((1, min(5, classes)), (1, 3, 7)):
        balanced = torch.arange(classes).repeat(images)
        for training, tested in ((balanced, balanced), (balanced, skew), (skew, balanced)):
            assert chance_of_top(k, tested, training, classes=classes) == 100 * k / classes


def test_chance_is_never_below_guessing_at_random():
    """Classes of two images each: training has most of those of which test has none."""
    training, tested = torch.tensor([0, 0, 1, 1, 2, 3]), torch.tensor([2, 3, 4, 4])
    assert chance_of_top(1, tested, training, classes=5) == 20


def test_the_mean_over_classes_is_scikit_learns_balanced_accuracy():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        tested = np.append(
            [0, 1, 4], rng.choice([0, 1, 4], 57, p=[0.8, 0.15, 0.05])
        )  # classes 2, 3 and 5 are not tested
        predicted = np.where(rng.random(60) < 0.5, tested, rng.choice([0, 1, 4], 60))
        expected = 100 * balanced_accuracy_score(tested, predicted)
        assert mean_class_accuracy(torch.from_numpy(predicted), torch.from_numpy(tested)) == pytest.approx(expected)
    wrong = torch.tensor([5, 3, 1, 1])  # a predicted class that is not tested has no recall of its own
    assert mean_class_accuracy(wrong, torch.tensor([0, 0, 1, 1])) == 50


def test_scores_by_hand():
    scores = torch.eye(6)
    targets = torch.tensor([0, 1, 2, 3, 4, 4])
    top1, top5, mean = classification_scores(scores, targets, training=torch.arange(6))
    assert (top1.metric, top5.metric, mean.metric) == ("top1", "top5", CLASS_MEAN)
    assert top1.value == pytest.approx(500 / 6) and top1.items.mean() == top1.value
    assert top1.chance == 100 / 6 and top5.chance == 500 / 6
    assert mean.value == pytest.approx(100 * (4 + 1 / 2) / 5) and mean.items is None
    assert mean.chance == 20  # five classes are tested


def test_unknown_classes_count_nowhere():
    scores = torch.tensor([[2.0, 1], [1, 2], [2, 1], [2, 1]])
    some = classification_scores(scores, torch.tensor([0, 1, -1, 1]), training=torch.tensor([0, -1, -1, -1, 1, 1]))
    known = classification_scores(scores[[0, 1, 3]], torch.tensor([0, 1, 1]), training=torch.tensor([0, 1, 1]))
    assert [(s.value, s.chance, s.n) for s in some] == [(s.value, s.chance, s.n) for s in known]
    with pytest.raises(UserError, match="photos: no test image has a class"):
        classification_scores(scores, torch.full((4,), -1), spec="photos")


def test_chance_is_left_out_where_the_training_labels_are_not_given():
    assert classification_scores(torch.eye(2), torch.arange(2))[0].chance is None


def test_chance_of_map_is_scikit_learns_of_one_score_for_all():
    rng = np.random.default_rng(0)
    targets = rng.integers(-1, 2, (80, 4))
    expected = [average_precision_score(column[column >= 0], np.zeros((column >= 0).sum())) for column in targets.T]
    (score,) = classification_scores(torch.from_numpy(rng.normal(size=(80, 4))), torch.from_numpy(targets))
    assert score.chance == pytest.approx(100 * np.mean(expected))


@pytest.mark.parametrize("name", PROBES)
def test_every_probe_knows_that_classes_are_unbalanced(name):
    """Also where it trains on a balanced draw or a sample of a few of each class."""
    fields = {field.name for field in dataclasses.fields(PROBES[name])}
    probe = PROBES[name](**{key: value for key, value in QUICK.items() if key in fields})
    scores = list(probe.evaluate(small_encoder(), skewed()))
    top1 = [score for score in scores if "top1" in score.metric and not score.metric.endswith(" sd")]
    assert all(score.chance == 90 for score in top1)
    means = {score.metric.replace(CLASS_MEAN, "top1") for score in scores if CLASS_MEAN in score.metric}
    assert means == {score.metric for score in scores if "top1" in score.metric}
    for score in scores:
        if CLASS_MEAN in score.metric and not score.metric.endswith(" sd"):
            assert score.chance == pytest.approx(100 / 3) and score.items is None and not score.headline
    errors = [score for score in scores if score.metric.endswith(("error", "mCE"))]
    assert top1 or errors
    assert all(score.chance == 10 for score in errors)


def test_every_metric_but_top5_is_averaged_over_samples():
    samples = [
        [Score(metric, value + i, "%", True, 10.0, 3) for i, metric in enumerate(("top1", "top5", CLASS_MEAN))]
        for value in (10.0, 20.0)
    ]
    found = {score.metric: score.value for score in every_metric_over_samples(samples, "tuned {}@1%")}
    deviation = pytest.approx(50**0.5)
    expected = {"top1@1%": 15.0, "top1@1% sd": deviation, f"{CLASS_MEAN}@1%": 17.0, f"{CLASS_MEAN}@1% sd": deviation}
    assert found == {f"tuned {metric}": value for metric, value in expected.items()}


def test_the_printed_table_lines_up_under_long_names():
    scores = [Score(metric, 5.0, "%", True, 10.0, 3) for metric in ("top1", CLASS_MEAN)]
    head, *lines = table(scores).splitlines()
    assert {len(line) for line in lines} == {len(head)} and CLASS_MEAN in lines[1]
    assert table([]).startswith("  stage")


def test_the_setting_that_drew_too_few_pictures_is_named():
    one = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(UserError, match=r"1 training images show fewer than two classes; give more data$"):
        check_classes("x", one)
    with pytest.raises(UserError, match=r"fewer than two classes; raise train_images, or give more data$"):
        check_classes("x", one, drawn=True)
    with pytest.raises(UserError, match="raise train_images"):
        list(Linear(train_images=1).evaluate(small_encoder(), colours(train=30)))

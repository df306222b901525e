"""Supervised: the two cross-entropies against their definitions, and the need for labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from task_samples import SMALL, generator, noise, step

from pretext.encoders import build_encoder
from pretext.system.errors import UserError
from pretext.tasks import Batch, LabelKind, build_task
from pretext.tasks.supervised import many_class_loss, one_class_loss


def built(labels, spec="supervised"):
    encoder = build_encoder(SMALL, input_size=32, seed=0)
    return build_task(spec, encoder, labels=labels, seed=0)


def batch(labels, seed=0):
    return Batch(noise(len(labels), seed=seed), labels, generator(seed))


def logits(rows, classes):
    return torch.randn(rows, classes, generator=generator(1), dtype=torch.float64)


def test_one_class_loss_is_minus_the_log_of_the_softmax_over_known_labels():
    scores, labels = logits(5, 3), [2, -1, 0, 1, -1]
    terms = []
    for row, label in zip(scores.tolist(), labels, strict=True):
        if label >= 0:
            terms.append(-math.log(math.exp(row[label]) / sum(math.exp(x) for x in row)))
    assert one_class_loss(scores, torch.tensor(labels)).item() == pytest.approx(sum(terms) / 3, rel=1e-12)


def test_many_class_loss_is_the_mean_over_known_entries():
    scores = logits(4, 3)
    labels = np.array([[1, 0, -1], [-1, -1, -1], [0, 0, 1], [1, 1, 0]])
    terms = []
    for i, j in np.argwhere(labels >= 0):
        probability = 1 / (1 + math.exp(-scores[i, j].item()))
        terms.append(-math.log(probability if labels[i, j] else 1 - probability))
    expected = sum(terms) / len(terms)
    assert many_class_loss(scores, torch.from_numpy(labels)).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("unknown", [torch.full((3,), -1), torch.full((3, 4), -1)])
def test_a_batch_without_known_labels_has_no_gradient(unknown):
    scores = logits(3, 4).requires_grad_()
    loss = (one_class_loss if unknown.ndim == 1 else many_class_loss)(scores, unknown)
    loss.backward()
    assert loss.item() == 0 and not scores.grad.any()


@pytest.mark.parametrize("labels", [None, LabelKind(0, False)])
def test_without_classes_the_error_names_the_annotations(labels):
    with pytest.raises(UserError, match=r"^supervised: .*data set must annotate label or labels"):
        built(labels)


def test_a_batch_without_labels_is_refused():
    task = built(LabelKind(3, False))
    bare = batch(torch.zeros(2))._replace(labels=None)
    with pytest.raises(ValueError, match="must annotate label or labels"):
        next(task.losses(bare))


@pytest.mark.parametrize("many", [False, True])
def test_it_learns_its_labels(many):
    labels = torch.tensor([0, 1, 2, 0, 1, 2, -1, 1])
    if many:
        labels = torch.nn.functional.one_hot(labels.clamp(min=0), 3)
        labels[6] = -1
    task = built(LabelKind(3, many), "supervised?crop_min=0.9")
    optimiser = torch.optim.Adam(task.players()["task"], 3e-3)
    for _ in range(40):
        step(task, batch(labels), optimiser)
    assert task.metrics()["accuracy"] == 1


def test_accuracy_counts_known_labels_only():
    task = built(LabelKind(2, False))
    with torch.no_grad():
        task.classifier.weight.zero_()
        task.classifier.bias.copy_(torch.tensor([1.0, 0.0]))
    list(task.losses(batch(torch.tensor([0, 0, 1, -1]))))
    assert task.metrics()["accuracy"] == pytest.approx(2 / 3)

"""Both cross-entropies against their definitions; unknown labels count neither way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from task_samples import generator

from pretext.modules.losses import many_class_loss, many_class_terms, one_class_loss


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
def test_a_batch_of_which_nothing_is_known_moves_nothing(unknown):
    scores = logits(3, 4).requires_grad_()
    loss = (one_class_loss if unknown.ndim == 1 else many_class_loss)(scores, unknown)
    loss.backward()
    assert loss.item() == 0 and not scores.grad.any()


def test_unknown_entries_have_no_gradient():
    scores = logits(4, 3).requires_grad_()
    labels = torch.tensor([[1, 0, -1], [-1, -1, -1], [0, 1, 1], [1, -1, 0]])
    many_class_loss(scores, labels).backward()
    assert torch.equal(scores.grad == 0, labels == -1)
    assert torch.equal(many_class_terms(scores, labels) == 0, labels == -1)

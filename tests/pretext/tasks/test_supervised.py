"""The supervised task, the only one that needs labels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from task_samples import SMALL, generator, noise, step

from pretext.datasets.pictures import equally_large
from pretext.encoders import build_encoder
from pretext.system.errors import UserError
from pretext.tasks import Batch, LabelKind, build_task


def built(labels, spec="supervised"):
    encoder = build_encoder(SMALL, input_size=32, seed=0)
    return build_task(spec, encoder, labels=labels, seed=0)


def batch(labels, seed=0):
    return Batch(equally_large(noise(len(labels), seed=seed)), labels, generator(seed))


@pytest.mark.parametrize("labels", [None, LabelKind(0, False)])
def test_without_classes_the_error_names_the_annotations(labels):
    with pytest.raises(UserError, match=r"^supervised: .*data set must annotate label or labels"):
        built(labels)


def test_a_batch_without_labels_is_refused():
    task = built(LabelKind(3, False))
    bare = replace(batch(torch.zeros(2)), labels=None)
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

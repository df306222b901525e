"""Every task in bfloat16, which is what a GPU trains in unless it is told otherwise."""

from __future__ import annotations

import pytest
import torch
from task_samples import COARSE, NAMES, SMALL_VIT, generator, scenes
from torch import nn

from pretext.datasets.pictures import equally_large
from pretext.encoders import build_encoder
from pretext.system.precision import autocast
from pretext.tasks import Batch, LabelKind, build_task, task_class, task_training
from pretext.tasks.base import Fitted

CPU = torch.device("cpu")
STEPPED = [name for name in NAMES if not issubclass(task_class(name), Fitted)]
CLASSES = 10
COSINES = ("simsiam",)
"""Tasks whose loss is a mean cosine: it begins near 0, where its rounding is that of the terms that cancel."""
HALF_UNIT = 2**-9
"""The rounding of a bfloat16 number near 1."""


def losses(name, precision):
    """Return the losses of a first step by player, and the number formats that the encoder's layers gave."""
    encoder = SMALL_VIT if task_training(name).get("encoder", "").startswith("timm:vit") else COARSE
    labels = LabelKind(CLASSES, multi_label=False) if task_class(name).needs_labels else None
    task = build_task(name, build_encoder(encoder, input_size=32, seed=0), labels=labels, seed=0)
    seen = set()
    for layer in task.encoder.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda *given: seen.add(given[-1].dtype))
    pictures = equally_large(scenes("test")[:32])
    batch = Batch(pictures, torch.arange(32) % CLASSES if labels else None, generator())
    found, given = {}, task.losses(batch)
    while True:
        with autocast(precision, CPU):
            player, loss = next(given, (None, None))
        if player is None:
            return found, seen
        loss.backward()
        assert all(torch.isfinite(each.grad).all() for each in task.parameters() if each.grad is not None)
        found[player] = loss.item()


@pytest.mark.parametrize("name", STEPPED)
def test_a_tasks_losses_in_bfloat16_are_those_in_float32_but_for_rounding(name):
    exact, full = losses(name, "float32")
    rounded, half = losses(name, "bfloat16")
    assert torch.float32 in full and torch.bfloat16 in half and torch.bfloat16 not in full
    assert rounded == pytest.approx(exact, **({"abs": HALF_UNIT} if name in COSINES else {"rel": 0.02}))
    assert rounded != exact

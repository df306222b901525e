"""Floating-point operations of one training step."""

from __future__ import annotations

import copy

import torch

from pretext.datasets.base import ImageDataset
from pretext.tasks.base import Batch, Task, label_kind

IMAGES = 2
"""Images in the measured batch; two, because some losses compare images."""


def flops_per_image(model: Task, data: ImageDataset, device: torch.device) -> float:
    """Return the floating-point operations per image of every player's forward and backward pass.

    They are counted on a copy of the model, so that its weights and state do not change.
    """
    from torch.utils.flop_counter import FlopCounterMode

    images = torch.stack([data[k % len(data)][0] for k in range(IMAGES)]).to(device)
    labels = None
    if model.needs_labels:
        kind = label_kind(data)
        assert kind is not None
        shape = (IMAGES, kind.classes) if kind.multi_label else (IMAGES,)
        labels = torch.zeros(shape, dtype=torch.int64, device=device)
    batch = Batch(images, labels, torch.Generator(device).manual_seed(0))
    duplicate = copy.deepcopy(model)
    with FlopCounterMode(display=False) as counter:
        for _, loss in duplicate.losses(batch):
            torch.autograd.backward(loss)
    return counter.get_total_flops() / IMAGES

"""Floating-point operations of one training step."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from pretext.datasets.base import ImageDataset
from pretext.datasets.pictures import equally_large
from pretext.tasks.base import Batch, Task, label_kind


def flops_per_image(
    model: Task, data: ImageDataset, images: Sequence[UInt8[Tensor, "3 S S"]], device: torch.device
) -> float:
    """Return the floating-point operations per image of every player's forward and backward pass.

    Products in the task's own augmentation count too: up to 6 % of the sum with small encoders. They are counted on a
    copy of the model, so that its weights and state do not change.

    Args:
        model: The task.
        data: The data set, for the kind of its labels.
        images: The images of the measured batch.
        device: Where the model is.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        _after_backward(model, data, images, device)
    return counter.get_total_flops() / len(images)


def takes_one_image(model: Task, data: ImageDataset, image: UInt8[Tensor, "3 S S"], device: torch.device) -> bool:
    """Return whether the task learns from batches of one image: its gradients are finite, and not all zero.

    Batch normalisation and losses that compare images may need two.
    """
    try:
        copied = _after_backward(model, data, [image], device)
    except (ValueError, RuntimeError, IndexError):  # two images have passed before
        return False
    gradients = [parameter.grad for parameter in copied.parameters() if parameter.grad is not None]
    return all(bool(each.isfinite().all()) for each in gradients) and any(bool(each.any()) for each in gradients)


def _after_backward(model: Task, data: ImageDataset, images: Sequence[Tensor], device: torch.device) -> Task:
    """Return a copy of the model that has the gradients of every player's loss on a batch of images."""
    labels = None
    if model.needs_labels:
        kind = label_kind(data)
        assert kind is not None
        shape = (len(images), kind.classes) if kind.multi_label else (len(images),)
        labels = torch.zeros(shape, dtype=torch.int64, device=device)
    batch = Batch(equally_large(torch.stack(list(images)).to(device)), labels, torch.Generator(device).manual_seed(0))
    duplicate = copy.deepcopy(model)
    for _, loss in duplicate.losses(batch):
        torch.autograd.backward(loss)
    return duplicate

"""Shared by the tests of pretext tasks: images and batches, a short training, one batch on two processes."""

from __future__ import annotations

import functools
import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.distributed as dist
from process_samples import in_two_processes
from torch import nn

from pretext.datasets import open_dataset
from pretext.datasets.pictures import equally_large
from pretext.encoders import build_encoder
from pretext.system.distributed import average_gradients
from pretext.tasks import Batch, build_task, task_names
from pretext.training.collapse import feature_statistics

SMALL = "alexnet?width=0.125&stem_stride=1"
COARSE = "alexnet?width=0.125&stem_stride=2"
"""Computes a third of what `SMALL` does, for tasks that also learn from maps of half the side."""
VIT = "timm:vit_tiny_patch16_224?patch_size=8"
SMALL_VIT = "timm:test_vit?patch_size=8"
"""Learns what `VIT` learns in a seventh of the time."""

NAMES = sorted({name.partition(":")[0] for name in task_names()} | {"context_encoder:adversarial", "moco:v3"})
"""Every task, and the variants that train another player or by another method."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, size=32, seed=7):
    return torch.randint(0, 256, (*shape, 3, size, size), dtype=torch.uint8, generator=generator(seed))


def ramp(count, size=64):
    """Return images whose red is 4 times the column, and green 4 times the row."""
    at = 4 * torch.arange(size, dtype=torch.uint8)
    picture = torch.stack([at.expand(size, size), at[:, None].expand(size, size), torch.zeros(size, size).byte()])
    return picture.repeat(count, 1, 1, 1)


@functools.cache
def scenes(split):
    """Return synthetic scenes, 2000 in `train` and 64 in `test`; do not modify them."""
    data = open_dataset("scenes?size=32&train=2000&val=64&test=64").split(split)
    return torch.stack([data[k][0] for k in range(len(data))])


def batch(images, seed=0):
    return Batch(equally_large(images), None, generator(seed))


def built(spec, encoder=SMALL, size=32):
    return build_task(spec, build_encoder(encoder, input_size=size, seed=0), seed=0)


def step(model, given, optimiser=None):
    """Run one training step of a task with one player; return the loss."""
    if optimiser is not None:
        optimiser.zero_grad()
    for player, loss in model.losses(given):
        assert player == "task"
        loss.backward()
        if optimiser is not None:
            optimiser.step()
    return loss.item()


class Trained(NamedTuple):
    """The result of a short training."""

    task: Any
    losses: list[float]
    """The loss of each step."""
    metrics: list[dict[str, float]]
    """The metrics after each step."""

    @torch.no_grad()
    def unseen_loss(self, seeds=1):
        """Return the mean loss on test images over some seeds; leaves the task in evaluation mode."""
        self.task.eval()
        return np.mean(
            [loss.item() for seed in range(seeds) for _, loss in self.task.losses(batch(scenes("test"), seed))]
        )

    def spread(self):
        """Return the spread of features of pictures that it has not seen."""
        return feature_statistics(self.task.encoder, scenes("test"))["feature_std"]


def trained(spec, encoder=SMALL, *, steps, count=64, rate=1e-3):
    """Train a task with one player on synthetic scenes, with `count` images per step."""
    task, seen = built(spec, encoder), scenes("train")
    optimiser = torch.optim.AdamW(task.players()["task"], rate)
    losses, metrics = [], []
    for number in range(steps):
        chosen = torch.randint(len(seen), (count,), generator=generator(number))
        losses.append(step(task, batch(seen[chosen], number), optimiser))
        task.after_step((number + 1) / steps)
        metrics.append(task.metrics())
    return Trained(task, losses, metrics)


def lightly(monkeypatch, module="loss"):
    """Return a module of lightly, without the warnings of its import."""
    monkeypatch.setenv("LIGHTLY_DID_VERSION_CHECK", "True")  # otherwise it contacts its server
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(f"lightly.{module}", reason="lightly is not installed")


def assert_two_processes_are_as_one(loss_of, folder):
    """Check that two processes with half a batch each have the loss and gradients of one with the whole batch.

    Args:
        loss_of: Function from two views' projections to a loss; must be importable, i.e. at module level.
        folder: Folder for the processes' results.
    """
    in_two_processes(_half, loss_of, str(folder))
    found = [np.load(f"{folder}/{number}.npz") for number in range(2)]
    model = projector()
    whole = loss_of(*(model(view) for view in joined_batch()))
    whole.backward()
    assert np.isclose(np.mean([one["loss"] for one in found]), whole.item(), rtol=1e-5)
    for one in found:
        for name, parameter in model.named_parameters():
            np.testing.assert_allclose(one[name], parameter.grad.numpy(), rtol=1e-3, atol=1e-5)


def _half(number, loss_of, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    model = projector()
    loss = loss_of(*(model(view.chunk(2)[number]) for view in joined_batch()))
    loss.backward()
    average_gradients(model.parameters())
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    np.savez(f"{folder}/{number}.npz", loss=loss.detach().numpy(), **gradients)
    dist.destroy_process_group()


def joined_batch():
    draws = generator(8)
    return tuple(torch.randn(8, 6, generator=draws) for _ in range(2))


def projector():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4))

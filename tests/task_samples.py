"""What the tests of several pretext tasks share: a short training, and one batch on two processes."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from pretext.datasets import open_dataset
from pretext.distributed import average_gradients
from pretext.encoders import build_encoder
from pretext.tasks import Batch, build_task

SMALL = "alexnet?width=0.125&stem_stride=1"


def task(spec, encoder=SMALL, size=32):
    return build_task(spec, build_encoder(encoder, input_size=size, seed=0), seed=0)


def batch(count=8, size=32, seed=0):
    """Return smooth pictures, the same for every `seed`, which is the step's."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(11))
    images = (nn.functional.interpolate(coarse, size=size, mode="bilinear") * 255).to(torch.uint8)
    return Batch(images, None, torch.Generator().manual_seed(seed))


def step(model, given):
    """Let a task of one player go through its losses and backwards; return the loss."""
    (loss,) = (loss for _, loss in model.losses(given))
    loss.backward()
    return loss.item()


def trained(spec, *, steps, count=64):
    """Return the losses and the metrics of a task over some steps on drawn scenes."""
    data = open_dataset("scenes?size=32&train=2000&val=64&test=64").split("train")
    images = torch.stack([data[k][0] for k in range(len(data))])
    model = task(spec)
    optimiser = torch.optim.AdamW(model.players()["task"], 2e-3)
    losses, noted = [], []
    for number in range(steps):
        chosen = torch.arange(number * count, (number + 1) * count) % len(images)
        optimiser.zero_grad()
        losses.append(step(model, Batch(images[chosen], None, torch.Generator().manual_seed(number))))
        optimiser.step()
        model.after_step((number + 1) / steps)
        noted.append(model.metrics())
    return losses, noted


def assert_two_processes_are_as_one(loss_of, folder):
    """Compare loss and gradients of two halves of a batch on two processes with those of the whole on one.

    Args:
        loss_of: A function of a module, from two views' projections to a loss.
        folder: For what the processes leave behind.
    """
    mp.spawn(_half, args=(loss_of, str(folder)), nprocs=2)
    found = [np.load(f"{folder}/{number}.npz") for number in range(2)]
    model = _projector()
    whole = loss_of(*(model(view) for view in _views()))
    whole.backward()
    assert np.isclose(np.mean([one["loss"] for one in found]), whole.item(), rtol=1e-5)
    for one in found:
        for name, parameter in model.named_parameters():
            np.testing.assert_allclose(one[name], parameter.grad.numpy(), rtol=1e-3, atol=1e-5)


def _half(number, loss_of, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    model = _projector()
    loss = loss_of(*(model(view.chunk(2)[number]) for view in _views()))
    loss.backward()
    average_gradients(model.parameters())
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    np.savez(f"{folder}/{number}.npz", loss=loss.detach().numpy(), **gradients)
    dist.destroy_process_group()


def _views():
    generator = torch.Generator().manual_seed(8)
    return tuple(torch.randn(8, 6, generator=generator) for _ in range(2))


def _projector():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4))

"""Training on several processes: who am I, what have the others, and one gradient for all.

Everything here does nothing where `torch.distributed` is not initialised, so that callers need not ask.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor, nn


def world() -> int:
    """Return the number of processes that train together; 1 alone."""
    return dist.get_world_size() if _initialised() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if _initialised() else 0


def gather(local: Shaped[Tensor, "B ..."]) -> Shaped[Tensor, "N ..."]:
    """Return the rows of all processes in the order of their ranks; gradients flow back to their own.

    The gradient of a row is the sum of what every process's loss asks of it. With each loss a mean over its
    own rows, `average_gradients` then gives the gradient of the mean over all.

    Args:
        local: This process's rows; as many as every other process has.
    """
    return _Gather.apply(local) if world() > 1 else local


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all processes.

    Args:
        parameters: The same on every process, and with a gradient on all of them or on none.
    """
    if world() == 1:
        return
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_type.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in by_type.values():  # one message a type: many small ones cost more than their bytes
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= world()
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


class _Gather(torch.autograd.Function):
    """All-gather whose backward pass sums each row's gradient over the processes."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        ctx.rows = len(local)
        parts = [torch.empty_like(local, memory_format=torch.contiguous_format) for _ in range(world())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def _initialised() -> bool:
    return dist.is_available() and dist.is_initialized()

"""Training on several processes: rank and world size, gathered rows, averaged gradients, decisions made in common.

In a single process these functions do nothing, so that callers need no special case.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor, nn

from pretext.system.errors import UserError

Value = TypeVar("Value")
GRACE_S = 2.0
"""Seconds that the other processes leave the first one to report an error: torchrun ends it as soon as one exits."""
_control: dict[Any, Any] = {}
"""The group for `everyones`, by the group of all processes that it belongs to."""


def join_processes(device: torch.device) -> None:
    """Initialise `torch.distributed` if torchrun has started several processes: NCCL on GPUs, else Gloo."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def launched() -> int:
    """Return the number of processes that torchrun has started, also before `join_processes`."""
    return world() if _initialised() else int(os.environ.get("WORLD_SIZE", "1"))


def world() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if _initialised() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if _initialised() else 0


def everyones(value: Value) -> list[Value]:
    """Return the values of all processes, ordered by rank, so that all can decide the same. Values are pickled.

    They travel over the CPU, so that a GPU is not waited for.
    """
    if world() == 1:
        return [value]
    everybody = dist.group.WORLD
    if everybody not in _control:
        _control.clear()
        _control[everybody] = dist.new_group(backend="gloo")
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value, group=_control[everybody])
    return values


@contextmanager
def one_voice() -> Iterator[None]:
    """Let the first process alone report an error or a stop that all meet; the others exit with the same code."""
    try:
        yield
    except (UserError, KeyboardInterrupt) as reason:
        if (rank() if _initialised() else int(os.environ.get("RANK", "0"))) > 0:
            time.sleep(GRACE_S)
            sys.exit(2 if isinstance(reason, UserError) else 130)
        raise


def gather(local: Shaped[Tensor, "B ..."]) -> Shaped[Tensor, "N ..."]:
    """Return the rows of all processes, ordered by rank. Gradients flow back to the process that owns a row.

    A row's gradient is summed over the losses of all processes. If each loss is a mean over its own rows,
    `average_gradients` then gives the gradient of the mean over all rows.

    Args:
        local: Rows of this process; every process has the same number.
    """
    return _Gather.apply(local) if world() > 1 else local


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all processes.

    Args:
        parameters: The same on every process. A parameter has a gradient on all processes or on none.
    """
    if world() == 1:
        return
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_type.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in by_type.values():  # one all-reduce per dtype: many small ones are slow
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= world()
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def mean_losses(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return each loss averaged over all processes; every process names the same losses in the same order."""
    if world() == 1 or not losses:
        return dict(losses)
    means = torch.stack([loss.detach().float() for loss in losses.values()])
    dist.all_reduce(means)
    return dict(zip(losses, means / world(), strict=True))


class _Gather(torch.autograd.Function):
    """All-gather; the backward pass sums each row's gradient over the processes."""

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

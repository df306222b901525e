"""The order in which a tensor's values lie in memory, and steps of fused optimisers that go by it.

On a CPU PyTorch's fused kernels walk weight, gradient and moments as they lie in memory, and still make a plain copy of
every channels-last gradient, which takes longer than the step itself. Seen as N×H×W×C, all of these tensors are plain,
and nothing is copied. The weights after a step are the same, bit by bit.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

Kind = TypeVar("Kind", bound=torch.optim.Optimizer)
LEAST = 2**17
"""Number of values from which a weight is turned; the copy of a smaller one is faster than turning it."""


def axes_in_memory(tensor: Tensor) -> list[int]:
    """Return the axes from the largest stride to the smallest.

    Permuted by them, a tensor is contiguous if its values lie side by side, in channels-last format too.
    """
    return sorted(range(tensor.ndim), key=tensor.stride, reverse=True)


def steps_in_memory_order(optimizer: Kind) -> Kind:
    """Let a fused optimiser see large weights on a CPU, channels-last ones too, as they lie in memory; return it."""
    turned: list[tuple[Tensor, list[int]]] = []

    def before(optimizer: torch.optim.Optimizer, *arguments: object) -> None:
        for group in optimizer.param_groups:
            turned.extend((weight, axes_in_memory(weight)) for weight in group["params"] if _is_turned(weight))
        for weight, axes in turned:
            _turn(optimizer, weight, axes)

    def after(optimizer: torch.optim.Optimizer, *arguments: object) -> None:
        for weight, axes in turned:
            _turn(optimizer, weight, sorted(range(len(axes)), key=axes.__getitem__))
        turned.clear()

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
    return optimizer


def _is_turned(weight: Tensor) -> bool:
    return (
        weight.grad is not None
        and weight.numel() >= LEAST
        and weight.device.type == "cpu"
        and weight.grad.stride() == weight.stride()
        and not weight.is_contiguous()
        and weight.permute(axes_in_memory(weight)).is_contiguous()
    )


def _turn(optimizer: torch.optim.Optimizer, weight: Tensor, axes: list[int]) -> None:
    """Permute the axes of a weight, its gradient and its state in place; no value moves."""
    assert weight.grad is not None
    gradient, weight.grad = weight.grad, None
    weight.data = weight.data.permute(axes)
    weight.grad = gradient.permute(axes)
    state = optimizer.state.get(weight, {})
    for name, value in state.items():
        if isinstance(value, Tensor) and value.ndim == weight.ndim:
            state[name] = value.permute(axes)

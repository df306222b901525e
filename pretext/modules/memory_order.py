"""Steps of fused optimisers over channels-last weights, without a copy of each gradient.

On a CPU PyTorch's fused kernels walk weight, gradient and moments as they lie in memory, and still make a plain copy of
every channels-last gradient, which takes longer than the step itself. Seen as N×H×W×C, all of these tensors are plain,
and nothing is copied. The weights after a step are the same, bit by bit.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

Kind = TypeVar("Kind", bound=torch.optim.Optimizer)
PIXELS_FIRST, CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
LEAST = 2**17
"""Number of values from which a weight is turned; the copy of a smaller one is faster than turning it."""


def in_memory_order(optimizer: Kind) -> Kind:
    """Let a fused optimiser see large channels-last weights on a CPU as N×H×W×C during its steps; return it."""
    turned: list[Tensor] = []

    def before(optimizer: torch.optim.Optimizer, *arguments: object) -> None:
        for group in optimizer.param_groups:
            turned.extend(weight for weight in group["params"] if _is_turned(weight))
        for weight in turned:
            _turn(optimizer, weight, PIXELS_FIRST)

    def after(optimizer: torch.optim.Optimizer, *arguments: object) -> None:
        for weight in turned:
            _turn(optimizer, weight, CHANNELS_FIRST)
        turned.clear()

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
    return optimizer


def _is_turned(weight: Tensor) -> bool:
    return (
        weight.grad is not None
        and weight.ndim == 4
        and weight.numel() >= LEAST
        and weight.device.type == "cpu"
        and weight.grad.stride() == weight.stride()
        and not weight.is_contiguous()
        and weight.is_contiguous(memory_format=torch.channels_last)
    )


def _turn(optimizer: torch.optim.Optimizer, weight: Tensor, order: tuple[int, ...]) -> None:
    """Permute the axes of a weight, its gradient and its state in place; no value moves."""
    assert weight.grad is not None
    gradient, weight.grad = weight.grad, None
    weight.data = weight.data.permute(order)
    weight.grad = gradient.permute(order)
    state = optimizer.state.get(weight, {})
    for name, value in state.items():
        if isinstance(value, Tensor) and value.ndim == weight.ndim:
            state[name] = value.permute(order)

"""Optimisers, their parameter groups, and the learning-rate schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from pretext.modules.schedules import cosine
from pretext.system.memory_order import steps_in_memory_order
from pretext.tasks.base import Task

if TYPE_CHECKING:
    from pretext.training.config import TrainConfig

OptimizerName = Literal["adamw", "adam", "sgd"]
ScheduleName = Literal["cosine", "constant"]


def make_optimizers(model: Task, config: TrainConfig) -> dict[str, torch.optim.Optimizer]:
    """Return one optimiser per player of a task."""
    return {
        player: make_optimizer(
            parameters,
            name=config.optimizer,
            learning_rate=config.learning_rate * model.rate_factors().get(player, 1.0),
            weight_decay=config.weight_decay,
            momentum=config.beta1,
            beta2=config.beta2,
        )
        for player, parameters in model.players().items()
    }


def make_optimizer(
    parameters: list[nn.Parameter],
    *,
    name: OptimizerName,
    learning_rate: float,
    weight_decay: float,
    momentum: float,
    beta2: float,
) -> torch.optim.Optimizer:
    """Return a fused optimiser; weight decay is not applied to biases and norms.

    Args:
        parameters: Parameters to update.
        name: Kind of optimiser.
        learning_rate: Peak learning rate; each group keeps it as `peak_lr`.
        weight_decay: Decay of parameters with at least two dimensions: matrices and kernels.
        momentum: Momentum of SGD; first beta of Adam.
        beta2: Second beta of Adam.
    """
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay, "peak_lr": learning_rate},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "peak_lr": learning_rate},
    ]
    groups = [group for group in groups if group["params"]]
    if name == "sgd":
        sgd = torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, fused=True)
        sgd.register_step_pre_hook(_give_momentum)
        return steps_in_memory_order(sgd)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return steps_in_memory_order(kind(groups, lr=learning_rate, betas=(momentum, beta2), fused=True))


def _give_momentum(optimizer: torch.optim.Optimizer, *arguments: object) -> None:
    """Give a momentum of 0 to weights whose first gradient comes after that of others, which fused SGD does not do."""
    for group in optimizer.param_groups:
        moved = [weight for weight in group["params"] if weight.grad is not None]
        late = [weight for weight in moved if optimizer.state[weight].get("momentum_buffer") is None]
        if group["momentum"] and len(late) < len(moved):
            for weight in late:
                optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)


def rate_at(progress: float, *, schedule: ScheduleName, warmup: float) -> float:
    """Return the learning rate as a share of its peak.

    Args:
        progress: Share of the run that is done, 0 to 1.
        schedule: After the warm-up, constant or a cosine from 1 to 0.
        warmup: Share of the run over which the rate rises linearly from near 0.
    """
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    if schedule == "constant":
        return 1.0
    return cosine(min(1.0, (progress - warmup) / max(1e-9, 1 - warmup)))

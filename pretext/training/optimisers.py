"""Optimisers, parameter groups and schedules."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

OptimizerName = Literal["adamw", "adam", "sgd"]
ScheduleName = Literal["cosine", "constant"]


def make_optimizer(
    parameters: list[nn.Parameter],
    *,
    name: OptimizerName,
    learning_rate: float,
    weight_decay: float,
    momentum: float,
    beta2: float,
) -> torch.optim.Optimizer:
    """Return an optimiser, fused into one kernel; vectors (biases, normalisation) are never decayed.

    Args:
        parameters: What it moves.
        name: Which.
        learning_rate: The highest; the schedule multiplies it.
        weight_decay: Of matrices and kernels.
        momentum: SGD's, and Adam's first coefficient.
        beta2: Adam's second coefficient.
    """
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, fused=True)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(groups, lr=learning_rate, betas=(momentum, beta2), fused=True)


def rate_at(progress: float, *, schedule: ScheduleName, warmup: float) -> float:
    """Return the share of the highest learning rate.

    Args:
        progress: Share of the run that is done, 0 to 1.
        schedule: Constant, or a cosine from 1 to 0 (Loshchilov & Hutter 2017) after the warm-up.
        warmup: Share of the run over which the rate rises from near 0, as a line.
    """
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / max(1e-9, 1 - warmup))))

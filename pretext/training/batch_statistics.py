"""Batch normalisation by the images of all processes, as one process computes it that holds the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules._functions import SyncBatchNorm
from torch.overrides import TorchFunctionMode

from pretext.system.distributed import gather, world


def whole_batch_statistics() -> AbstractContextManager[object]:
    """Let batch normalisation in training mode use the mean and variance over all processes while this is active.

    Every call of `F.batch_norm` is replaced, whichever module makes it, so that networks and their files stay as they
    are: `nn.SyncBatchNorm` would take the place of torch's own modules only, and needs a GPU. All processes must make
    the same calls. A single process computes as without it.
    """
    return _WholeBatch() if world() > 1 else nullcontext()


class _WholeBatch(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return (_batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Stand in for `F.batch_norm`."""
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    if x.is_cuda:
        everybody = (dist.group.WORLD, world())
        return SyncBatchNorm.apply(x, weight, bias, running_mean, running_var, eps, momentum, *everybody)  # type: ignore[no-any-return]
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    var, mean = torch.var_mean(wide, [0, *range(2, x.ndim)], correction=0)  # C each
    count = torch.full_like(mean, x.numel() / x.shape[1])
    means, variances, counts = gather(torch.stack([mean, var, count])[None]).unbind(1)  # P×C each
    total = counts.sum(0)
    mean = (counts * means).sum(0) / total
    var = (counts * (variances + (means - mean) ** 2)).sum(0) / total
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(var * total / (total - 1), momentum)
    scale = (var + eps).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * scale
    shape = [1, -1] + [1] * (x.ndim - 2)
    return (wide * scale.view(shape) + shift.view(shape)).to(x.dtype)

"""Training on several processes: rank and world size, gathered rows, averaged gradients, decisions made in common.

In a single process these functions do nothing, so that callers need no special case.

If a process ends while others wait for it, they end too, and one of all processes reports the reason: see `one_voice`.
"""

from __future__ import annotations

import atexit
import itertools
import os
import re
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
from pretext.system.memory_order import axes_in_memory

Value = TypeVar("Value")
LARGE = 2**18
"""Values from which on a gradient is exchanged by itself."""
GRACE_S = 2.0
"""Seconds that the other processes leave the first one to report an error: torchrun ends it as soon as one exits."""
VARIABLES = ("RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets beside WORLD_SIZE."""
_LOST = re.compile(r"connection (closed|reset|refused)|broken pipe|timed? ?out|socket|aborted|remote process", re.I)
"""What torch says of a collective that another process leaves unanswered."""
_control: dict[Any, Any] = {}
"""The group for `everyones`, by the group of all processes that it belongs to."""
_blocks = itertools.count()
"""Numbers of the `one_voice` blocks that this process enters; all processes enter the same ones."""


def join_processes(device: torch.device) -> None:
    """Initialise `torch.distributed` if torchrun has started several processes: NCCL on GPUs, else Gloo."""
    if _number("WORLD_SIZE", 1) > 1 and not dist.is_initialized():
        if missing := [name for name in VARIABLES if name not in os.environ]:
            raise UserError(
                f"the environment variable WORLD_SIZE is set, and {' and '.join(missing)} not; "
                "start several processes by torchrun, or unset WORLD_SIZE"
            )
        with _answered():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        if device.type != "cuda":  # for a script of the user's own; a command ends by `end_at_once`
            atexit.register(_leave)
    everyones(None)  # connects the processes: who waits for an unconnected one would not see it end


def _leave() -> None:
    if _initialised():  # the script may have left already
        dist.destroy_process_group()


def end_at_once(code: int) -> None:
    """End this process with an exit code, if it is one of several on a CPU; return if it is not.

    Nothing is left to do when a command has ended, and Gloo's threads may abort the process while the interpreter ends,
    even after the group is destroyed.
    """
    if _initialised() and dist.get_backend() == "gloo":
        dist.destroy_process_group()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def launched() -> int:
    """Return the number of processes that torchrun has started, also before `join_processes`."""
    return world() if _initialised() else _number("WORLD_SIZE", 1)


def _number(variable: str, default: int) -> int:
    """Return a number that torchrun has set in the environment; `default` without torchrun."""
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise UserError(f"the environment variable {variable} is {text!r}; torchrun sets a number, unset it otherwise")
    return int(text)


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
    values: list[Any] = [None] * world()
    with _answered():
        if everybody not in _control:
            _control.clear()
            _control[everybody] = dist.new_group(backend="gloo")
        dist.all_gather_object(values, value, group=_control[everybody])
    return values


def check_equal(facts: Mapping[str, object]) -> None:
    """Compare what all processes must have in common, such as the content of the data.

    Args:
        facts: Values by name; the processes give the same names.

    Raises:
        UserError: In every process, if a value differs in one of them.
    """
    first, *others = everyones(dict(facts))
    for number, other in enumerate(others, start=1):
        for name, value in first.items():
            if other[name] != value:
                raise UserError(
                    f"process {number} of {world()} has {name} = {other[name]}, and process 0 has {value}; "
                    "give all processes the same data, --out folder and settings"
                )


@contextmanager
def one_voice() -> Iterator[None]:
    """Let one process report an error or a stop; the others exit with the same code.

    The first process reports what all meet. What another one meets alone, it reports itself after `GRACE_S`; the
    processes that wait for it then exit.
    """
    key = f"pretext_bench/said/{next(_blocks)}"
    try:
        yield
    except (UserError, OSError, KeyboardInterrupt) as reason:
        if _is_silent(reason, key):
            time.sleep(GRACE_S)
            sys.exit(130 if isinstance(reason, KeyboardInterrupt) else 2)
        raise


def _is_silent(reason: BaseException, key: str) -> bool:
    """Whether another process reports the reason, or none has to; if not, tell the others that this one does."""
    if launched() == 1:
        return False
    number = rank() if _initialised() else _number("RANK", 0)
    if number and isinstance(reason, KeyboardInterrupt):
        return True
    deadline = time.monotonic() + (GRACE_S if number else 0)
    try:
        store = _store()
        while store is None or not store.check([key]):
            if time.monotonic() >= deadline:
                return store is not None and store.add(key, 1) > 1
            time.sleep(0.05)
    except RuntimeError:  # the process that held the store has ended
        return False
    return True


def _store() -> Any:
    """Return the store that all processes share; before `join_processes` torchrun's, or None without it."""
    if _initialised():
        return dist.distributed_c10d._get_default_store()
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    c10d: Any = dist
    store = c10d.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return c10d.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


@contextmanager
def _answered() -> Iterator[None]:
    """Turn torch's error about a process that does not answer into one line."""
    try:
        yield
    except RuntimeError as error:
        if not _LOST.search(str(error)):
            raise
        number = os.environ.get("RANK", "0") if not _initialised() else rank()
        raise UserError(
            f"process {number}: another process has ended or does not answer; see what it has said, and run the same "
            "command again to resume"
        ) from None


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
    small: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.numel() >= LARGE and (whole := gradient.permute(axes_in_memory(gradient))).is_contiguous():
            _average(whole)  # in place: a copy of all gradients costs more than the exchange
        else:
            small.setdefault(gradient.dtype, []).append(gradient)
    for gradients in small.values():  # one all-reduce per dtype: many small ones are slow
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        _average(flat)
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def _average(tensor: Tensor) -> None:
    with _answered():
        dist.all_reduce(tensor)
    tensor /= world()


def mean_losses(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return each loss averaged over all processes; every process names the same losses in the same order."""
    if world() == 1 or not losses:
        return dict(losses)
    means = torch.stack([loss.detach().float() for loss in losses.values()])
    with _answered():
        dist.all_reduce(means)
    return dict(zip(losses, means / world(), strict=True))


class _Gather(torch.autograd.Function):
    """All-gather; the backward pass sums each row's gradient over the processes."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        ctx.rows = len(local)
        parts = [torch.empty_like(local, memory_format=torch.contiguous_format) for _ in range(world())]
        with _answered():
            dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        with _answered():
            dist.all_reduce(summed)
        return summed[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def _initialised() -> bool:
    return dist.is_available() and dist.is_initialized()

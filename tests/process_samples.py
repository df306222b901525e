"""Training as two gloo processes, for tests: one pair of processes does several runs, one after the other."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from training_samples import ENCODER

from pretext.datasets import open_dataset
from pretext.system import distributed
from pretext.training.config import TrainConfig

loop = importlib.import_module("pretext.training.loop")


@dataclass(frozen=True)
class Run:
    """A training run; the signal comes to process 1, or to both."""

    data: str
    out: Path
    task: str = "simclr:small"
    encoder: str = ENCODER
    streamed: bool = False
    signal_at: int | None = None
    """Step after which the signal comes."""
    number: signal.Signals = signal.SIGTERM
    to_both: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How one process ended a run."""

    steps: int
    """Steps that it has done."""
    end: str
    """`finished`, or the class and the message of what it raised."""
    state: dict[str, np.ndarray]
    """Parameters and buffers."""


def train(run: Run, rank: int = 0) -> Ended:
    """Train as this process."""
    os.environ["PRETEXT_PACK_GB"] = "0" if run.streamed else "4"
    real_step, real_build, built, steps = loop._step, loop.build_task, [], 0

    def build(*args, **options):
        built.append(real_build(*args, **options))
        return built[-1]

    def step(*args):
        nonlocal steps
        losses = real_step(*args)
        steps += 1
        if steps == run.signal_at and (run.to_both or rank == 1):
            os.kill(os.getpid(), run.number)
        return losses

    loop._step, loop.build_task = step, build
    config = TrainConfig(**{"batch_size": 8, "workers": 0, "device": "cpu", "log_every": 1} | dict(run.settings))
    try:
        loop.train(run.task, run.encoder, open_dataset(run.data), config, run.out, image_size=32)
        end = "finished"
    except (Exception, SystemExit, KeyboardInterrupt) as reason:
        end = f"{type(reason).__name__}: {reason}".strip()
    finally:
        loop._step, loop.build_task = real_step, real_build
    state = {
        name: value.detach().numpy().copy()
        for model in built
        for name, value in [*model.named_parameters(), *model.named_buffers()]
    }
    return Ended(steps, end, state)


def in_two_processes(function: Callable[..., None], *args: Any) -> None:
    """Call a function with 0 and with 1, and `args`, in two processes at the same time.

    A process that has imported everything forks them; their environment is that of the first call.
    """
    multiprocessing.set_forkserver_preload(["pretext.training.loop"])
    mp.start_processes(function, args=args, nprocs=2, start_method="forkserver")


def two(folder: Path, *runs: Run) -> list[tuple[Ended, Ended]]:
    """Do all runs in one pair of processes; return how both processes ended each."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meet").unlink(missing_ok=True)
    in_two_processes(_one_of_two, str(folder), runs)
    return list(zip(*(torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)), strict=True))


def _one_of_two(rank: int, folder: str, runs: tuple[Run, ...]) -> None:
    torch.set_num_threads(1)
    distributed.GRACE_S = 0.5
    distributed.LARGE = 500  # of these small networks some gradients are exchanged in place, and some together
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    torch.save([train(run, rank) for run in runs], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def assert_equal(first: Ended, second: Ended) -> None:
    """Check that two processes, or two runs, have the same parameters and buffers to the last bit."""
    assert first.state and first.state.keys() == second.state.keys()
    for name, value in first.state.items():
        assert np.isfinite(value).all(), name
        assert value.tobytes() == second.state[name].tobytes(), name

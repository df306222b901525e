"""How fast pretraining, probes and retrieval are on this machine, beside what could be had at best.

python benchmarks/timing/speed.py [--tasks A B …] [--probes A B …] [--images N] [--encoder SPEC] [--image-size N]
                           [--batch-size N] [--data SPEC] [--repetitions N]
python benchmarks/timing/speed.py --linear
python benchmarks/timing/speed.py --retrieval [--vectors N …]

What a task's figures mean: `benchmarks/timing/tasks.py`. `--linear` times nothing but the linear probe's solver, beside
scikit-learn's LogisticRegression; `--retrieval` nothing but indexing and searching, beside FAISS called directly and
scikit-learn's brute force.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

if not __package__:  # started as a file: the import path begins with this folder, where it needs the one above
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch

from benchmarks.recipes import probe, probe_names
from benchmarks.timing.linear import print_linear
from benchmarks.timing.search import print_retrieval
from benchmarks.timing.tasks import MATRIX, Load, fit_seconds, is_fitted, task_speed
from pretext.datasets import at_size, open_dataset
from pretext.datasets.base import ImageDataset
from pretext.encoders import build_encoder
from pretext.system.command_line import parse
from pretext.system.errors import UserError, did_you_mean, run_command
from pretext.tasks import task_config, task_names

SLOW_PROBES = frozenset({"fine_tune", "detection", "segmentation", "low_shot", "svm"})
"""Are timed only where they are asked for: they take minutes, or repeat another's work."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """Time pretext tasks and probes on this machine."""

    tasks: tuple[str, ...] = ()
    """Pretext tasks; all that fit the encoder and the data where none is named."""
    probes: tuple[str, ...] = ()
    """Probes to time on random weights; the quick ones where none is named."""
    load: Load = dataclasses.field(default_factory=Load)
    data: str = "scenes?train=2048&val=256&test=512"
    """Data set: KIND[:PATH][?key=value&…]."""
    linear: bool = False
    """Time the linear probe's solver beside scikit-learn's on 10,000 × 4,096 features, and nothing else."""
    retrieval: bool = False
    """Time indexing and searching beside FAISS and scikit-learn, and nothing else."""
    vectors: tuple[int, ...] = (10_000,)
    """For that, how many vectors of 256 numbers are searched; an index each. A million takes 6 GB and minutes."""

    def __post_init__(self) -> None:
        if not self.vectors or min(self.vectors) < 1000:
            raise ValueError(f"vectors is {self.vectors}; give one number or more, each at least 1000")


def main(argv: list[str]) -> int:
    """Run the command; return the exit code."""
    options = parse(Speed, argv, prog="speed.py")
    load = options.load
    if options.linear:
        print_linear()
        return 0
    if options.retrieval:
        print_retrieval(options.vectors, options.data, load.encoder, load.image_size)
        return 0
    tasks, probes = options.tasks or tuple(task_names()), _probe_names(options)
    for task in tasks:
        task_config(task)
    data = at_size(open_dataset(options.data), load.image_size, bad_images="skip")
    print(
        f"{_device_name()}, {torch.get_num_threads()} thread(s), PyTorch {torch.__version__}; "
        f"ceiling: products of {MATRIX}×{MATRIX} float32 matrices"
    )
    print(
        f"{load.encoder} at {load.image_size} px, batches of {load.batch_size}, "
        f"{load.images} pictures a run, {load.repetitions} runs of each loop, {options.data}\n"
    )
    width = max(len("pretext task"), *(len(task) for task in tasks))
    print(
        f"{'pretext task':<{width}} {'loop img/s':>11} {'bare img/s':>11} {'ratio':>6} {'views':>6} {'waiting':>8} "
        f"{'GFLOP/s':>8} {'ceiling':>8} {'share':>6} {'peak MB':>8}"
    )
    for task in tasks:
        if is_fitted(task):
            pictures, seconds = fit_seconds(task, data, load)
            print(f"{task:<{width}} fitted once, on {pictures:,} pictures, in {seconds:.1f} s", flush=True)
            continue
        try:
            row = task_speed(task, data, load)
        except UserError as error:
            if options.tasks:
                raise
            print(f"{task:<{width}} left out: {error}")
            continue
        print(
            f"{row.task:<{width}} {row.loop:>11,.0f} {row.bare:>11,.0f} {row.loop / row.bare:>6.2f} "
            f"{row.views:>6.1%} {row.waiting:>8.1%} {row.flops / 1e9:>8,.1f} {row.ceiling / 1e9:>8,.1f} "
            f"{row.flops / row.ceiling:>6.0%} {row.memory / 1e6:>8,.0f}",
            flush=True,
        )
    _print_probes(probes, data, options)
    return 0


def probe_seconds(name: str, data: ImageDataset, load: Load) -> float:
    """Return how long a probe, with its defaults, takes to judge random weights."""
    encoder = build_encoder(load.encoder, input_size=load.image_size, seed=0)
    judge = probe(name)
    if not judge.can_judge(data):
        raise UserError(f"{name} needs annotations that {data.spec} lacks")
    started = time.perf_counter()
    list(judge.evaluate(encoder, data))
    return time.perf_counter() - started


def _probe_names(options: Speed) -> tuple[str, ...]:
    known = [name for name in probe_names() if name != "inpainting"]
    for name in options.probes or ():
        if name not in known:
            raise UserError(f"unknown probe {name!r}; {did_you_mean(name, known)}")
    return options.probes or tuple(name for name in known if name not in SLOW_PROBES)


def _print_probes(names: tuple[str, ...], data: ImageDataset, options: Speed) -> None:
    counts = ", ".join(f"{len(data.split(name)):,} {name}" for name in ("train", "val", "test"))
    print(f"\n{'probe':<14} {'seconds':>8}   of {counts} pictures, random weights")
    for name in names:
        try:
            print(f"{name:<14} {probe_seconds(name, data, options.load):>8.1f}", flush=True)
        except UserError as error:
            if options.probes:
                raise
            print(f"{name:<14} left out: {error}")


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


if __name__ == "__main__":
    run_command(main)

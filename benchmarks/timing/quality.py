"""The quality of features after so many minutes, by this suite and by lightly: python benchmarks/timing/quality.py."""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: put the repository root on the import path instead of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from pretext.system.command_line import parse
from pretext.system.errors import run_command

PROG = "python benchmarks/timing/quality.py"
SUITES = ("ours", "lightly")
PROBES = ("linear", "knn")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
    """Measure the quality of features after so many minutes on one machine, by this suite and by lightly.

    Both train a ResNet-18 by SimCLR at 64 px from picture files, each by its own recipe. First their speeds are
    measured, in turns; then each trains for the steps that fit into the minutes at its speed, so that other work on the
    machine does not change the result, and its learning rate falls to 0 at the end. The suite's linear and k-NN probes
    judge the encoder files of both. The same command goes on where it stopped.

    Examples:
        python benchmarks/timing/quality.py --data coco:tiny-imagenet-20 --minutes 2 5 --seeds 4 --out quality
    """

    data: str
    """Data set of picture files with labels, KIND:PATH."""
    minutes: tuple[float, ...] = (2.0, 5.0, 10.0, 20.0)
    """Budgets of training in minutes, each above 0."""
    seeds: int = 4
    """Number of seeds, 1 or more; they are 0, 1, …."""
    out: Path
    """Folder of the encoder files and results."""

    def __post_init__(self) -> None:
        if not self.minutes or min(self.minutes) <= 0:
            raise ValueError(f"minutes is {self.minutes}; give one or more numbers, each above 0")
        if self.seeds < 1:
            raise ValueError(f"seeds is {self.seeds}; allowed is 1 or more")


def main(argv: list[str]) -> int:
    """Measure both speeds, train and judge what is missing, and print the table; return the exit code."""
    options = parse(Quality, argv, prog=PROG)
    speeds = kept(options.out / "speeds.json", lambda: measured_speeds(options.data))
    print("pictures per second: " + ", ".join(f"{suite} {speeds[suite]:.1f}" for suite in SUITES), flush=True)
    for seed in range(options.seeds):
        for minutes in options.minutes:
            for suite in SUITES:
                file = options.out / f"{suite}-{minutes:g}min-s{seed}.json"
                steps = max(1, round(speeds[suite] * 60 * minutes / batch_size()))
                found = kept(file, lambda s=suite, n=steps, i=seed, f=file: judged(s, n, i, options.data, f))
                values = ", ".join(f"{name} {found[name]:.1f}" for name in PROBES)
                print(f"{suite}, {minutes:g} min, {steps:,} steps, seed {seed}: {values}", flush=True)
    print(table(options.out, options.minutes, options.seeds))
    return 0


def kept(file: Path, compute: Any) -> dict[str, float]:
    """Return the content of a JSON file, computed and written if it does not exist."""
    from pretext.system.checkpoint import atomic_write

    if not file.exists():
        found = compute()
        with atomic_write(file) as beside:
            beside.write_text(json.dumps(found))
    content: dict[str, float] = json.loads(file.read_text())
    return content


def batch_size() -> int:
    """Return the pictures per step of both."""
    from benchmarks.timing.peers import SIMCLR_BATCH

    return SIMCLR_BATCH


def measured_speeds(spec: str) -> dict[str, float]:
    """Return the pictures per second of both, the peer's with its best number of workers, and that number."""
    from benchmarks.timing.peers import simclr_compared

    with tempfile.TemporaryDirectory() as folder:
        found = simclr_compared(spec, Path(folder))
    ours, theirs = (statistics.median(each) for each in (found.ours, found.theirs))
    return {"ours": ours, "lightly": theirs, "workers": float(found.setting.split()[0])}


def judged(suite: str, steps: int, seed: int, spec: str, file: Path) -> dict[str, float]:
    """Train an encoder and return the headline of each probe.

    Args:
        suite: One of `SUITES`.
        steps: Number of training steps.
        seed: Seed of training and probes.
        spec: The data set.
        file: The result's file; the run or the weights lie beside it.
    """
    from benchmarks.planning.probes import probe
    from benchmarks.timing.peers import SIMCLR_SIDE
    from pretext import TrainConfig, open_dataset, train
    from pretext.encoders import load_encoder

    data, out = open_dataset(spec), file.with_suffix("")
    if suite == "ours":
        config = TrainConfig(steps=steps, batch_size=batch_size(), samples=0, seed=seed)
        encoder = load_encoder(train("simclr", "torchvision:resnet18", data, config, out, image_size=SIMCLR_SIDE))
    else:
        workers = int(json.loads((file.parent / "speeds.json").read_text())["workers"])
        weights = train_by_lightly(data, steps, seed, workers, file.with_suffix(".pth"))
        encoder = load_encoder(f"torchvision:resnet18?weights={weights}", input_size=SIMCLR_SIDE)
    return {
        name: next(score.value for score in probe(name, seed=seed).evaluate(encoder, data) if score.headline)
        for name in PROBES
    }


def train_by_lightly(data: Any, steps: int, seed: int, workers: int, out: Path) -> Path:
    """Train by lightly's parts, with a learning rate that falls to 0 by a cosine, and write the backbone's weights."""
    import torch

    from benchmarks.timing.loading import files_of, link
    from benchmarks.timing.peers import lightly_steps

    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        link(files_of(data.split("train")), Path(folder, "pictures"))
        backbone, training = lightly_steps(Path(folder), workers, steps=steps, seed=seed)
        for _ in islice(training, steps):
            pass
    torch.save(backbone.state_dict(), out)
    return out


def table(out: Path, minutes: Sequence[float], seeds: int) -> str:
    """Return the mean and the range over the seeds for each budget, suite and probe."""
    lines = [f"{'minutes':>7}  {'suite':<8}" + "".join(f"{name:>24}" for name in PROBES)]
    for budget in minutes:
        for suite in SUITES:
            found = list(_results(out, suite, budget, seeds))
            values = ([each[name] for each in found] for name in PROBES)
            cells = (f"{statistics.mean(v):.1f} ({min(v):.1f}–{max(v):.1f})" for v in values)
            lines.append(f"{budget:>7g}  {suite:<8}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


def _results(out: Path, suite: str, minutes: float, seeds: int) -> Iterator[dict[str, float]]:
    for seed in range(seeds):
        yield json.loads((out / f"{suite}-{minutes:g}min-s{seed}.json").read_text())


if __name__ == "__main__":
    run_command(main)

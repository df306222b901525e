"""The quality of features after so many minutes, by this suite and by lightly: python benchmarks/timing/quality.py."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: put the repository root on the import path instead of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from pretext.system.command_line import parse
from pretext.system.errors import UserError, run_command
from pretext.system.ranges import check_range

PROG = "python benchmarks/timing/quality.py"
SUITES = ("ours", "lightly")
PROBES = ("linear", "knn")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
    """Measure the quality of features after so many minutes on one machine, by this suite and by lightly.

    Both train a ResNet-18 by SimCLR at 64 px from picture files, each by its own recipe. First their speeds are
    measured, in turns; then each trains for the steps that fit into the minutes at its speed, so that other work on the
    machine does not change the result, and its learning rate falls to 0 at the end. The suite's linear and k-NN probes
    judge the encoder files of both, and random weights beside them. The same command goes on where it stopped.

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
        check_range(self, "seeds", least=1)


def main(argv: list[str]) -> int:
    """Measure both speeds, train and judge what is missing, and print the table; return the exit code."""
    options = parse(Quality, argv, prog=PROG)
    out, data = options.out, options.data
    speeds = kept(out / "speeds.json", {"data": data}, lambda: measured_speeds(data))
    print("pictures per second: " + ", ".join(f"{suite} {speeds[suite]:.1f}" for suite in SUITES), flush=True)
    for seed in range(options.seeds):
        runs = [("random", 0.0, 0)]
        runs += [(s, m, max(1, round(speeds[s] * 60 * m / batch_size()))) for m in options.minutes for s in SUITES]
        for suite, minutes, steps in runs:
            file, about = result_file(out, suite, minutes, seed), {"data": data, "steps": steps}
            found = kept(file, about, functools.partial(judged, suite, steps, seed, data, file))
            values = ", ".join(f"{name} {found[name]:.1f}" for name in PROBES)
            print(f"{suite}, {minutes:g} min, {steps:,} steps, seed {seed}: {values}", flush=True)
    print(table(out, options.minutes, options.seeds))
    return 0


def result_file(out: Path, suite: str, minutes: float, seed: int) -> Path:
    """Return the file of one encoder's scores; random weights have 0 minutes."""
    return out / f"{suite}-{minutes:g}min-s{seed}.json"


def kept(file: Path, about: Mapping[str, Any], compute: Callable[[], Mapping[str, float]]) -> dict[str, float]:
    """Return the numbers of a JSON file, computed and written if it does not exist.

    Raises:
        UserError: If the file was written about something else.
    """
    from pretext.system.checkpoint import atomic_write

    if not file.exists():
        found = compute()
        with atomic_write(file) as beside:
            beside.write_text(json.dumps({"about": about, **found}))
    content: dict[str, Any] = json.loads(file.read_text())
    if (stored := content.pop("about", None)) != about:
        raise UserError(f"{file} is about {stored}, and this command about {dict(about)}; give another --out")
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
        suite: One of `SUITES`, or random.
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
    if suite == "lightly":
        workers = int(json.loads((file.parent / "speeds.json").read_text())["workers"])
        weights = train_by_lightly(data, steps, seed, workers, file.with_suffix(".pth"))
        encoder = load_encoder(f"torchvision:resnet18?weights={weights}", input_size=SIMCLR_SIDE)
    else:
        task = "random" if suite == "random" else "simclr"
        config = TrainConfig(steps=steps or None, batch_size=batch_size(), samples=0, seed=seed)
        encoder = load_encoder(train(task, "torchvision:resnet18", data, config, out, image_size=SIMCLR_SIDE))
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
        for _ in itertools.islice(training, steps):
            pass
    torch.save(backbone.state_dict(), out)
    return out


def table(out: Path, minutes: Sequence[float], seeds: int) -> str:
    """Return the mean and the range over the seeds for each budget, suite and probe."""
    lines = [f"{'minutes':>7}  {'suite':<8}" + "".join(f"{name:>24}" for name in PROBES)]
    for budget, suite in [(0.0, "random"), *itertools.product(minutes, SUITES)]:
        found = [json.loads(result_file(out, suite, budget, seed).read_text()) for seed in range(seeds)]
        values = ([each[name] for each in found] for name in PROBES)
        cells = (f"{statistics.mean(v):.1f} ({min(v):.1f}–{max(v):.1f})" for v in values)
        lines.append(f"{budget:>7g}  {suite:<8}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)

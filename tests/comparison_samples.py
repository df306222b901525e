"""Small comparisons for the tests: cheap probes, a recipe, a plan, an executor, and measurements made by hand."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from typing import ClassVar

import numpy as np
import torch

from benchmarks import run_all
from benchmarks.executors.base import Executor, Outcome, run_cell
from benchmarks.executors.computing import compute
from benchmarks.planning.making import Judging, make_plan, open_data
from benchmarks.planning.recipes import Recipe, trained
from benchmarks.planning.rows import Row
from benchmarks.records.results import SCHEMA_VERSION, Measurement, read_measurements, write_json
from pretext.judging import Probe, Score
from pretext.training.config import TrainConfig

SPEC = "scenes?size=16&train=8&val=4&test=4"
ROWS = {"random": "random", "supervised": "supervised", "rotation": "rotation"}
HIGH, LOW, SPREAD = [61.0, 60.0, 59.0, 60.0], [30.0, 31.0, 29.0, 30.0], [10.0, 50.0, 20.0, 41.0]
BLANK = Measurement(
    schema_version=SCHEMA_VERSION,
    cell="random.linear.s0.00000000",
    pretext="random",
    encoder="alexnet",
    pretrain_data="",
    images_seen=0,
    probe="linear",
    stage="conv3",
    data="scenes",
    data_fingerprint="f",
    split="test",
    metric="top1",
    value=0.0,
    unit="%",
    higher_is_better=True,
    chance=10.0,
    n=3,
    headline=True,
    seed=0,
    wall_s=1.0,
    peak_mem_bytes=1,
    device="cpu",
    config_json="{}",
    encoder_sha256="",
    git_sha="",
    git_dirty=False,
    torch_version="",
    started_at="2026-01-01T00:00:00+00:00",
)


@dataclasses.dataclass(frozen=True)
class Constant(Probe):
    """Yields one number per item: `value` + `seed`. Mood `raise` fails, `die` kills the process."""

    needs: ClassVar = (frozenset({"label"}),)
    value: float = 1.0
    mood: str = ""

    def evaluate(self, encoder, data, out=None):
        if self.mood == "raise":
            raise RuntimeError("a bad day\nwith details")
        if self.mood == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        items = np.full(len(data.split("test")), self.value + self.seed)
        yield Score("top1", float(items.mean()), "%", True, 10.0, len(items), headline=True, items=items)


@dataclasses.dataclass(frozen=True)
class Masked(Constant):
    """Like `Constant`, for data sets with masks."""

    needs: ClassVar = (frozenset({"masks"}),)


class InProcess(Executor):
    """Computes each cell at once, in this process."""

    def __init__(self, out, workers=1, config=None):
        self.out, self.workers, self.threads = out, workers, torch.get_num_threads()
        self._finished: list[Outcome] = []

    def fits(self, cell):
        return not self._finished

    def start(self, cell):
        self._finished.append(run_cell(cell, self.out))

    def outcomes(self, timeout):
        finished, self._finished = self._finished, []
        if not finished:
            time.sleep(timeout)
        return finished

    def stop(self):
        pass


def run_smoke(out, *more):
    """Run the smoke profile with one worker; return the exit code."""
    return run_all.main(["--profile", "smoke", "--out", str(out), "--workers", "1", *more])


def recipe(*, rows=ROWS, training=None, **changes):
    """Return a small recipe; `rows` and `training` are as for `trained`."""
    fields = {
        "name": "tiny",
        "rows": trained(rows, training),
        "encoder": "alexnet?width=0.1&stem_stride=1",
        "image_size": 16,
        "train": TrainConfig(images=8, batch_size=4),
        "probes": {},
        "seeds": 1,
        "data": SPEC,
        "expected_s": {"pretrain": 100, "a": 10, "b": 20},
    }
    return Recipe(**(fields | changes))


def judging(*specs, probes=None):
    """Return data sets for a plan, each judged by the same probes."""
    opened = [open_data(spec, 16, bad_images="skip", download=False) for spec in specs]
    return [Judging(*each, probes or {"a": Constant(), "b": Constant(value=2)}) for each in opened]


def plan(
    probes=None, *, rows=ROWS, training=None, sources=(), seeds=1, spec=SPEC, more=(), pretrain_data=None, **changes
):
    """Return the plan of a small recipe; `sources` maps names of rows to encoders from elsewhere."""
    if pretrain_data is not None:
        pretrain_data = open_data(pretrain_data, 16, bad_images="skip", download=False)
    made = recipe(rows=rows, training=training, **changes)
    return make_plan(
        made,
        judging(spec, *more, probes=probes),
        rows=(*made.rows, *(Row(name, source=source) for name, source in dict(sources).items())),
        seeds=seeds,
        pretrain_data=pretrain_data,
    )


def row(pretext, items=None, *, seed=0, value=None, **fields):
    items = None if items is None else [float(item) for item in items]
    value = float(np.mean(items)) if value is None else value
    cell = fields.pop("cell", f"{pretext}.{fields.get('probe', 'linear')}.s{seed}.00000000")
    return dataclasses.replace(
        BLANK,
        pretext=pretext,
        items=items,
        value=value,
        seed=seed,
        cell=cell,
        n=len(items or "123"),
        **fields,
    )


def computed(planned, out, row, probe="a"):
    """Compute a row's first cell; return its encoder cell, itself and one of its measurements."""
    cell = next(cell for cell in planned.cells if (cell.pretext, cell.probe) == (row, probe))
    encoder = next(each for each in planned.cells if each.name == cell.made_by)
    for each in (encoder, cell):
        compute(each, out)
    return encoder, cell, next(m for m in read_measurements(out) if m.cell == cell.name)


def cell_names(planned):
    """Return the cells' names by row, probe and seed."""
    return {(cell.pretext, cell.probe, cell.seed): cell.name for cell in planned.cells}


def changed(folder, beginning, **fields):
    """Change fields of every measurement of a cell; return its name."""
    (path,) = (folder / "results").glob(f"{beginning}.*")
    content = json.loads(path.read_text())
    for each in content["measurements"]:
        each.update(fields)
    write_json(path, content)
    return path.stem

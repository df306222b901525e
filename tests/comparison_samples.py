"""Small comparisons for the tests: probes that cost nothing, a recipe, a plan, and measurements made by hand."""

from __future__ import annotations

import dataclasses
import os
import signal
from typing import ClassVar

import numpy as np

from benchmarks.computing import compute
from benchmarks.plan import make_plan, open_data
from benchmarks.recipes import Recipe
from benchmarks.results import SCHEMA_VERSION, Measurement, read_measurements
from pretext.judging import Probe, Score
from pretext.training.config import TrainConfig

SPEC = "scenes?size=16&train=8&val=4&test=4"
ROWS = {"random": None, "supervised": "supervised", "rotation": "rotation"}
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
    """Yields one number; or does as its mood says."""

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
    needs: ClassVar = (frozenset({"masks"}),)


def recipe(**changes):
    fields = {
        "name": "tiny",
        "rows": ROWS,
        "encoder": "alexnet?width=0.1&stem_stride=1",
        "image_size": 16,
        "train": TrainConfig(images=8, batch_size=4),
        "probes": {},
        "seeds": 1,
        "data": SPEC,
        "expected_s": {"pretrain": 100, "a": 10, "b": 20},
    }
    return Recipe(**(fields | changes))


def plan(judges=None, *, rows=ROWS, seeds=1, foreign=None, spec=SPEC, learned=None, **changes):
    source, data = open_data(spec, 16, bad_images="skip", download=False)
    taught = None if learned is None else open_data(learned, 16, bad_images="skip", download=False)
    return make_plan(
        recipe(**changes),
        source,
        data,
        rows=rows,
        judges=judges or {"a": Constant(), "b": Constant(value=2)},
        seeds=seeds,
        foreign=foreign,
        learned=taught,
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
    """Compute a row's first cell; return its makers and one of its measurements."""
    cell = next(cell for cell in planned.cells if (cell.pretext, cell.probe) == (row, probe))
    maker = next(each for each in planned.cells if each.name == cell.made_by)
    for each in (maker, cell):
        compute(each, out)
    return maker, cell, next(m for m in read_measurements(out) if m.cell == cell.name)

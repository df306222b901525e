"""Cells and worker processes, for real; the GPU that each worker sees; the options of executors."""

from __future__ import annotations

import dataclasses
import gc
import importlib.util
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from comparison_samples import SPEC, Constant

from benchmarks.executors import local
from benchmarks.executors.base import Outcome, run_cell, run_on_node
from benchmarks.executors.choosing import chosen_executor
from benchmarks.executors.local import LocalProcesses
from benchmarks.executors.ray import _room
from benchmarks.executors.schedule import Estimate, run
from benchmarks.executors.slurm import SlurmJobs
from benchmarks.planning.cells import Cell, encoder_cell, probe_cell
from benchmarks.planning.making import open_data
from benchmarks.records.results import read_failures, read_measurements
from pretext.system import device
from pretext.system.errors import UserError
from pretext.training.config import TrainConfig

ALONE, PAIR = SimpleNamespace(processes=1), SimpleNamespace(processes=2)


def source():
    return open_data(SPEC, 16, bad_images="skip", download=False)[0]


def random_cells(**probes):
    encoder = encoder_cell(
        "random",
        seed=0,
        data=source(),
        encoder="alexnet?width=0.1&stem_stride=1",
        task="random",
        train=TrainConfig(images=1),
    )
    return encoder, {name: probe_cell(encoder, name, each, seed=0) for name, each in probes.items()}


def test_a_cell_s_rows_say_everything(tmp_path):
    encoder, cells = random_cells(a=Constant(value=3))
    assert run_cell(encoder, tmp_path).state == "done"
    assert run_cell(cells["a"], tmp_path).state == "done"
    (row,) = read_measurements(tmp_path)
    assert (row.cell, row.pretext, row.probe, row.metric, row.value) == (
        cells["a"].name,
        "random",
        "a",
        "top1",
        3.0,
    )
    assert (row.data, row.n, row.items, row.headline, row.seed) == (SPEC, 4, [3.0] * 4, True, 0)
    assert row.images_seen == 8  # all that there are, for the statistics of batch normalisation
    assert row.peak_mem_bytes > 10e6
    assert len(row.encoder_sha256) == 64
    assert json.loads(row.config_json)["pretrain"] == encoder.name


@pytest.mark.slow
def test_the_pool_survives_cells_that_fail_and_workers_that_die(tmp_path):
    encoder, cells = random_cells(a=Constant(), b=Constant(mood="raise"), c=Constant(mood="die"))
    reports: list[tuple[Cell, Outcome, int, float]] = []
    failures = run(
        [encoder, *cells.values()],
        tmp_path,
        LocalProcesses(tmp_path, 1),
        expected=Estimate({"a": 1.0, "b": 2.0, "c": 3.0}, 1),
        progress=lambda *each: reports.append(each),
    )
    assert set(failures) == {cells["b"].name, cells["c"].name}
    assert "SIGKILL" in failures[cells["c"].name]
    assert failures[cells["b"].name] == "RuntimeError: a bad day"
    assert [row.cell for row in read_measurements(tmp_path)] == [cells["a"].name]
    assert {failure["cell"] for failure in read_failures(tmp_path)} == set(failures)
    assert [cell.probe for cell, *_ in reports] == ["", "c", "b", "a"]


@dataclasses.dataclass(frozen=True)
class Wasteful(Constant):
    """Leaves 300 MB in objects that refer to each other."""

    def evaluate(self, encoder, data, out=None):
        held = [np.full(300 * 2**20, 1, dtype=np.uint8)]
        held.append(held)
        gc.collect()  # what is still in use counts as old afterwards, and Python seldom looks at it again
        yield from super().evaluate(encoder, data, out)


@pytest.mark.slow
def test_a_cell_does_not_report_what_earlier_ones_have_left(tmp_path):
    encoder, cells = random_cells(a=Wasteful(), b=Wasteful(value=2), c=Wasteful(value=3), d=Wasteful(value=4))
    pool = LocalProcesses(tmp_path, 1)
    run([encoder, *cells.values()], tmp_path, pool, expected=Estimate({}, 1), progress=lambda *each: None)
    peaks = [row.peak_mem_bytes for row in read_measurements(tmp_path)]
    assert len(peaks) == 4 and max(peaks) < min(peaks) + 150e6


@pytest.fixture
def gpus_of_workers(monkeypatch):
    """A machine that seems to have four GPUs; return what the environment of each started worker says of them."""
    seen: list[str | None] = []

    class Process:
        exitcode = None

        def __init__(self, **_):
            pass

        def start(self):
            seen.append(os.environ.get("CUDA_VISIBLE_DEVICES"))

    connections = SimpleNamespace(close=lambda: None, send=lambda given: None)
    context = SimpleNamespace(Pipe=lambda: (connections, connections), Process=Process)
    monkeypatch.setattr(local.multiprocessing, "get_context", lambda kind: context)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(device, "device_of", lambda name: torch.device("cuda"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return seen


@pytest.mark.parametrize(
    ("visible", "workers", "seen"),
    [
        (None, None, ["0", "1", "2", "3"]),
        ("4,5,6,7", None, ["4", "5", "6", "7"]),
        ("GPU-a,GPU-b,GPU-c,GPU-d", 2, ["GPU-a", "GPU-b"]),
        (None, 6, ["0", "1", "2", "3", "0", "1"]),
    ],
)
def test_each_worker_sees_a_gpu_of_its_own(tmp_path, gpus_of_workers, monkeypatch, visible, workers, seen):
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    pool = LocalProcesses(tmp_path, workers)
    assert pool.workers == len(seen)
    while pool.fits(ALONE):
        pool.start(ALONE)
    assert gpus_of_workers == seen
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible

    lost = pool._pool.pop(1)  # the worker that replaces a dead one takes its GPU
    pool.start(ALONE)
    assert pool._pool[-1].gpu == lost.gpu


def test_a_cell_of_several_processes_takes_as_many_gpus(tmp_path, gpus_of_workers):
    pool = LocalProcesses(tmp_path, None)
    pool.start(ALONE)
    assert pool.fits(PAIR)
    pool.start(PAIR)
    assert not pool.fits(PAIR) and pool.fits(ALONE)
    pool.start(ALONE)
    assert [worker.gpus for worker in pool._pool] == [("0",), ("1", "2"), ("3",)]
    assert not pool.fits(ALONE)
    pool._pool[1].cell = None
    for _ in range(2):
        pool.start(ALONE)
    assert [worker.gpus for worker in pool._pool] == [("0",), ("1",), ("3",), ("2",)]


def test_a_cell_of_more_processes_than_gpus_is_one_line(tmp_path, gpus_of_workers):
    with pytest.raises(UserError, match="--gpus-per-cell 8: this machine has 4 GPUs"):
        LocalProcesses(tmp_path, None).fits(SimpleNamespace(processes=8))


def test_without_gpus_a_cell_of_several_processes_runs_alone_if_there_are_fewer_workers(tmp_path):
    pool = LocalProcesses(tmp_path, 1)
    assert pool.fits(PAIR)
    pool._pool.append(SimpleNamespace(cell=ALONE))
    assert not pool.fits(PAIR)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("slrum", (), "unknown executor 'slrum'; did you mean 'slurm'"),
        ("local", ("gpus=1",), "--executor local has no options; leave out --executor-option gpus=1"),
        ("slurm", ("gpus",), "--executor-option gpus: write KEY=VALUE"),
        ("slurm", ("partion=gpu",), "--executor slurm: unknown option 'partion'; did you mean 'partition'"),
        ("slurm", ("gpus=two",), "--executor slurm: gpus=two: expected a whole number"),
        ("slurm", ("gpus=2",), "--executor slurm: gpus is 2; allowed is 0 or 1"),
        ("slurm", ("cpus=0",), "--executor slurm: cpus is 0; allowed is 1 or more"),
        ("slurm", ("time=4",), "--executor slurm: time is 4; allowed is 5 or more minutes"),
        ("slurm", ("memory=lots",), "--executor slurm: memory is lots; allowed is a whole number with"),
        ("ray", ("gpus=1.5",), "--executor ray: gpus is 1.5; allowed is from 0 to 1"),
        ("ray", ("cpus=0",), "--executor ray: cpus is 0.0; allowed is above 0"),
        ("ray", ("adress=auto",), "--executor ray: unknown option 'adress'; did you mean 'address'"),
        ("ray", (), "--executor ray: ray is not installed; run pip install 'pretext-bench[ray]'"),
    ],
)
def test_an_executor_that_cannot_be_used_is_one_line(monkeypatch, name, options, message):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UserError) as caught:
        chosen_executor(name, options)
    assert str(caught.value).startswith(message)


def test_options_become_the_executor_s_settings(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: package)
    pairs = ("partition=gpu", "gpus=1", "setup=export A=1; module load cuda", "leave=yes", "partition=big")
    kind, config = chosen_executor("slurm", pairs)
    assert kind is SlurmJobs
    assert config == SlurmJobs.Config(partition="big", gpus=1, setup="export A=1; module load cuda", leave=True)


def test_a_machine_without_slurm_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no sbatch here; start this on a machine of the cluster"):
        SlurmJobs(tmp_path, None, SlurmJobs.Config())


@pytest.mark.parametrize(
    ("node", "needs", "cells"),
    [
        ({"CPU": 4.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 0.5}, 2),
        ({"CPU": 4.0, "GPU": 2.0}, {"CPU": 1.0, "GPU": 0.1}, 4),
        ({"CPU": 4.0, "GPU": 2.0}, {"CPU": 1.5, "GPU": 0.0}, 2),
        ({"CPU": 4.0}, {"CPU": 1.0, "GPU": 1.0}, 0),
    ],
)
def test_a_node_has_room_for_cells_by_its_scarcest_resource(node, needs, cells):
    assert _room(node, needs) == cells


def test_a_node_that_does_not_see_the_folder_says_so(tmp_path):
    encoder, _ = random_cells()
    outcome = run_on_node(encoder, tmp_path / "results", tmp_path)
    assert outcome.state == "unusable"
    assert "give an --out that all nodes share" in outcome.error
    assert not (tmp_path / "results").exists()

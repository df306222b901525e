"""Cells and worker processes, for real."""

from __future__ import annotations

import json

import pytest
from comparison_samples import SPEC, Constant

from benchmarks.cells import Cell, encoder_cell, probe_cell
from benchmarks.executor import LocalProcesses, Outcome, run_cell
from benchmarks.plan import open_data
from benchmarks.results import read_failures, read_measurements
from benchmarks.schedule import Estimate, run
from pretext.training.config import TrainConfig


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

"""Encoders that several processes train together: their cells, their cost, and the command's flag."""

from __future__ import annotations

import json

import pytest
from comparison_samples import InProcess, plan, run_smoke

from benchmarks.executors.computing import compute
from benchmarks.executors.schedule import Estimate
from benchmarks.folders.progress import seconds_left, status
from benchmarks.folders.reproduction import stored_cell
from benchmarks.records.environment import read_environments, write_environment
from benchmarks.records.results import encoder_path, read_measurements, read_plan
from downstream.probes.knn import Knn
from pretext.system.errors import UserError
from pretext.training.config import TrainConfig

ROWS = {"random": "random", "kmeans": "kmeans", "rotation": "rotation"}


def cells(processes):
    return {cell.pretext: cell for cell in plan(rows=ROWS, processes=processes).cells if cell.protocol is None}


def test_the_number_is_a_setting_of_what_takes_steps():
    one, two = cells(1), cells(2)
    assert {row: cell.processes for row, cell in two.items()} == {"random": 1, "kmeans": 1, "rotation": 2}
    assert {row for row in ROWS if one[row].name == two[row].name} == {"random", "kmeans"}
    settings = [json.loads(each["rotation"].settings) for each in (one, two)]
    assert settings[1] == settings[0] | {"processes": 2, "batch_statistics": "of all processes"}


def test_probes_take_one_process():
    assert {cell.processes for cell in plan(rows=ROWS, processes=2).cells if cell.protocol is not None} == {1}


def test_batches_that_cannot_be_split_are_one_line(smoke):
    with pytest.raises(
        UserError, match=r"--gpus-per-cell 3: row supervised has batches of 4 images; give a number that"
    ):
        run_smoke(smoke, "--tasks", "rotation", "--gpus-per-cell", "3")


def test_a_number_below_one_is_one_line(smoke):
    with pytest.raises(UserError, match="--gpus-per-cell is 0; allowed is 1 or more"):
        run_smoke(smoke, "--gpus-per-cell", "0")


def test_the_forecast_says_that_one_process_was_measured(smoke, capsys):
    run_smoke(smoke, "--gpus-per-cell", "2", "--dry-run")
    assert "those of one process; 2 share the work" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_an_encoder_is_trained_by_both_and_found_again(tmp_path):
    train = TrainConfig(images=64, batch_size=4, workers=0)
    planned = plan({"knn": Knn()}, rows={"rotation": "rotation"}, processes=2, train=train)
    for cell in planned.cells:
        compute(cell, tmp_path)
    trained, probe, *_ = planned.cells
    record = json.loads((encoder_path(tmp_path, trained.name).parent / "run.json").read_text())
    assert record["processes"] == 2 and record["images_seen"] == 64
    planned.write(tmp_path, [])
    stored = next(m for m in read_measurements(tmp_path) if m.cell == probe.name)
    again, _ = stored_cell(tmp_path, stored)
    assert (again.name, again.processes) == (trained.name, 2)


def test_the_time_left_knows_that_a_cell_takes_several_workers():
    trained = [cell for cell in plan(rows=ROWS, processes=2, seeds=4).cells if cell.pretext == "rotation"]
    encoders, probes = [c for c in trained if c.trains], [c for c in trained if c.probe]
    local, jobs = (Estimate({"pretrain": 10, "a": 1, "b": 1}, 3, counts) for counts in (True, False))
    # two share the work of 10 s; of three workers two train, and a probe has one
    assert local.of_all(encoders) == 4 * 5
    assert local.of_all(probes) == len(probes) / 3
    assert jobs.of_all(encoders) == pytest.approx(4 * 5 / 3)  # a job has its own machine
    for each in (local, jobs):
        each.learn(encoders[0], 20.0)  # four times as slow as expected
        assert each.of(probes[0]) == 4.0
    assert local.of_all(encoders) == 4 * 20
    assert jobs.of_all(encoders) == pytest.approx(4 * 20 / 3)
    assert Estimate({"pretrain": 10}, 1, True).of_all(encoders) == 4 * 5  # alone: more processes than workers


def test_status_knows_it_too(tmp_path):
    planned = plan(rows={"rotation": "rotation"}, processes=2, seeds=2)
    planned.write(tmp_path, [])
    write_environment(tmp_path, workers=2, threads=1, counts_processes=True)
    found = status(tmp_path)
    expected = Estimate(planned.recipe.expected_s, 2, True)
    assert seconds_left(tmp_path, *found) == (expected.of_all(planned.cells), 2)
    assert expected.of_all(planned.cells) > Estimate(planned.recipe.expected_s, 2).of_all(planned.cells)


def test_the_command_counts_the_workers_of_a_cell(smoke, monkeypatch):
    monkeypatch.setattr(InProcess, "counts_processes", True)
    run_smoke(smoke, "--gpus-per-cell", "2")
    assert read_environments(smoke)[-1]["counts_processes"] is True
    assert {cell["processes"] for cell in read_plan(smoke)["cells"]} == {1, 2}

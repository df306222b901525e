"""Rows on disk: whole or absent, of one schema, and never a NaN."""

from __future__ import annotations

import csv
import dataclasses
import json

import pytest
from test_verdict import BLANK, row

from benchmarks.results import (
    Measurement,
    read_costs,
    read_failures,
    read_measurements,
    write_cell,
    write_csv,
    write_failure,
)
from pretext.errors import UserError

FIELDS = [
    "schema_version",
    "cell",
    "pretext",
    "encoder",
    "pretrain_data",
    "images_seen",
    "probe",
    "stage",
    "data",
    "data_fingerprint",
    "split",
    "metric",
    "value",
    "unit",
    "higher_is_better",
    "chance",
    "n",
    "headline",
    "seed",
    "wall_s",
    "peak_mem_bytes",
    "device",
    "config_json",
    "encoder_sha256",
    "git_sha",
    "git_dirty",
    "torch_version",
    "started_at",
    "items",
]


def test_the_schema_is_what_readers_hold():
    assert [field.name for field in dataclasses.fields(Measurement)] == FIELDS


def test_what_is_written_is_read_to_the_last_bit(tmp_path):
    rows = [
        row("random", [0.1 + 0.2, 1 / 3, 1e-17]),
        row("random", value=0.1 + 0.7, chance=None, metric="mIoU"),
    ]
    path = write_cell(tmp_path, "random.linear.s0.00000000", rows)
    assert path == tmp_path / "results" / "random.linear.s0.00000000.json"
    assert read_measurements(tmp_path) == rows
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing temporary stays


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused_and_leaves_no_file(tmp_path, value):
    with pytest.raises(ValueError, match="top1"):
        write_cell(tmp_path, "c", [dataclasses.replace(BLANK, value=value)])
    with pytest.raises(ValueError, match="top1"):
        write_cell(tmp_path, "c", [dataclasses.replace(BLANK, items=[1.0, value])])
    assert not list(tmp_path.rglob("*.json"))


def test_a_cell_without_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no score"):
        write_cell(tmp_path, "c", [])


def test_another_schema_is_refused_by_name(tmp_path):
    path = write_cell(tmp_path, "c", [BLANK])
    content = json.loads(path.read_text())
    content["schema_version"] = 99
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"c\.json: schema_version is 99"):
        read_measurements(tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": 1, "measurements": [{"cell": "c"}]}'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "c.json").write_text(text)
    with pytest.raises(UserError, match=r"c\.json"):
        read_measurements(tmp_path)


def test_no_results_are_no_error(tmp_path):
    assert read_measurements(tmp_path) == []


def test_the_csv_has_every_column_but_the_items(tmp_path):
    write_cell(tmp_path, "c", [row("context_encoder:adversarial", [1, 2], chance=None)])
    with write_csv(tmp_path).open(newline="") as file:
        (read,) = csv.DictReader(file)
    assert list(read) == FIELDS[:-1]
    assert (read["pretext"], float(read["value"]), read["chance"]) == ("context_encoder:adversarial", 1.5, "")


def test_a_failure_keeps_its_traceback_until_the_cell_succeeds(tmp_path):
    try:
        raise RuntimeError("no such luck")
    except RuntimeError as error:
        write_failure(tmp_path, "c", error, pretext="random")
    (failure,) = read_failures(tmp_path)
    assert failure["error"] == "RuntimeError: no such luck"
    assert "test_results.py" in failure["traceback"]
    assert read_measurements(tmp_path) == []
    write_cell(tmp_path, "c", [BLANK])
    assert read_failures(tmp_path) == []


def test_costs_are_the_mean_over_seeds(tmp_path):
    cells = [{"name": f"rotation.s{seed}.x", "pretext": "rotation", "probe": ""} for seed in (0, 1)]
    (tmp_path / "plan.json").write_text(json.dumps({"cells": cells}))
    for cell, seconds in zip(cells, (10, 30), strict=True):
        folder = tmp_path / "pretrain" / cell["name"]
        folder.mkdir(parents=True)
        run = {"images_seen": 5, "wall_s": seconds, "peak_mem_bytes": 7, "task": "rotation"}
        (folder / "run.json").write_text(json.dumps(run))
    assert dataclasses.astuple(read_costs(tmp_path)["rotation"]) == (5, 20, 7)
    assert read_costs(tmp_path / "nowhere") == {}

"""The results folder: files are complete or absent, have one schema, and never contain a NaN."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import pytest
from comparison_samples import BLANK, row

from benchmarks.records.results import (
    Measurement,
    read_failures,
    read_measurements,
    read_plan,
    write_cell,
    write_csv,
    write_failure,
    write_json,
    write_parquet,
    write_plan,
)
from benchmarks.summaries.costs import Cost, cost_texts, read_costs
from pretext.system.errors import UserError

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
def test_a_number_that_is_not_finite_is_refused_and_leaves_no_file(tmp_path, value):
    with pytest.raises(ValueError, match="top1"):
        write_cell(tmp_path, "c", [dataclasses.replace(BLANK, value=value)])
    with pytest.raises(ValueError, match="top1"):
        write_cell(tmp_path, "c", [dataclasses.replace(BLANK, items=[1.0, value])])
    assert not list(tmp_path.rglob("*.json"))


def test_a_cell_without_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no score"):
        write_cell(tmp_path, "c", [])


@pytest.mark.parametrize("version", [0, 2, None])
def test_another_schema_older_or_newer_is_refused_by_name(tmp_path, version):
    path = write_cell(tmp_path, "c", [BLANK])
    write_json(path, json.loads(path.read_text()) | {"schema_version": version})
    with pytest.raises(UserError, match=rf"c\.json: schema_version is {version}, this suite reads 1; move the file"):
        read_measurements(tmp_path)


def test_a_plan_of_another_schema_is_refused_and_one_that_says_nothing_is_read(tmp_path):
    assert read_plan(tmp_path) == {}
    write_plan(tmp_path, {"cells": [], "profile": "smoke"})
    assert read_plan(tmp_path)["profile"] == "smoke"
    for version in (0, 2, None):
        write_json(tmp_path / "plan.json", {"cells": [], "schema_version": version})
        with pytest.raises(UserError, match=rf"plan\.json: schema_version is {version}, this suite reads 1; move it"):
            read_plan(tmp_path)
    write_json(tmp_path / "plan.json", {"cells": []})
    assert read_plan(tmp_path) == {"cells": []}


@pytest.mark.parametrize("content", [[], {}, {"cells": 3}])
def test_what_is_no_plan_is_one_line(tmp_path, content):
    write_json(tmp_path / "plan.json", content)
    with pytest.raises(UserError, match=r"plan\.json: not the plan of a comparison; move it away and start"):
        read_plan(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"schema_version": 1, "measurements": [{"cell": "c"}]}', '{"schema_version": 1, "measurements": []}'],
)
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


@pytest.mark.parametrize("chance", [10.0, None])
def test_the_parquet_file_has_the_columns_of_the_csv(tmp_path, monkeypatch, chance):
    import importlib.util

    import pandas as pd

    frames = []

    def keep(frame, **options):
        frames.append((frame, options))
        return b"PAR1"

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "pyarrow")
    monkeypatch.setattr(pd.DataFrame, "to_parquet", keep)
    write_cell(tmp_path, "c", [row("rotation", [1, 2], chance=chance), row("rotation", [3, 4], metric="top5")])
    assert write_parquet(tmp_path) == tmp_path / "results.parquet"
    ((frame, options),) = frames
    assert options == {"engine": "pyarrow", "index": False}
    assert list(frame.columns) == FIELDS[:-1]
    assert frame["value"].tolist() == [1.5, 3.5]
    assert frame["headline"].dtype == bool
    assert frame["chance"].dtype == float


def test_what_was_written_to_parquet_is_read_again(tmp_path):
    pytest.importorskip("pyarrow")
    import pandas as pd

    out = tmp_path / "caf\udce9"  # pyarrow takes no such path
    write_cell(out, "c", [row("rotation", [1, 2], chance=None), row("rotation", [0.1 + 0.2], metric="top5")])
    frame = pd.read_parquet(io.BytesIO(write_parquet(out).read_bytes()))
    with write_csv(out).open(newline="") as file:
        read = list(csv.DictReader(file))
    assert frame["value"].tolist() == [float(line["value"]) for line in read]
    assert frame["cell"].tolist() == [line["cell"] for line in read]
    assert list(frame.columns) == FIELDS[:-1]


def test_without_pyarrow_no_parquet_file_stays(tmp_path, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    write_cell(tmp_path, "c", [BLANK])
    (tmp_path / "results.parquet").touch()
    assert write_parquet(tmp_path) is None
    assert not (tmp_path / "results.parquet").exists()


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
    assert dataclasses.astuple(read_costs(tmp_path, [])["rotation"]) == (5, 20, 7, None, None, False)
    for cell, counted in zip(cells, (100, 300), strict=True):
        more = run | {"flops_per_image": counted, "cpu_s": counted / 10, "train_config": {"seconds": 9.5}}
        (tmp_path / "pretrain" / cell["name"] / "run.json").write_text(json.dumps(more))
    assert dataclasses.astuple(read_costs(tmp_path, [])["rotation"])[-3:] == (5 * 200, 20, True)
    assert cost_texts(read_costs(tmp_path, [])["rotation"]) == ["5", "0.0", "20", "0"]
    nearly_four = Cost(images_seen=80_000, wall_s=1, peak_mem_bytes=1.4e9, flops=3.5e12, cpu_s=57.4)
    assert cost_texts(nearly_four) == ["80,000", "3.5", "57", "1,400"]
    assert cost_texts(None) == ["–"] * 4
    assert read_costs(tmp_path / "nowhere", []) == {}


@pytest.mark.parametrize("config", ["null", "{", '{"pretrain": 0.5}', '{"train": null}'])
def test_damaged_settings_in_a_result_are_one_line(tmp_path, config):
    write_cell(tmp_path, "c", [dataclasses.replace(BLANK, config_json=config)])
    with pytest.raises(UserError, match=r"c\.json: config_json: .*; move the file away"):
        read_measurements(tmp_path)


def test_a_name_that_is_not_utf8_reaches_the_csv(tmp_path):
    write_cell(tmp_path, "c", [dataclasses.replace(BLANK, data="folder:\udcff")])
    assert "folder:?" in write_csv(tmp_path).read_text()

"""Tests the comparison of two results folders: common cells, reasons for the others, and differences."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from comparison_samples import row
from scipy import stats

from benchmarks import run_all
from benchmarks.folders.comparison import compare_folders, rows_text, text
from benchmarks.records.results import write_cell, write_json
from benchmarks.summaries.verdict import summarise
from pretext.system.errors import UserError

SETTINGS = {"code": 2, "encoder": "alexnet", "seed": 0, "train": {"images": 8}, "data": {"test": "f"}}


def folder(path, measurements, *, settings=SETTINGS):
    """Write a results folder with one cell per row, probe and seed."""
    cells = {}
    for each in measurements:
        own = each.config_json if each.config_json != "{}" else json.dumps(settings)
        cells.setdefault(each.cell, []).append(dataclasses.replace(each, config_json=own))
    for name, rows in cells.items():
        write_cell(path, name, rows)
    return path


def seeds(pretext, values, **fields):
    return [row(pretext, value=value, seed=seed, **fields) for seed, value in enumerate(values)]


def only(changes):
    (change,) = changes
    return change


def test_the_difference_is_that_of_a_paired_t_test_over_seeds(tmp_path):
    ours, theirs = np.array([50.0, 60.0, 71.0, 80.0]), np.array([48.0, 59.0, 69.5, 77.0])
    one, other = folder(tmp_path / "a", seeds("x", ours)), folder(tmp_path / "b", seeds("x", theirs))
    change = only(compare_folders(one, other).changes)
    oracle = stats.ttest_rel(ours, theirs)
    ends = oracle.confidence_interval(0.95)
    assert change.difference.mean == pytest.approx((ours - theirs).mean())
    assert (change.difference.low, change.difference.high) == pytest.approx((ends.low, ends.high))
    assert change.difference.p == pytest.approx(oracle.pvalue)
    assert (change.better, change.outcome) == (True, "better")
    assert only(compare_folders(other, one).changes).outcome == "worse"


def test_one_seed_is_paired_by_test_item(tmp_path):
    rng = np.random.default_rng(0)
    hard = rng.normal(50, 20, 400)
    noise = rng.normal(1, 2, 400)
    one = folder(tmp_path / "a", [row("x", hard + noise)])
    other = folder(tmp_path / "b", [row("x", hard)])
    change = only(compare_folders(one, other).changes)
    ends = stats.ttest_1samp(noise, 0).confidence_interval(0.95)
    assert (change.difference.low, change.difference.high) == pytest.approx((ends.low, ends.high))


def test_a_lower_loss_is_better(tmp_path):
    one = folder(tmp_path / "a", seeds("x", (1.0, 1.1, 1.2), higher_is_better=False))
    other = folder(tmp_path / "b", seeds("x", (2.0, 2.2, 2.1), higher_is_better=False))
    assert only(compare_folders(one, other).changes).better is True


def test_equal_values_are_identical_and_common_facts_are_listed_once(tmp_path):
    rows = [*seeds("x", (1.0, 2.0)), row("y", [1, 2, 3])]
    printed = text(folder(tmp_path / "a", rows), folder(tmp_path / "b", rows))
    assert "3 cells in common\n2 metrics: 2 identical" in printed
    assert "same in both: code 2, device cpu\n" in printed  # not the facts that neither folder recorded
    assert "A minus B" not in printed


def test_a_single_pair_is_not_testable(tmp_path):
    one, other = folder(tmp_path / "a", seeds("x", (2.0,))), folder(tmp_path / "b", seeds("x", (1.0,)))
    change = only(compare_folders(one, other).changes)
    assert (change.identical, change.better, change.outcome) == (False, None, "not testable")
    assert "no interval" in text(one, other)


def test_identical_rows_do_not_enter_the_variance_prior(tmp_path):
    moved = {"x": [0.0, 2.0, 7.0], "y": [0.0, 1.0, 3.0], "z": [2.0, 1.0, 5.0]}  # too few rows for a variance prior
    still = [each for name in "ab" for each in seeds(name, (50.0, 50.0, 50.0))]
    there = [each for name in moved for each in seeds(name, (0.0, 0.0, 0.0))]
    here = [each for name, values in moved.items() for each in seeds(name, values)]
    one, other = folder(tmp_path / "a", [*still, *here]), folder(tmp_path / "b", [*still, *there])
    change = next(c for c in compare_folders(one, other).changes if c.pretext == "x")
    ends = stats.ttest_1samp(moved["x"], 0).confidence_interval(0.95)
    assert (change.difference.low, change.difference.high) == pytest.approx((ends.low, ends.high))


@pytest.mark.parametrize(
    ("changed", "fields", "why"),
    [
        ({"data": {"test": "f", "train": "g"}}, {}, "different data: scenes, different images"),
        ({}, {"data_fingerprint": "g", "data": "voc:V"}, "different data: scenes and voc:V"),
        ({"encoder": "timm:x"}, {"encoder": "timm:x"}, "different encoder: alexnet and timm:x"),
        ({"foreign": "0ff"}, {}, "different encoder: alexnet, different weights"),
        ({"train": {"images": 9}, "more": 1}, {}, "different settings: train.images 8 and 9, more (none) and 1"),
    ],
)
def test_cells_with_other_settings_are_counted_with_the_reason(tmp_path, changed, fields, why):
    one = folder(tmp_path / "a", [*seeds("x", (1.0, 2.0)), *seeds("y", (1.0, 2.0))])
    theirs = [
        dataclasses.replace(each, **fields, config_json=json.dumps(SETTINGS | changed))
        for each in seeds("x", (1.0, 2.0))
    ]
    other = folder(tmp_path / "b", [*theirs, *seeds("y", (1.0, 2.0))])
    found = compare_folders(one, other)
    assert found.not_compared == [f"not compared: 2 cells, {why}"]
    assert (found.common, only(found.changes).pretext) == (2, "y")


def test_cells_of_another_code_version_are_compared(tmp_path):
    one = folder(tmp_path / "a", seeds("x", (1.0, 2.0)))
    other = folder(tmp_path / "b", seeds("x", (1.0, 2.5)), settings=SETTINGS | {"code": 3, "pretrain": "elsewhere"})
    assert compare_folders(one, other).common == 2
    assert "code: A 2; B 3" in text(one, other)


def test_cells_of_one_folder_are_counted_by_what_the_other_lacks(tmp_path):
    shared = seeds("x", (1.0, 2.0))
    more = [
        *seeds("kmeans", (1.0, 2.0)),
        *seeds("x", (1.0, 2.0), probe="knn"),
        row("x", value=3.0, seed=2),
        *seeds("x", (9.0, 9.0), metric="top5", headline=False),
    ]
    found = compare_folders(folder(tmp_path / "a", [*shared, *more]), folder(tmp_path / "b", shared))
    assert found.not_compared == [
        "only in A: 5 cells: row kmeans (2), probe knn (2) and seed 2 (1)",
        "only in A: top5 of linear",
    ]
    backwards = compare_folders(tmp_path / "b", tmp_path / "a")
    assert [line.replace("only in B", "only in A") for line in backwards.not_compared] == found.not_compared


def test_the_header_names_versions_and_hardware(tmp_path):
    one = folder(tmp_path / "a", seeds("x", (1.0, 2.0), git_sha="old", torch_version="2.9", device="cpu"))
    other = folder(
        tmp_path / "b", seeds("x", (1.0, 2.0), git_sha="new", git_dirty=True, torch_version="2.9", device="L4")
    )
    named = dict.fromkeys(("python", "system", "device", "driver", "cuda"), "")
    entry = named | {"threads": 1, "processor": "EPYC", "workers": 1, "cores": 2, "packages": {}}
    write_json(one / "environment.json", [entry])
    lines = text(one, other).splitlines()
    assert lines[:2] == [f"A: {one}", f"B: {other}"]
    assert "revision: A old; B new with uncommitted changes" in lines
    assert "device: A cpu; B L4" in lines
    assert "threads: A 1; B unknown" in lines
    assert "same in both: code 2, PyTorch 2.9" in lines


def test_metrics_significant_after_holm_are_named(tmp_path):
    rng = np.random.default_rng(1)
    base = {name: rng.normal(50, 10, 400) for name in ("far", "near", "next")}
    noise = rng.normal(0, 2, 400)
    noise *= 2 / noise.std(ddof=1)
    noise -= noise.mean()
    one = folder(tmp_path / "a", [row(name, items) for name, items in base.items()])
    # 0.22 above zero is 2.2 standard errors: p = 0.03 alone, above 0.05 after correction for two
    shift = {"far": noise - 5, "near": noise + 0.22, "next": noise + 0.22}
    other = folder(tmp_path / "b", [row(name, items + shift[name]) for name, items in base.items()])
    assert [c.outcome for c in compare_folders(one, other).changes] == ["better", "worse", "worse"]
    assert text(one, other).splitlines()[-1] == "After Holm's correction for all 3: far linear better."
    one, other = (
        folder(tmp_path / name, [row("far", base["far"] + more)]) for name, more in (("c", 0), ("d", noise - 5))
    )
    assert text(one, other).splitlines()[-1] == "After Holm's correction for the one comparison: far linear better."


@pytest.mark.parametrize("pair", [("random", "c"), ("supervised", "c"), ("b", "c"), ("random", "supervised")])
def test_two_rows_are_compared_alike_in_either_order(tmp_path, pair):
    rng = np.random.default_rng(1)
    rows = ["random", "supervised", *"abcdef"]
    found = [row(name, rng.normal(at, 1 + at, 40), seed=seed) for at, name in enumerate(rows) for seed in range(3)]
    forth, back = (rows_text(found, *order, tmp_path).splitlines()[1] for order in (pair, pair[::-1]))
    numbers = [[float(each) for each in re.findall(r"[-+]\d+\.\d+", line)] for line in (forth, back)]
    assert numbers[0] == [-numbers[1][0], -numbers[1][2], -numbers[1][1]]
    assert {"better": "worse", "worse": "better"}.get(words := forth.split()[-1], words) == back.split()[-1]
    if "random" in pair:  # as in the report
        (s,) = [s for s in summarise(found) if s.pretext == pair[1]]
        assert numbers[1] == pytest.approx([s.difference, s.difference_low, s.difference_high], abs=0.006)


def test_two_folders_or_two_rows_are_compared_and_a_mixture_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [*seeds("x", (1.0, 2.0)), *seeds("y", (1.0, 2.0))]
    folder(tmp_path / "a", rows)
    folder(tmp_path / "b", rows)
    (tmp_path / "x").mkdir()  # without results it is not a results folder
    assert run_all.main(["compare", "a", "b"]) == 0
    assert "4 cells in common" in capsys.readouterr().out
    assert run_all.main(["compare", "x", "y", "--out", "a"]) == 0
    assert "x minus y" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"^x holds no results, but a does; give two results folders, or two rows"):
        run_all.main(["compare", "a", "x"])
    with pytest.raises(UserError, match=r"^--out a applies to two rows of one folder"):
        run_all.main(["compare", "a", "b", "--out", "a"])


def test_folders_without_a_common_cell_give_the_reason_in_one_line(tmp_path):
    one = folder(tmp_path / "a", seeds("x", (1.0,)))
    other = folder(tmp_path / "b", seeds("y", (1.0,)))
    with pytest.raises(UserError, match=r"no cell in common; only in A: 1 cell: row x \(1\); only in B: 1 cell: row"):
        text(one, other)


@pytest.mark.parametrize("version", [0, 2, None])
def test_a_folder_with_another_schema_version_is_refused(tmp_path, version):
    one, other = (folder(tmp_path / name, seeds("x", (1.0,))) for name in "ab")
    (path,) = (other / "results").glob("*.json")
    write_json(path, json.loads(path.read_text()) | {"schema_version": version})
    with pytest.raises(UserError, match=rf"s0\.00000000\.json: schema_version is {version}, this suite reads 1"):
        compare_folders(one, other)

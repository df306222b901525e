"""The profiles: what the smoke profile must reach, and what it must keep."""

from __future__ import annotations

import pytest
from comparison_samples import run_smoke

from benchmarks.options import Options, plan_of
from benchmarks.planning.probes import probe_names
from benchmarks.planning.recipes import laptop, smoke
from benchmarks.planning.rows import PLAIN
from benchmarks.records.results import read_measurements

KEPT = {
    "supervised.knn.s0.6f71f520",
    "supervised.detection.s0.71e5e2db",
}
"""Cells whose settings stay, by their names under version 3 of the results' code."""


def test_smoke_runs_every_row_and_probe_of_laptop_and_every_other_probe():
    assert [row.name for row in smoke().rows] == [row.name for row in laptop().rows]
    assert {*smoke().probes} == {*probe_names()} >= {*laptop().probes}
    assert {*smoke().expected_s} == {"pretrain", *smoke().probes}


def test_smoke_leaves_nothing_out_and_keeps_its_cells(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.planning.cells.CODE", 3)
    plan = plan_of(Options(profile="smoke", out=tmp_path / "out"))
    assert not plan.left_out
    assert {cell.name for cell in plan.cells} >= KEPT
    assert {cell.probe for cell in plan.cells if cell.pretext == "rotation"} == {"", *probe_names()} - {"inpainting"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_smoke_trains_every_row(tmp_path):
    """`test_run_all` computes every probe."""
    assert run_smoke(tmp_path, "--probes", "linear", "inpainting") == 0
    rows = {row.name for row in (*smoke().rows, *PLAIN)}
    assert {m.pretext for m in read_measurements(tmp_path) if m.probe == "linear"} == rows
    assert (tmp_path / "report.html").is_file()

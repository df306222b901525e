"""The profiles: what the smoke profile must reach, and what it must keep."""

from __future__ import annotations

import pytest
from comparison_samples import run_smoke

from benchmarks.options import Options, plan_of
from benchmarks.recipes import laptop, probe_names, smoke

KEPT = {
    "random.linear.s0.10dbc436",
    "random.knn.s0.ed9946c9",
    "random.segmentation.s0.4743e3ac",
    "random.retrieval.s0.509da2f7",
    "supervised.linear.s0.a7dd0c80",
    "supervised.knn.s0.09b0a628",
    "supervised.segmentation.s0.e8246873",
    "supervised.retrieval.s0.27b5a26a",
    "context_encoder.linear.s0.31b424a5",
    "context_encoder.knn.s0.979dd424",
    "context_encoder.segmentation.s0.16708b44",
    "context_encoder.retrieval.s0.2f2c0ab2",
    "context_encoder.inpainting.s0.b7d78c62",
}
"""Cells whose settings stay, by their names under version 3 of the results' code."""


def test_smoke_runs_every_row_and_probe_of_laptop_and_every_other_probe():
    assert {*smoke().rows} == {*laptop().rows}
    assert {*smoke().probes} == {*probe_names()} >= {*laptop().probes}
    assert {*smoke().expected_s} == {"pretrain", *smoke().probes}


def test_smoke_leaves_nothing_out_and_keeps_its_cells(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.cells.CODE", 3)
    plan = plan_of(Options(profile="smoke", out=tmp_path / "out"))
    assert not plan.left_out
    assert {cell.name for cell in plan.cells} >= KEPT
    assert {cell.probe for cell in plan.cells if cell.pretext == "rotation"} == {"", *probe_names()} - {"inpainting"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_smoke_fills_every_cell(tmp_path):
    assert run_smoke(tmp_path) == 0
    assert (tmp_path / "report.html").is_file()

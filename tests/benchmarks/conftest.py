"""The smoke profile at no cost, for the tests of the command and its subcommands."""

from __future__ import annotations

import signal

import pytest
from comparison_samples import Constant, InProcess, Masked, recipe

from benchmarks import report
from benchmarks.executors import choosing, computing, local
from benchmarks.forecast import telling
from benchmarks.planning import probes, recipes
from pretext.encoders import build_encoder, save_encoder


@pytest.fixture
def smoke(tmp_path, monkeypatch):
    """Replace the smoke profile by cheap probes and untrained encoders, computed in this process; return its OUT."""
    cheap = recipe(name="smoke", probes={"linear": Constant(value=40), "segmentation": Masked(value=20)})
    types = {"linear": Constant, "knn": Constant, "segmentation": Masked}
    monkeypatch.setitem(recipes.PROFILES, "smoke", lambda: cheap)
    monkeypatch.setattr(probes, "probe_types", lambda: types)
    monkeypatch.setitem(choosing.EXECUTORS, "local", InProcess)
    monkeypatch.setattr(local, "LocalProcesses", InProcess)
    monkeypatch.setattr(signal, "signal", lambda *given: None)
    monkeypatch.setattr(telling, "measured", lambda cells: ((cell, "no steps are taken") for cell in cells))
    monkeypatch.setattr(report, "write_report", lambda out: out / "report.html")

    def untrained(cell, out):
        encoder = build_encoder(cell.encoder, input_size=cell.data.size, seed=cell.seed)
        save_encoder(encoder, computing.encoder_path(out, cell.name), {"images_seen": 8, "data": cell.data.spec})

    monkeypatch.setattr(computing, "_make_encoder", untrained)
    return tmp_path / "out"

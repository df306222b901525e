"""The figure of scores against pictures seen: its table has the values and differences of the folders."""

from __future__ import annotations

import runpy
from pathlib import Path

from comparison_samples import row

from benchmarks.records.results import write_cell

SCRIPT = Path(__file__).parents[2] / "docs" / "figures" / "budget_curve.py"


def write_results(folder, seen, gain):
    """Write two seeds of three rows, the context encoder by `gain` above random weights, which reach 40 and 42."""
    for pretext, above in (("random", 0), ("context_encoder", gain), ("kmeans", 3)):
        for seed in range(2):
            images = seen if pretext == "context_encoder" else 256
            own = above + (seed - 0.5) * (pretext == "context_encoder")  # without differences there is no interval
            made = row(pretext, [40 + own + 2 * seed] * 4, seed=seed, headline=True, images_seen=images)
            write_cell(folder, made.cell, [made])


def test_each_budget_is_a_column_and_the_figure_is_drawn(tmp_path):
    script = runpy.run_path(str(SCRIPT))
    write_results(tmp_path / "large", 80_000, 5)
    write_results(tmp_path / "small", 20_000, -1)
    curves, seeds = script["read_curves"]([tmp_path / "large", tmp_path / "small"])
    assert sorted(seeds["linear", "context_encoder"]) == [
        (20_000, 38.5),
        (20_000, 41.5),
        (80_000, 44.5),
        (80_000, 47.5),
    ]
    found = script["table"](curves).set_index("row")
    assert list(found.columns) == ["probe", "20,000", "80,000"]
    assert found.loc["Random weights", "20,000"] == "41.0"
    assert found.loc["Context encoder", "20,000"].startswith("40.0 (-1.0, ")
    assert found.loc["Context encoder", "80,000"].startswith("46.0 (+5.0, ")
    script["draw"](curves, seeds, tmp_path / "budget.png")
    assert (tmp_path / "budget.png").stat().st_size > 10_000

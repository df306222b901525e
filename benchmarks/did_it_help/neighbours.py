"""A sheet of nearest neighbours for pictures without labels: the reader judges them by eye."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report.content import read_run
from benchmarks.report.neighbours import neighbours_by_row
from pretext.datasets import open_dataset
from pretext.datasets.drawing import save_sheet
from retrieval.sheets import neighbour_sheet

QUERIES, SHOWN = 4, 6
"""Number of test pictures on the sheet, and of neighbours of each."""


def write_neighbours(out: Path) -> Path:
    """Write OUT/neighbours.png: test pictures with the nearest training pictures of each row; return its path."""
    run = read_run(out)
    data = open_dataset(run.sets[""])
    queries, near = neighbours_by_row(run, data, mode="images", count=QUERIES, shown=SHOWN)
    path = out / "neighbours.png"
    save_sheet(neighbour_sheet(queries, near), path)
    return path

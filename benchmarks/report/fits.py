"""The fitted probes' own training curves: how far from flat each row stopped."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.planning.cells import slug
from benchmarks.report.content import Run
from benchmarks.report.plotting import Plot, blank_figure, legend_below, legend_height, look_of, plot_title
from benchmarks.words.naming import probe_title
from pretext.system.errors import UserError
from pretext.system.stored_json import Shape, read_json

CURVE: Shape = {"loss": [float]}
"""What a `curve.json` must hold: the loss of every step."""
POINTS = 20
"""Parts of a curve; each is drawn as the mean of its losses."""
LAST = 5
"""The change is that from the last but one to the last of so many parts."""


def fit_plots(run: Run) -> list[Plot]:
    """Return a figure for each probe that was fitted by steps: its training loss, a line per row."""
    found = {probe: _curves(run, probe) for probe in run.probes}
    return [_fit_plot(run, probe, curves) for probe, curves in found.items() if curves]


def late_change(curve: NDArray[np.float64]) -> float:
    """Return the relative change of the mean loss from the last but one fifth of the steps to the last."""
    *_, before, last = (float(part.mean()) for part in np.array_split(curve, LAST))
    return (last - before) / before if before else 0.0


def _curves(run: Run, probe: str) -> dict[str, NDArray[np.float64]]:
    """Return the loss of every step by row, averaged over the seeds; rows with too few steps are left out."""
    cells: dict[str, set[str]] = {}
    for m in run.measurements:
        if m.probe == probe:
            cells.setdefault(m.pretext, set()).add(m.cell)
    found = {}
    for row in run.rows:
        paths = [run.out / "artifacts" / cell / "curve.json" for cell in sorted(cells.get(row, ()))]
        curves = [curve for path in paths if path.exists() and (curve := _read(path)) is not None]
        steps = min(map(len, curves), default=0)
        if steps >= LAST:
            found[row] = np.mean([curve[:steps] for curve in curves], axis=0)
    return found


def _read(path: Path) -> NDArray[np.float64] | None:
    """Return the loss of every step; None, with a message, if the file is damaged."""
    try:
        return np.array(read_json(path, CURVE, remedy="its curve is left out")["loss"])
    except UserError as error:
        print(error, file=sys.stderr)
        return None


def _fit_plot(run: Run, probe: str, curves: Mapping[str, NDArray[np.float64]]) -> Plot:
    figure = blank_figure(2.8 + legend_height(map(run.title, run.shown)))
    axes = figure.subplots()
    for row, curve in sorted(curves.items(), key=lambda item: item[0] in run.shown):
        parts = np.array_split(np.arange(1, len(curve) + 1), min(POINTS, len(curve)))
        look = look_of(row, run.shown)
        look = look if row in run.shown else look | {"marker": "none"}
        places, heights = [part.mean() for part in parts], [curve[part - 1].mean() for part in parts]
        axes.plot(places, heights, label=run.title(row) if row in run.shown else None, **look)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    plot_title(axes, f"{probe_title(probe)}: the probe's own training")
    legend_below(figure, run, axes, others=len(curves.keys() - {*run.shown}))
    changes = {row: 100 * late_change(curve) for row, curve in curves.items()}
    listed = ", ".join(f"{run.title(row)} {change:+.0f} %" for row, change in changes.items())
    first, last = (min(changes, key=lambda row: changes[row]), max(changes, key=lambda row: changes[row]))
    return Plot(
        f"fit-{slug(probe)}",
        figure,
        f"Line plot of the training loss of {probe_title(probe)} by step. Change over the last fifth of the steps: "
        f"{listed}.",
        f"{probe_title(probe)}: training loss of the probe itself, mean over seeds. Over the last fifth of the steps "
        f"the mean loss changed by {changes[first]:+.0f} % ({run.title(first)}) to {changes[last]:+.0f} % "
        f"({run.title(last)}) against the fifth before; 0 % is flat. The learning rate falls to 0 at the last step.",
    )

"""The fitted probes' own training curves: how far from flat each row stopped."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.planning.cells import slug
from benchmarks.report.content import Run
from benchmarks.report.plotting import (
    Plot,
    blank_figure,
    blank_panels,
    legend_below,
    legend_height,
    look_of,
    panel_title,
    plot_title,
)
from benchmarks.words.naming import labels_title, probe_title
from pretext.system.errors import UserError
from pretext.system.stored_json import Shape, read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curves = dict[str, NDArray[np.float64]]
"""The loss of every step by row."""
Labels = tuple[int, float, str]
"""What a probe was fitted to, in the order of the panels: all labels, a share of them or so many per class; the number;
the title."""

CURVE: Shape = {"loss": [float]}
"""What a `curve.json` must hold: the loss of every step."""
SAMPLE = re.compile(r"(?:(?P<percent>[\d.e+-]+)%|k=(?P<each>\d+)) sample \d+")
"""Folders in which a probe on few labels keeps the curve of each sample, as in `10% sample 0`."""
POINTS = 20
"""Parts of a curve; each is drawn as the mean of its losses."""
LAST = 5
"""The change is that from the last but one to the last of so many parts."""


def fit_plots(run: Run) -> list[Plot]:
    """Return a figure for each probe that was fitted by steps: its training loss, a line per row.

    A probe on few labels has a panel for each share of the labels and each number of them per class.
    """
    found = {probe: _curves(run, probe) for probe in run.probes}
    return [_fit_plot(run, probe, panels) for probe, panels in found.items() if panels]


def late_change(curve: NDArray[np.float64]) -> float:
    """Return the relative change of the mean loss from the last but one fifth of the steps to the last."""
    *_, before, last = (float(part.mean()) for part in np.array_split(curve, LAST))
    return (last - before) / before if before else 0.0


def _curves(run: Run, probe: str) -> dict[str, Curves]:
    """Return the loss of every step by panel and row, averaged over seeds and samples.

    Rows with too few steps are left out. A panel is called by its labels; that of all labels has no name.
    """
    cells: dict[str, set[str]] = {}
    for m in run.measurements:
        if m.probe == probe:
            cells.setdefault(m.pretext, set()).add(m.cell)
    found: dict[Labels, Curves] = {}
    for row in run.rows:
        by_labels: dict[Labels, list[NDArray[np.float64]]] = {}
        for cell in sorted(cells.get(row, ())):
            folder = run.out / "artifacts" / cell
            for path in sorted([*folder.glob("curve.json"), *folder.glob("* sample */curve.json")]):
                curve = _read(path)
                if curve is not None:
                    by_labels.setdefault(_labels(path.parent.name), []).append(curve)
        for labels, curves in by_labels.items():
            steps = min(map(len, curves))
            if steps >= LAST:
                found.setdefault(labels, {})[row] = np.mean([curve[:steps] for curve in curves], axis=0)
    return {labels[-1]: found[labels] for labels in sorted(found)}


def _labels(folder: str) -> Labels:
    """Return the labels of a curve by the name of its folder: those of a sample, or all."""
    sample = SAMPLE.fullmatch(folder)
    if sample is None:
        return 0, 0.0, ""
    title = labels_title(sample["percent"], sample["each"])
    return (1, float(sample["percent"]), title) if sample["percent"] else (2, float(sample["each"]), title)


def _read(path: Path) -> NDArray[np.float64] | None:
    """Return the loss of every step; None, with a message, if the file is damaged."""
    try:
        return np.array(read_json(path, CURVE, remedy="its curve is left out")["loss"])
    except UserError as error:
        print(error, file=sys.stderr)
        return None


def _fit_plot(run: Run, probe: str, panels: Mapping[str, Curves]) -> Plot:
    legend = [*map(run.title, run.shown)]
    if len(panels) > 1:
        figure, drawn = blank_panels(len(panels), legend)
    else:
        figure = blank_figure(2.8 + legend_height(legend))
        drawn = [figure.subplots()]
    for axes, (title, curves) in zip(drawn, panels.items(), strict=True):
        _draw(axes, run, curves)
        if len(panels) > 1:
            panel_title(axes, title)
    if len(panels) == 1:
        about = f", {title}" if title else ""
        plot_title(drawn[0], f"{probe_title(probe)}{about}: the probe's own training")
    rows = {row for curves in panels.values() for row in curves}
    legend_below(figure, run, *drawn, others=len(rows - {*run.shown}))
    changes = {
        title: {run.title(row): 100 * late_change(curve) for row, curve in curves.items()}
        for title, curves in panels.items()
    }
    listed = "; ".join(
        ", ".join(f"{row} {change:+.0f} %" for row, change in of_row.items()) + _with(title)
        for title, of_row in changes.items()
    )
    ranges = "; ".join(_range(of_row) + _with(title) for title, of_row in changes.items())
    return Plot(
        f"fit-{slug(probe)}",
        figure,
        f"Line plot of the training loss of {probe_title(probe)} by step. Change over the last fifth of the steps: "
        f"{listed}.",
        f"{probe_title(probe)}: training loss of the probe itself, mean over seeds"
        f"{' and samples of labels' if any(panels) else ''}. Against the fifth of the steps before the last, the mean "
        f"loss of the last fifth changed by {ranges}; 0 % is flat. The learning rate falls to 0 at the last step.",
    )


def _draw(axes: Axes, run: Run, curves: Curves) -> None:
    """Draw a line per row, shown rows on top."""
    for row, curve in sorted(curves.items(), key=lambda item: item[0] in run.shown):
        parts = np.array_split(np.arange(1, len(curve) + 1), min(POINTS, len(curve)))
        look = look_of(row, run.shown)
        look = look if row in run.shown else look | {"marker": "none"}
        places, heights = [part.mean() for part in parts], [curve[part - 1].mean() for part in parts]
        axes.plot(places, heights, label=run.title(row) if row in run.shown else None, **look)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")


def _with(labels: str) -> str:
    """Return the words after what is said of a panel."""
    return f" with {labels}" if labels else ""


def _range(changes: Mapping[str, float]) -> str:
    """Return the smallest and the largest change, each with its row."""
    first, last = (found(changes, key=changes.__getitem__) for found in (min, max))
    return f"{changes[first]:+.0f} % ({first}) to {changes[last]:+.0f} % ({last})"

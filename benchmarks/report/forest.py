"""The forest plot: a panel per probe, a line per row, the difference from random weights with its interval."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.report.content import PERCENT, Run
from benchmarks.report.plotting import COLOURS, INK, PAPER, WIDTH, Plot, blank_figure, wrapped
from benchmarks.summaries.verdict import BASELINE, Summary
from benchmarks.words.columns import label_of, probe_of
from benchmarks.words.naming import metric_title, probe_title
from benchmarks.words.ordering import group_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REFERENCE = "#767676"
"""Grey of the reference rows: legible on white and on black."""
BETTER, WORSE = COLOURS[3], COLOURS[4]
"""Colours of rows that are significantly better and worse than random weights."""
WIDE = 11.0
"""Width in inches on screens, where up to `MOST_ACROSS` panels stand side by side; phones have two, at `WIDTH`."""
MOST_ACROSS = 6
SET_LETTERS = 18
"""Characters of a data set's label on one line above a panel."""
LINE = 0.2
"""Height in inches of a line of text on the axis of rows."""


def forest_plots(run: Run) -> list[Plot]:
    """Return the forest plot for screens and paper, and for phones; empty without differences from random weights."""
    columns: dict[str, dict[str, Summary]] = {}
    for (row, probe), summary in run.headlines().items():
        if summary.difference is not None:
            columns.setdefault(probe, {})[row] = summary
    if not columns:
        return []
    probes = [probe for probe in run.probes if probe in columns]
    rows = [row for row in run.rows if any(row in columns[probe] for probe in probes)]
    panels = [columns[probe] for probe in probes]
    return [
        _drawn("forest", run, rows, panels, across=min(MOST_ACROSS, len(panels)), width=WIDE),
        _drawn("forest-narrow", run, rows, panels, across=min(2, len(panels)), width=WIDTH),
    ]


def _drawn(
    name: str, run: Run, rows: Sequence[str], panels: Sequence[dict[str, Summary]], *, across: int, width: float
) -> Plot:
    names = [wrapped(run.title(row)) for row in rows]
    heights = [LINE * (text.count("\n") + 1) * (0.85 if "\n" in text else 1) for text in names]
    tops = [sum(heights[:at]) for at in range(len(rows) + 1)]
    middles = [top + height / 2 for top, height in zip(tops, heights, strict=False)]
    lines = math.ceil(len(panels) / across)
    title = max(_title(next(iter(column.values()))).count("\n") for column in panels)
    figure = blank_figure(0.35 + lines * (tops[-1] + 0.64 + 0.16 * title), width=width)
    grid = list(figure.subplots(lines, across, squeeze=False, sharey=True).flat)
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, column in zip(grid, panels, strict=False):
        one = next(iter(column.values()))
        axes.set_title(_title(one), loc="left", fontsize=10)
        _frame(axes, column)
        for row, middle in zip(rows, middles, strict=True):
            if row in column:
                _mark(axes, row, column[row], middle)
        for top, row, other in zip(tops[1:], rows, rows[1:], strict=False):
            if group_of(row) != group_of(other):
                axes.axhline(top, color=INK, linewidth=0.8)
        axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(tops[-1], 0)
        axes.set_yticks(middles, names)
        for label, row in zip(axes.get_yticklabels(), rows, strict=False):  # inner panels have none
            if group_of(row) == "reference":
                label.set_color(REFERENCE)
    figure.supxlabel("difference from random weights; right is better", fontsize=9.5)
    return Plot(name, figure, _alt(panels, run.title(BASELINE)), _caption())


def _title(summary: Summary) -> str:
    """Return probe, data set and metric of a panel, each on lines of its own."""
    on = [textwrap.fill(f"on {label}", SET_LETTERS)] if (label := label_of(summary.probe)) else []
    metric = textwrap.fill(metric_title(summary.metric, summary.unit), SET_LETTERS)
    return "\n".join([probe_title(probe_of(summary.probe)), *on, metric])


def _frame(axes: Axes, column: dict[str, Summary]) -> None:
    """Fit the horizontal axis to the rows without labels; right is better."""
    shown = [s for s in column.values() if not s.row.uses_labels] or [*column.values()]
    ends = [
        0.0,
        *(end for s in shown for end in (s.difference, s.difference_low, s.difference_high) if end is not None),
    ]
    room = 0.08 * (max(ends) - min(ends)) or 1.0
    axes.set_xlim(min(ends) - room, max(ends) + room)
    axes.locator_params(axis="x", nbins=4)
    if not shown[0].higher_is_better:
        axes.invert_xaxis()


def _mark(axes: Axes, row: str, summary: Summary, height: float) -> None:
    """Draw a row's difference: filled if it is significant after correction; beyond the frame as its number."""
    assert summary.difference is not None
    colour = {True: BETTER, False: WORSE, None: INK}[summary.better]
    colour = REFERENCE if group_of(row) == "reference" else colour
    low, high = sorted(axes.get_xlim())
    if not low <= summary.difference <= high:
        number = summary.text(summary.difference, "+")
        right = (summary.difference > high) == summary.higher_is_better
        text = f"{number} →" if right else f"← {number}"
        place: dict[str, Any] = {
            "ha": "right" if right else "left",
            "va": "center",
            "fontsize": 8.5,
            "color": REFERENCE,
        }
        axes.text(1.0 if right else 0.0, height, text, transform=axes.get_yaxis_transform(), **place)
        return
    if summary.difference_low is not None and summary.difference_high is not None:
        axes.plot([summary.difference_low, summary.difference_high], [height] * 2, color=colour, linewidth=1.4)
    inside = colour if summary.survives_holm else PAPER
    axes.plot(summary.difference, height, color=colour, marker="o", markersize=5.5, markerfacecolor=inside)


def _alt(panels: Sequence[dict[str, Summary]], baseline: str) -> str:
    parts = []
    for column in panels:
        texts = [
            f"{s.row.title} {s.text(s.difference or 0, '+')}{' (sure)' * bool(s.survives_holm)}"
            for s in column.values()
        ]
        parts.append(f"{probe_title(next(iter(column.values())).probe)}: {', '.join(texts)}")
    return f"Forest plot of differences from {baseline}, a panel per probe. {'. '.join(parts)}."


def _caption() -> str:
    return (
        f"Difference from random weights in each probe, with {PERCENT} intervals, paired by seed and test item; right "
        "is better. Filled: significant after Holm's correction for all comparisons; open: not. Blue: better, red: "
        "worse at the level of one comparison, black: neither. Grey rows are references. The frame fits the rows "
        "without labels; what lies beyond it is given as a number."
    )

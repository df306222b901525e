"""The learning curves of a probe on few labels: score against the number of labels, a line per row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.planning.cells import slug
from benchmarks.report.content import PERCENT, Run
from benchmarks.report.gallery import open_data
from benchmarks.report.plotting import Plot, blank_panels, legend_below, look_of, panel_title
from benchmarks.summaries.label_curves import label_counts
from benchmarks.summaries.verdict import Summary
from benchmarks.words.columns import label_of
from benchmarks.words.naming import FEW_LABELS, metric_title, probe_title
from pretext.system.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = dict[str, dict[float, Summary]]
"""Each row's scores by share of the labels in percent."""
PANELS = {"": "Linear probe", "tuned ": "Fine-tuned"}
"""Titles of the panels by the first word of the metric."""


def figure_name(probe: str) -> str:
    """Return the name of the figure of a probe's column."""
    return f"labels-{slug(probe)}"


def label_plots(run: Run) -> list[Plot]:
    """Return a figure for each column with scores on two or more shares of the labels."""
    drawn = []
    for probe in run.probes:
        panels = {title: points for start, title in PANELS.items() if (points := _points(run, probe, start))}
        if panels:
            drawn.append(_label_plot(run, probe, panels))
    return drawn


def _points(run: Run, probe: str, start: str) -> Points:
    """Return the scores of a column by row, in the metric of its headline; empty with fewer than two shares."""
    headline = next(s for s in run.summaries if s.headline and s.probe == probe)
    about = FEW_LABELS.fullmatch(headline.metric)
    points: Points = {}
    for s in run.summaries if about else ():
        found = FEW_LABELS.fullmatch(s.metric)
        if s.probe != probe or not found or not about or found["percent"] is None or found["sd"]:
            continue
        if (found["tuned"] or "", found["name"]) == (start, about["name"]):
            points.setdefault(s.pretext, {})[float(found["percent"])] = s
    return points if len({share for of_row in points.values() for share in of_row}) > 1 else {}


def _label_plot(run: Run, probe: str, found: dict[str, Points]) -> Plot:
    shares = sorted({share for points in found.values() for of_row in points.values() for share in of_row})
    places, names, axis = _places(run, probe, shares)
    figure, panels = blank_panels(len(found), [*map(run.title, run.shown)])
    scores = [s.mean for points in found.values() for of_row in points.values() for s in of_row.values()]
    room = 0.15 * (max(scores) - min(scores)) or 1.0
    one = next(s for points in found.values() for of_row in points.values() for s in of_row.values())
    about = FEW_LABELS.fullmatch(one.metric)
    assert about is not None
    metric = metric_title(about["name"], one.unit)
    for axes, (title, points) in zip(panels, found.items(), strict=True):
        for row in sorted(points, key=lambda row: row in run.shown):
            _line(axes, row, run, points[row], places)
        axes.set_xscale("log")
        axes.set_xticks([places[share] for share in shares], names)
        axes.minorticks_off()
        axes.set_ylim(min(scores) - room, max(scores) + room)
        axes.set_xlabel(axis)
        panel_title(axes, title)
    panels[0].set_ylabel(metric)
    legend_below(figure, run, *panels)
    ends = "; ".join(
        f"{title.lower()}: "
        + ", ".join(f"{run.title(row)} {_mean(of_row[min(of_row)])} to {_mean(of_row[max(of_row)])}"
                    for row, of_row in points.items())
        for title, points in found.items()
    )  # fmt: skip
    return Plot(
        figure_name(probe),
        figure,
        f"Line plots of {metric} against the {axis} ({', '.join(names)}), one line per row. From the fewest to the "
        f"most, {ends}.",
        f"{probe_title(probe)}: {metric} by number of labels, on a logarithmic scale. Bars: {PERCENT} intervals, cut "
        "at the frame.",
    )


def _places(run: Run, probe: str, shares: list[float]) -> tuple[dict[float, float], list[str], str]:
    """Return where each share lies on the axis, its name there, and the name of the axis.

    Shares are numbers of labels where the data can be opened, else percent.
    """
    try:
        data = open_data(run, label_of(probe))
        counts = label_counts(data, shares, size=run.plan["image_size"])
    except (UserError, OSError, KeyError):  # the data moved; there is no plan
        return {share: share for share in shares}, [f"{share:g} %" for share in shares], "share of the labels"
    return (
        {share: float(counts[share]) for share in shares},
        [f"{counts[share]:,}" for share in shares],
        "number of labels",
    )


def _line(axes: Axes, row: str, run: Run, of_row: dict[float, Summary], places: dict[float, float]) -> None:
    """Draw one row's curve, and the intervals of shown rows beside each other."""
    look, shown = look_of(row, run.shown), run.shown
    shares = sorted(of_row)
    shift = 1.0 if row not in shown else 1.035 ** (shown.index(row) - (len(shown) - 1) / 2)
    at = [places[share] * shift for share in shares]
    label = run.title(row) if row in shown else None
    axes.plot(at, [of_row[share].mean for share in shares], label=label, **look)
    for x, share in zip(at, shares, strict=True):
        low, high = of_row[share].low, of_row[share].high
        if row in shown and low is not None and high is not None:
            axes.plot([x, x], [low, high], color=look["color"], linewidth=1, alpha=0.6)


def _mean(summary: Summary) -> str:
    return summary.text(summary.mean)

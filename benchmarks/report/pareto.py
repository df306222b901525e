"""Score against pretraining cost, with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.planning.rows import UNTOUCHED
from benchmarks.report.content import Run, column_title
from benchmarks.report.plotting import INK, Plot, blank_panels, legend_below, look_of, panel_title, wrapped
from benchmarks.summaries.verdict import BASELINE
from benchmarks.words.naming import probe_title
from benchmarks.words.wording import and_list

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def pareto_front(cost: Mapping[str, float], quality: Mapping[str, float]) -> list[str]:
    """Return the rows that no other row dominates.

    A row dominates another if it costs no more and scores no less, and differs in cost or score.

    Args:
        cost: Cost by row.
        quality: Score by row; more is better. Rows without a cost are left out.

    Returns:
        Rows by increasing cost.
    """
    rows = [row for row in quality if row in cost]

    def dominates(one: str, other: str) -> bool:
        no_worse = cost[one] <= cost[other] and quality[one] >= quality[other]
        return no_worse and (cost[one], quality[one]) != (cost[other], quality[other])

    front = [row for row in rows if not any(dominates(other, row) for other in rows)]
    return sorted(front, key=lambda row: (cost[row], row))


def cost_plot(run: Run) -> Plot | None:
    """Draw the mean rank and each probe's headline number against pretraining cost, with Pareto fronts as steps."""
    cost, unit = _axis(run)
    panels = _cost_panels(run, cost)
    if not panels:
        return None
    figure, places = blank_panels(len(panels), [*map(run.title, run.shown)])
    for axes, panel in zip(places, panels, strict=True):
        panel_title(axes, panel.title)
        _cost_scale(axes, [value for value in cost.values() if value > 0])
        for row, value in panel.values.items():
            look = look_of(row, run.shown)
            if row == BASELINE:
                axes.axhline(value, color=INK, linestyle="--", linewidth=1, label=run.title(row))
                continue
            axes.plot(cost[row], value, label=run.title(row), **(look | {"linestyle": "none"}))
            if row in panel.ends:
                axes.plot([cost[row]] * 2, panel.ends[row], color=look["color"], linewidth=1, alpha=0.7)
        if panel.rising < 0:
            axes.invert_yaxis()
        _front_line(axes, panel, cost, run)
    for axes in places[-2:]:
        axes.set_xlabel(f"cost, {unit}")
    legend_below(figure, run, *places)
    fronts: dict[tuple[str, ...], list[str]] = {}
    for panel in panels:
        fronts.setdefault(tuple(run.title(row) for row in panel.front if row != BASELINE), []).append(panel.name)
    named = "; ".join(f"{', '.join(front) or 'no row'} in {and_list(names)}" for front, names in fronts.items())
    spent = "; ".join(f"{run.title(row)} {value:,.3g}" for row, value in cost.items() if row != BASELINE)
    return Plot(
        "cost",
        figure,
        f"Scatter plots of each probe's headline number against pretraining cost in {unit}: {spent}. "
        f"Pareto front of the rows without labels, by increasing cost: {named}.",
        f"Score against pretraining cost in {unit}; 95 % intervals; up is better. Dashed: random weights, at no cost. "
        f"Steps: Pareto front of the rows without labels, by their means. On the front, by increasing cost: {named}.",
    )


def _cost_scale(axes: Axes, costs: Sequence[float]) -> None:
    """Set the horizontal axis, the same for all panels; logarithmic if costs span more than a factor of ten."""
    from matplotlib.ticker import EngFormatter, NullFormatter

    low, high = min(costs, default=1.0), max(costs, default=1.0)
    if high > 10 * low:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.7, high * 1.7)
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(low - 0.15 * (high - low or low), high + 0.15 * (high - low or low))
        axes.locator_params(axis="x", nbins=4)
    if high >= 1000 or high > 10 * low:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


class _Panel(NamedTuple):
    """One plot: the scores of rows with a known cost, and the Pareto front."""

    name: str
    title: str
    rising: int
    """1 if more is better, else -1."""
    values: dict[str, float]
    ends: dict[str, tuple[float, float]]
    front: list[str]


def _axis(run: Run) -> tuple[dict[str, float], str]:
    """Return the cost of each row and its unit: seconds on the processor, or FLOPs if the budget was set in seconds."""
    costs = run.costs
    flops = {row: cost.flops for row, cost in costs.items() if cost.flops is not None}
    on_processor = {row: cost.cpu_s for row, cost in costs.items() if cost.cpu_s is not None}
    spent, unit = {row: cost.wall_s for row, cost in costs.items()}, "seconds"
    if on_processor.keys() == costs.keys():
        spent, unit = on_processor, "processor seconds"
    if any(cost.seconds_given for cost in costs.values()) and flops.keys() == costs.keys():
        spent, unit = flops, "FLOPs"
    # random weights cost nothing: the moment that drawing them took would stretch a logarithmic axis
    return {row: spent[row] for row in run.rows if row in spent and row != UNTOUCHED} | {BASELINE: 0.0}, unit


def _cost_panels(run: Run, cost: Mapping[str, float]) -> list[_Panel]:
    columns: list[tuple[str, str, int, dict[str, float], dict[str, tuple[float, float]]]] = []
    if run.ranking is not None:
        columns.append(("mean rank", "mean rank", -1, run.ranking.ranks, {}))
    for probe in run.probes:
        column = [s for s in run.summaries if s.headline and s.probe == probe]
        values = {s.pretext: s.mean for s in column}
        ends = {s.pretext: (s.low, s.high) for s in column if s.low is not None and s.high is not None}
        columns.append(
            (probe_title(probe), column_title(column[0]), 1 if column[0].higher_is_better else -1, values, ends)
        )
    panels = []
    for name, title, rising, values, ends in columns:
        known = {row: values[row] for row in run.rows if row in values and row in cost}
        if known.keys() <= {BASELINE}:
            continue
        quality = {row: rising * value for row, value in known.items() if not run.named(row).uses_labels}
        panels.append(_Panel(name, title, rising, known, ends, pareto_front(cost, quality)))
    return panels


def _front_line(axes: Axes, panel: _Panel, cost: Mapping[str, float], run: Run) -> None:
    """Draw the front as steps across the panel, and annotate its rows that the legend does not list.

    Random weights alone are no front: their line is there already.
    """
    if {*panel.front} <= {BASELINE}:
        return
    left, right = axes.get_xlim()
    corners = [(max(left, cost[row]), panel.values[row]) for row in panel.front]
    corners.append((right, corners[-1][1]))
    axes.step([x for x, _ in corners], [y for _, y in corners], where="post", color=INK, linewidth=1.1, zorder=1.5)
    axes.set_xlim(left, right)
    for row in panel.front:
        if row not in run.shown:
            at = (cost[row], panel.values[row])
            place = axes.transAxes.inverted().transform(axes.transData.transform(at))[0]
            side, shift = ("right", -3) if place > 0.5 else ("left", 3)
            axes.annotate(
                wrapped(run.title(row)), at, xytext=(shift, 3), textcoords="offset points", fontsize=8.5, ha=side
            )

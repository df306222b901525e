"""Plots: inline SVG for the page, whose black takes the page's colour by day and by night, and files for papers."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.listing import and_list
from benchmarks.report.content import Reading, Run
from benchmarks.verdict import BASELINE, CEILING, probe_key
from pretext.checkpoint import atomic_write

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#E69F00", "#009E73", "#56B4E9", "#0072B2", "#D55E00", "#CC79A7", "#999999")
"""Okabe and Ito's; a grey in place of their yellow, which vanishes on white."""
MARKERS = "osD^vPX*"
INK = "#010203"
"""Stands for the page's own text colour until the SVG is written."""
GREY = COLOURS[-1]
"""Also of the rows that are not singled out, where there are more than colours."""
WIDTH = 5.0
"""Inches; 72 units each, so that a letter of 10 is read as 10 px on a telephone."""
PANELS = 8
"""Learning curves in one figure, at most."""
DOTS_PER_INCH = 200
"""Of the PNG files."""


class Plot(NamedTuple):
    """A figure of the page."""

    name: str
    figure: Figure
    alt: str
    caption: str

    def inline(self) -> str:
        """Return its SVG as a part of an HTML page: no prologue, no metadata, names of its own."""
        with _style():
            file = io.StringIO()
            self.figure.savefig(file, format="svg", metadata={"Date": None})
        text = file.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
        text = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{self.name}-", text)
        text = text.replace('<style type="text/css">*{', f"<style>.{self.name} *{{", 1)
        opening = rf'<svg class="{self.name}" \1 aria-hidden="true">'
        text = re.sub(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', opening, text, count=1)
        return text.replace(INK, "currentColor")

    def write(self, folder: Path) -> None:
        """Write it as SVG, its letters as outlines so that it looks the same everywhere, and PNG, both on white."""
        with _style(**{"svg.fonttype": "path", "savefig.facecolor": "white"}):
            for kind in ("svg", "png"):
                with atomic_write(folder / f"{self.name}.{kind}") as beside:
                    about = {"Date": None} if kind == "svg" else None
                    self.figure.savefig(beside, format=kind, dpi=DOTS_PER_INCH, metadata=about)


def plots(run: Run) -> list[Plot]:
    """Return what can be drawn of a run: mean ranks, quality against cost, quality by depth, learning curves."""
    with _style():
        found = [_rank_plot(run), _cost_plot(run), *_depth_plots(run), *_learning_plots(run)]
    return [plot for plot in found if plot is not None]


def pareto_front(cost: Mapping[str, float], quality: Mapping[str, float]) -> list[str]:
    """Return the rows that no other row beats: as good or better at the same cost or less, and not equal in both.

    Args:
        cost: By row.
        quality: By row, more being better; rows without a cost are left out.

    Returns:
        From the cheapest to the best.
    """
    rows = [row for row in quality if row in cost]

    def beats(one: str, other: str) -> bool:
        no_worse = cost[one] <= cost[other] and quality[one] >= quality[other]
        return no_worse and (cost[one], quality[one]) != (cost[other], quality[other])

    front = [row for row in rows if not any(beats(other, row) for other in rows)]
    return sorted(front, key=lambda row: (cost[row], row))


@contextmanager
def _style(**more: Any) -> Iterator[None]:
    import matplotlib as mpl

    style: Any = {  # the stubs know each key by name
        "svg.hashsalt": "pretext-bench",
        "svg.fonttype": "none",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 9.5,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "lines.markersize": 5,
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"),
            INK,
        ),
        **more,
    }
    with mpl.rc_context(style):
        yield


def _rank_plot(run: Run) -> Plot | None:
    """Draw the rows' mean ranks, best on top, with bars that are half the critical difference to each side."""
    if run.ranking is None:
        return None
    ranks, wide = run.ranking.ranks, run.ranking.critical_difference
    figure = _figure(1.1 + 0.26 * len(ranks))
    axes = figure.subplots()
    for height, (row, value) in enumerate(ranks.items()):
        look = _look(row, run.shown) | {"linestyle": "none"}
        axes.plot(run.ranking.ends(row), [height] * 2, color=look["color"], linewidth=1.2)
        axes.plot(value, height, **look)
    axes.plot([1, 1 + wide], [-1, -1], color=INK, linewidth=1.2, marker="|")
    axes.set_yticks(range(-1, len(ranks)), [f"critical difference {wide:.1f}", *ranks])
    axes.set_ylim(len(ranks) - 0.5, -1.6)
    axes.set_xlabel(f"mean rank over {len(run.ranking.probes)} probes, 1 is best")
    axes.set_title("Mean ranks", loc="left", fontsize=11)
    order = "; ".join(f"{row} {value:.1f}" for row, value in ranks.items())
    return Plot(
        "ranks",
        figure,
        f"Critical-difference diagram: mean rank of each row with a bar of {wide:.1f} ranks. {order}.",
        "Mean ranks over the probes. Rows whose bars do not overlap differ (Nemenyi, 95 % for all pairs together).",
    )


def _depth_plots(run: Run) -> list[Plot]:
    """Draw each probe's headline metric over the encoder's stages, where it was read at several."""
    metrics = {s.probe: s for s in run.summaries if s.headline}
    drawn = []
    for probe in sorted(metrics, key=probe_key):
        metric, unit = metrics[probe].metric, metrics[probe].unit
        readings = [r for r in run.readings() if (r.probe, r.metric) == (probe, metric)]
        stages = list(dict.fromkeys(r.stage for r in readings))
        if len(stages) < 2:
            continue
        figure = _figure(3.0 + 0.22 * math.ceil((len(run.shown) + 1) / 2))
        axes = figure.subplots()
        for row in sorted(run.rows, key=lambda row: row in run.shown):  # those singled out on top
            _depth_line(axes, row, run, [r for r in readings if r.pretext == row], stages)
        chance = metrics[probe].chance
        if chance is not None:
            axes.axhline(chance, color=INK, linewidth=0.8, linestyle=":")
            axes.annotate("chance", (0.995, chance), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        heights = [r.value.mean for r in readings] + ([] if chance is None else [chance])
        room = 0.15 * (max(heights) - min(heights)) or 1.0
        axes.set_ylim(min(heights) - room, max(heights) + room)  # intervals of few seeds would flatten all
        axes.set_xticks(range(len(stages)), stages)
        axes.set_ylabel(f"{metric} {unit}".strip())
        axes.set_title(f"{probe}, stage by stage", loc="left", fontsize=11)
        _legend(figure, run, axes)
        tops = [max((r for r in readings if r.pretext == row), key=lambda r: r.value.mean) for row in run.rows
                if any(r.pretext == row for r in readings)]  # fmt: skip
        peaks = "; ".join(f"{r.pretext} {r.value.mean:.1f} at {r.stage}" for r in tops)
        drawn.append(
            Plot(
                f"depth-{probe}",
                figure,
                f"Line plot of {probe} {metric} by encoder stage, a line per row. Peaks: {peaks}.",
                f"{probe} {metric} at each stage of the encoder. Bars are 95 % intervals, cut at the frame, at "
                "the stages that the table quotes, which were chosen on val.",
            )
        )
    return drawn


def _depth_line(axes: Axes, row: str, run: Run, readings: Sequence[Reading], stages: Sequence[str]) -> None:
    shown, look = run.shown, _look(row, run.shown)
    if row not in shown:
        places = [float(stages.index(r.stage)) for r in readings]
        axes.plot(places, [r.value.mean for r in readings], **(look | {"marker": "none"}))
        return
    shift = (shown.index(row) - (len(shown) - 1) / 2) * 0.05  # so that intervals do not hide each other
    places = [stages.index(r.stage) + shift for r in readings]
    axes.plot(places, [r.value.mean for r in readings], label=row, **look)
    for x, reading in zip(places, readings, strict=True):
        if reading.headline and reading.value.low is not None and reading.value.high is not None:
            ends = [reading.value.low, reading.value.high]
            axes.plot([x, x], ends, color=look["color"], linewidth=1, alpha=0.6)


def _cost_plot(run: Run) -> Plot | None:
    """Draw each probe's headline number and the mean rank over what pretraining took, with the fronts as steps."""
    cost, unit = _axis(run)
    panels = _cost_panels(run, cost)
    if not panels:
        return None
    figure, places = _panels(len(panels), len(run.shown) + 1)
    for axes, panel in zip(places, panels, strict=True):
        axes.set_title(panel.title, loc="left", fontsize=10)
        _cost_scale(axes, [value for value in cost.values() if value > 0])
        for row, value in panel.values.items():
            look = _look(row, run.shown)
            if row == BASELINE:
                axes.axhline(value, color=INK, linestyle="--", linewidth=1, label=row)
                continue
            axes.plot(cost[row], value, label=row, **(look | {"linestyle": "none"}))
            if row in panel.ends:
                axes.plot([cost[row]] * 2, panel.ends[row], color=look["color"], linewidth=1, alpha=0.7)
        if panel.rising < 0:
            axes.invert_yaxis()
        _front_line(axes, panel, cost, run.shown)
    for axes in places[-2:]:
        axes.set_xlabel(f"pretraining, {unit}")
    _legend(figure, run, *places)
    fronts: dict[tuple[str, ...], list[str]] = {}
    for panel in panels:
        fronts.setdefault(tuple(row for row in panel.front if row != BASELINE), []).append(panel.name)
    told = "; ".join(f"{', '.join(front) or 'no row'} in {and_list(names)}" for front, names in fronts.items())
    spent = "; ".join(f"{row} {value:,.3g}" for row, value in cost.items() if row != BASELINE)
    return Plot(
        "cost",
        figure,
        f"Scatter plots of each probe's headline number against pretraining in {unit}: {spent}. "
        f"On the Pareto front of the rows without labels, from cheap to good: {told}.",
        f"Quality against cost: pretraining in {unit}; 95 % intervals; up is better. Dashed: random weights, which "
        "cost nothing. Steps: the Pareto front of the rows that need no labels, by their means: nothing that costs "
        f"less is better. On it, from cheap to good: {told}.",
    )


def _cost_scale(axes: Axes, costs: Sequence[float]) -> None:
    """Set the same horizontal axis for all panels: logarithmic where costs differ by a factor of ten and more."""
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
    """Numbers of rows that have a cost, and which of them are on the front."""

    name: str
    title: str
    rising: int
    """1 where more is better, else -1."""
    values: dict[str, float]
    ends: dict[str, tuple[float, float]]
    front: list[str]


def _axis(run: Run) -> tuple[dict[str, float], str]:
    """Return what each row cost and the unit: seconds, or FLOPs where seconds were the budget and so are equal."""
    costs, unit = run.costs, "seconds"
    flops = {row: cost.flops for row, cost in costs.items() if cost.flops is not None}
    spent = {row: cost.wall_s for row, cost in costs.items()}
    if any(cost.seconds_given for cost in costs.values()) and flops.keys() == costs.keys():
        spent, unit = flops, "FLOPs"
    return {BASELINE: 0.0} | {row: spent[row] for row in run.rows if row in spent}, unit


def _cost_panels(run: Run, cost: Mapping[str, float]) -> list[_Panel]:
    columns: list[tuple[str, str, int, dict[str, float], dict[str, tuple[float, float]]]] = []
    if run.ranking is not None:
        columns.append(("mean rank", "mean rank", -1, run.ranking.ranks, {}))
    for probe in run.probes:
        column = [s for s in run.summaries if s.headline and s.probe == probe]
        values = {s.pretext: s.mean for s in column}
        ends = {s.pretext: (s.low, s.high) for s in column if s.low is not None and s.high is not None}
        title = f"{probe}, {column[0].metric} {column[0].unit}".strip()
        columns.append((probe, title, 1 if column[0].higher_is_better else -1, values, ends))
    panels = []
    for name, title, rising, values, ends in columns:
        known = {row: values[row] for row in run.rows if row in values and row in cost}
        if known.keys() <= {BASELINE}:
            continue
        quality = {row: rising * value for row, value in known.items() if row != CEILING}
        panels.append(_Panel(name, title, rising, known, ends, pareto_front(cost, quality)))
    return panels


def _front_line(axes: Axes, panel: _Panel, cost: Mapping[str, float], shown: Sequence[str]) -> None:
    """Draw the front as steps from the left of the panel to its right, and name what the legend does not."""
    if not panel.front:
        return
    left, right = axes.get_xlim()
    corners = [(max(left, cost[row]), panel.values[row]) for row in panel.front]
    corners.append((right, corners[-1][1]))
    axes.step([x for x, _ in corners], [y for _, y in corners], where="post", color=INK, linewidth=1.1, zorder=1.5)
    axes.set_xlim(left, right)
    for row in panel.front:
        if row not in shown:
            at = (cost[row], panel.values[row])
            place = axes.transAxes.inverted().transform(axes.transData.transform(at))[0]
            side, shift = ("right", -3) if place > 0.5 else ("left", 3)
            axes.annotate(row, at, xytext=(shift, 3), textcoords="offset points", fontsize=8.5, ha=side)


def _learning_plots(run: Run) -> list[Plot]:
    """Draw each row's training losses over the pictures seen, a panel a row: their units differ."""
    logs = {
        row: [
            [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
            for folder in seeds.values()
            if (folder / "log.jsonl").exists()
        ]
        for row, seeds in run.pretrained().items()
    }
    logs = {row: kept for row, seeds in logs.items() if (kept := [log for log in seeds if log])}
    rows = list(logs)
    parts = [rows[start : start + PANELS] for start in range(0, len(rows), PANELS)]
    return [_learning_plot({row: logs[row] for row in part}, at) for at, part in enumerate(parts, start=1)]


def _learning_plot(logs: Mapping[str, list[list[dict[str, Any]]]], number: int) -> Plot:
    from matplotlib.ticker import EngFormatter

    figure, panels = _panels(len(logs), 0)
    ends = []
    for axes, (row, seeds) in zip(panels, logs.items(), strict=True):
        players = list(seeds[0][0]["loss"])
        for log in seeds:
            for place, player in enumerate(players):
                points = [(entry["images"], entry["loss"][player]) for entry in log if player in entry["loss"]]
                axes.plot(
                    [x for x, _ in points],
                    [y for _, y in points],
                    color=COLOURS[3] if place == 0 else COLOURS[4],
                    marker="." if len(points) < 3 else None,
                    linewidth=1.2,
                    alpha=0.85,
                    label=player if log is seeds[0] else None,
                )
        axes.set_title(row, loc="left", fontsize=10)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.locator_params(axis="x", nbins=4)
        if len(players) > 1:
            axes.legend(fontsize=8.5)
        first = players[0]
        ends.append(f"{row} from {seeds[0][0]['loss'][first]:.3g} to {seeds[0][-1]['loss'][first]:.3g}")
    for axes in panels[-2:]:
        axes.set_xlabel("pictures seen")
    return Plot(
        "learning" if number == 1 else f"learning-{number}",
        figure,
        f"Training loss over pictures seen, a panel per row: {'; '.join(ends)}.",
        "Learning curves: training loss, a line per seed. Losses of different tasks have different units.",
    )


def _look(row: str, shown: Sequence[str]) -> dict[str, Any]:
    """Return a row's colour, marker and line, the same in all plots; grey where it is not singled out."""
    if row == BASELINE:
        return {"color": INK, "marker": "o", "linestyle": "--", "markerfacecolor": "none"}
    if row not in shown:
        return {"color": GREY, "marker": ".", "linewidth": 0.7}
    place = [other for other in shown if other != BASELINE].index(row)
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": ("-", "-.", ":")[place // len(COLOURS) % 3],
    }


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def _panels(count: int, legend: int) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels, two abreast, with room for a legend of so many entries."""
    lines = math.ceil(count / 2)
    figure = _figure(0.5 + 1.75 * lines + 0.2 * math.ceil(legend / 2))
    grid = list(figure.subplots(lines, min(count, 2), squeeze=False).flat)
    for axes in grid[count:]:
        axes.remove()
    return figure, grid[:count]


def _legend(figure: Figure, run: Run, *panels: Axes) -> None:
    """Put one legend below all panels."""
    from matplotlib.lines import Line2D

    found: dict[str, Artist] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    entries = {row: found[row] for row in run.shown if row in found}
    others = len(run.rows) - len(run.shown)
    if others:
        entries[f"{others} others"] = Line2D([], [], color=GREY, marker=".", linewidth=0.7)
    figure.legend(handles=list(entries.values()), labels=list(entries), loc="outside lower left", ncols=2)

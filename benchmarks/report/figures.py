"""Plots as inline SVG: text stays text, and what is black takes the page's colour, by day and by night."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.report.content import Reading, Run
from benchmarks.verdict import BASELINE, probe_key

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#E69F00", "#009E73", "#56B4E9", "#0072B2", "#D55E00", "#CC79A7", "#999999")
"""Okabe and Ito's; a grey in place of their yellow, which vanishes on white."""
MARKERS = "osD^vPX*"
INK = "#010203"
"""Stands for the page's own text colour until the SVG is written."""
WIDTH = 5.0
"""Inches; 72 units each, so that a letter of 10 is read as 10 px on a telephone."""


class Plot(NamedTuple):
    """A figure of the page."""

    svg: str
    alt: str
    caption: str


def plots(run: Run) -> list[Plot]:
    """Return what can be drawn of a run: mean ranks, quality by depth, quality against cost, learning curves."""
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
    }
    with mpl.rc_context(style):
        found = [_rank_plot(run), *_depth_plots(run), _cost_plot(run), _learning_plot(run)]
    return [plot for plot in found if plot is not None]


def _rank_plot(run: Run) -> Plot | None:
    """Draw the rows' mean ranks, best on top, with bars that are half the critical difference to each side."""
    if run.ranking is None:
        return None
    ranks, wide = run.ranking.ranks, run.ranking.critical_difference
    figure = _figure(1.1 + 0.26 * len(ranks))
    axes = figure.subplots()
    for height, (row, value) in enumerate(ranks.items()):
        look = _look(row, run.rows) | {"linestyle": "none"}
        axes.plot(run.ranking.ends(row), [height] * 2, color=look["color"], linewidth=1.2)
        axes.plot(value, height, **look)
    axes.plot([1, 1 + wide], [-1, -1], color=INK, linewidth=1.2, marker="|")
    axes.set_yticks(range(-1, len(ranks)), [f"critical difference {wide:.1f}", *ranks])
    axes.set_ylim(len(ranks) - 0.5, -1.6)
    axes.set_xlabel(f"mean rank over {len(run.ranking.probes)} probes, 1 is best")
    axes.set_title("Mean ranks", loc="left", fontsize=11)
    order = "; ".join(f"{row} {value:.1f}" for row, value in ranks.items())
    return Plot(
        _svg(figure, "ranks"),
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
        figure = _figure(3.0 + 0.22 * math.ceil(len(run.rows) / 2))
        axes = figure.subplots()
        for row in run.rows:
            _depth_line(axes, row, run.rows, [r for r in readings if r.pretext == row], stages)
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
        _legend(figure, axes)
        tops = [max((r for r in readings if r.pretext == row), key=lambda r: r.value.mean) for row in run.rows
                if any(r.pretext == row for r in readings)]  # fmt: skip
        peaks = "; ".join(f"{r.pretext} {r.value.mean:.1f} at {r.stage}" for r in tops)
        drawn.append(
            Plot(
                _svg(figure, f"depth-{probe}"),
                f"Line plot of {probe} {metric} by encoder stage, a line per row. Peaks: {peaks}.",
                f"{probe} {metric} at each stage of the encoder. Bars are 95 % intervals, cut at the frame, at "
                "the stages that the table quotes, which were chosen on val.",
            )
        )
    return drawn


def _depth_line(axes: Axes, row: str, rows: Sequence[str], readings: Sequence[Reading], stages: Sequence[str]) -> None:
    shift = (rows.index(row) - (len(rows) - 1) / 2) * 0.05  # so that intervals do not hide each other
    look = _look(row, rows)
    places = [stages.index(r.stage) + shift for r in readings]
    axes.plot(places, [r.value.mean for r in readings], label=row, **look)
    for x, reading in zip(places, readings, strict=True):
        if reading.headline and reading.value.low is not None and reading.value.high is not None:
            ends = [reading.value.low, reading.value.high]
            axes.plot([x, x], ends, color=look["color"], linewidth=1, alpha=0.6)


def _cost_plot(run: Run) -> Plot | None:
    """Draw each probe's headline number over the seconds that pretraining took."""
    headlines = run.headlines()
    probes = [p for p in run.probes if any((row, p) in headlines and row in run.costs for row in run.rows)]
    if not probes:
        return None
    figure, panels = _panels(len(probes), len(run.rows))
    for axes, probe in zip(panels, probes, strict=True):
        for row in run.rows:
            summary = headlines.get((row, probe))
            if summary is None or (row not in run.costs and row != BASELINE):
                continue
            look = _look(row, run.rows)
            if row == BASELINE:
                axes.axhline(summary.mean, color=INK, linestyle="--", linewidth=1.2, label=row)
                continue
            seconds = run.costs[row].wall_s
            axes.plot(seconds, summary.mean, label=row, **(look | {"linestyle": "none"}))
            if summary.low is not None and summary.high is not None:
                axes.plot([seconds] * 2, [summary.low, summary.high], color=look["color"], linewidth=1)
        one = next(s for (_, name), s in headlines.items() if name == probe)
        axes.set_title(f"{probe}, {one.metric} {one.unit}".strip(), loc="left", fontsize=10)
        axes.margins(x=0.15)
    for axes in panels[-2:]:
        axes.set_xlabel("pretraining, seconds")
    _legend(figure, *panels)
    seconds_of = "; ".join(f"{row} {run.costs[row].wall_s:,.0f} s" for row in run.rows if row in run.costs)
    return Plot(
        _svg(figure, "cost"),
        f"Scatter plots of each probe's headline number against pretraining time: {seconds_of}.",
        "Quality against cost: headline number over seconds of pretraining. Dashed: random weights.",
    )


def _learning_plot(run: Run) -> Plot | None:
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
    if not logs:
        return None
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
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-4, 4))
        axes.locator_params(axis="x", nbins=4)
        if len(players) > 1:
            axes.legend(fontsize=8.5)
        first = players[0]
        ends.append(f"{row} from {seeds[0][0]['loss'][first]:.3g} to {seeds[0][-1]['loss'][first]:.3g}")
    for axes in panels[-2:]:
        axes.set_xlabel("pictures seen")
    return Plot(
        _svg(figure, "learning"),
        f"Training loss over pictures seen, a panel per row: {'; '.join(ends)}.",
        "Learning curves: training loss, a line per seed. Losses of different tasks have different units.",
    )


def _look(row: str, rows: Sequence[str]) -> dict[str, Any]:
    """Return a row's colour, marker and line, the same in all plots."""
    if row == BASELINE:
        return {"color": INK, "marker": "o", "linestyle": "--", "markerfacecolor": "none"}
    place = [other for other in rows if other != BASELINE].index(row)
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


def _legend(figure: Figure, *panels: Axes) -> None:
    """Put one legend below all panels."""
    entries: dict[str, Artist] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(handles=list(entries.values()), labels=list(entries), loc="outside lower left", ncols=2)


def _svg(figure: Figure, name: str) -> str:
    """Return a figure's SVG as a part of an HTML page: no prologue, no metadata, names of its own."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", text)
    text = text.replace('<style type="text/css">*{', f"<style>.{name} *{{", 1)
    text = re.sub(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg class="{name}" \1 aria-hidden="true">', text, count=1)
    return text.replace(INK, "currentColor")

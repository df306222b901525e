"""All figures of a run; here those of gain by stage, mean ranks and learning curves."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.planning.cells import slug
from benchmarks.report.content import Reading, Run, column_title
from benchmarks.report.few_labels import label_plots
from benchmarks.report.fits import fit_plots
from benchmarks.report.forest import forest_plots
from benchmarks.report.pareto import cost_plot
from benchmarks.report.plotting import (
    COLOURS,
    INK,
    Plot,
    blank_figure,
    blank_panels,
    legend_below,
    legend_height,
    look_of,
    panel_title,
    plot_title,
    style,
    wrapped,
)
from benchmarks.report.stages import gains_by_stage
from benchmarks.report.watch import watch_plots
from benchmarks.summaries.verdict import BASELINE
from benchmarks.words.naming import metric_title, probe_title
from benchmarks.words.ordering import column_order
from benchmarks.words.wording import columns_counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXIS_LETTERS = 32
"""Characters that fit along the vertical axis of a single panel."""
PANELS = 8
"""Most learning curves in one figure."""


def plots(run: Run) -> list[Plot]:
    """Return all figures that the run has data for, the forest plot first."""
    with style():
        found = [*forest_plots(run), *label_plots(run), *_gain_plots(run), cost_plot(run), _rank_plot(run)]
        found += _depth_plots(run)
        found += [*fit_plots(run), *watch_plots(run), *_learning_plots(run)]
    return [plot for plot in found if plot is not None]


def _rank_plot(run: Run) -> Plot | None:
    """Draw the rows' mean ranks, best on top, with bars of half the critical difference to each side."""
    if run.ranking is None:
        return None
    ranks, wide = run.ranking.ranks, run.ranking.critical_difference
    names = [wrapped(run.title(row)) for row in ranks]
    tallest = max(name.count("\n") + 1 for name in names)
    figure = blank_figure(1.1 + (0.12 + 0.16 * tallest) * len(names))
    axes = figure.subplots()
    for height, (row, value) in enumerate(ranks.items()):
        look = look_of(row, run.shown) | {"linestyle": "none"}
        axes.plot(run.ranking.ends(row), [height] * 2, color=look["color"], linewidth=1.2)
        axes.plot(value, height, **look)
    axes.plot([1, 1 + wide], [-1, -1], color=INK, linewidth=1.2, marker="|")
    axes.set_yticks(range(-1, len(ranks)), [f"critical difference {wide:.1f}", *names])
    axes.set_ylim(len(ranks) - 0.5, -1.6)
    axes.set_xlabel(f"mean rank over {columns_counted(run.ranking.probes)};\n1 is best")
    axes.set_title("Mean ranks", loc="left", fontsize=11)
    order = "; ".join(f"{run.title(row)} {value:.1f}" for row, value in ranks.items())
    return Plot(
        "ranks",
        figure,
        f"Critical-difference diagram: mean rank of each row with a bar of {wide:.1f} ranks. {order}.",
        "Mean ranks over the probes. Rows whose bars do not overlap differ (95 % for all pairs together, Nemenyi).",
    )


def _gain_plots(run: Run) -> list[Plot]:
    """Draw each row's difference from random weights at every stage, for probes that read several."""
    drawn = []
    for probe, rows in gains_by_stage(run).items():
        own = next(s for s in run.summaries if s.headline and s.probe == probe)
        compared = {row: gains for row, gains in rows.items() if row != BASELINE}
        framed = [gain.gain for row in compared if not run.named(row).uses_labels for gain in compared[row]] or [0.0]
        if not compared:
            continue
        figure = blank_figure(3.0 + legend_height(map(run.title, run.shown)))
        axes = figure.subplots()
        stages = [gain.stage for gain in rows[BASELINE]]
        for row in sorted(compared, key=lambda row: row in run.shown):
            look = look_of(row, run.shown)
            look = look if row in run.shown else look | {"marker": "none"}
            heights = [gain.gain for gain in compared[row]]
            axes.plot(range(len(stages)), heights, label=run.title(row) if row in run.shown else None, **look)
        axes.axhline(0, color=INK, linewidth=0.8, linestyle=":")
        room = 0.15 * (max(*framed, 0) - min(*framed, 0)) or 1.0
        axes.set_ylim(min(*framed, 0) - room, max(*framed, 0) + room)  # training with labels may leave the frame
        if not own.higher_is_better:
            axes.invert_yaxis()
        axes.set_xticks(range(len(stages)), stages)
        axes.set_ylabel(textwrap.fill(f"{metric_title(own.metric, own.unit)}, minus random weights", AXIS_LETTERS))
        plot_title(axes, f"{probe_title(probe)}: gain over random weights by stage")
        legend_below(figure, run, axes, others=len(compared.keys() - {*run.shown}))
        last = "; ".join(f"{run.title(row)} {own.text(gains[-1].gain, '+')}" for row, gains in compared.items())
        drawn.append(
            Plot(
                f"gain-{slug(probe)}",
                figure,
                f"Line plot of the difference in {column_title(own)} from random weights by encoder stage. At the last "
                f"stage, {stages[-1]}: {last}.",
                f"{probe_title(probe)}: what pretraining adds at each stage of the encoder, against random weights "
                f"read at the same stage{'' if own.higher_is_better else '; lower is better, and drawn above'}. The "
                "frame fits the rows trained without labels.",
            )
        )
    return drawn


def _depth_plots(run: Run) -> list[Plot]:
    """Draw each probe's headline metric by encoder stage, for probes without a gain over random weights to draw."""
    gains = gains_by_stage(run)
    metrics = {s.probe: s for s in run.summaries if s.headline and s.probe not in gains}
    drawn = []
    for probe in column_order(metrics):
        metric = metrics[probe].metric
        readings = [r for r in run.readings if (r.probe, r.metric) == (probe, metric)]
        stages = list(dict.fromkeys(r.stage for r in readings))
        if len(readings) == len({r.pretext for r in readings}):  # one stage per row, chosen on val: no line to draw
            continue
        figure = blank_figure(3.0 + legend_height(map(run.title, run.shown)))
        axes = figure.subplots()
        for row in sorted(run.rows, key=lambda row: row in run.shown):  # shown rows on top
            _depth_line(axes, row, run, [r for r in readings if r.pretext == row], stages)
        chance = metrics[probe].chance
        if chance is not None:
            axes.axhline(chance, color=INK, linewidth=0.8, linestyle=":")
            axes.annotate("no learning", (0.995, chance), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        heights = [r.value.mean for r in readings] + ([] if chance is None else [chance])
        room = 0.15 * (max(heights) - min(heights)) or 1.0
        axes.set_ylim(
            min(heights) - room, max(heights) + room
        )  # not to the intervals: those of few seeds would flatten the lines
        axes.set_xticks(range(len(stages)), stages)
        title = column_title(metrics[probe])
        axes.set_ylabel(metric_title(metric, metrics[probe].unit))
        plot_title(axes, f"{probe_title(probe)} by stage")
        legend_below(figure, run, axes)
        tops = [max((r for r in readings if r.pretext == row), key=lambda r: r.value.mean) for row in run.rows
                if any(r.pretext == row for r in readings)]  # fmt: skip
        peaks = "; ".join(f"{run.title(r.pretext)} {metrics[probe].text(r.value.mean)} at {r.stage}" for r in tops)
        drawn.append(
            Plot(
                f"depth-{slug(probe)}",
                figure,
                f"Line plot of {title} by encoder stage, one line per row. Maxima: {peaks}.",
                f"{title} at each stage of the encoder. Bars: 95 % intervals at the stages that the table "
                "reports (chosen on val), cut at the frame.",
            )
        )
    return drawn


def _depth_line(axes: Axes, row: str, run: Run, readings: Sequence[Reading], stages: Sequence[str]) -> None:
    shown, look = run.shown, look_of(row, run.shown)
    if row not in shown:
        places = [float(stages.index(r.stage)) for r in readings]
        axes.plot(places, [r.value.mean for r in readings], **(look | {"marker": "none"}))
        return
    shift = (shown.index(row) - (len(shown) - 1) / 2) * 0.05  # keeps intervals of different rows visible
    places = [stages.index(r.stage) + shift for r in readings]
    axes.plot(places, [r.value.mean for r in readings], label=run.title(row), **look)
    for x, reading in zip(places, readings, strict=True):
        if reading.headline and reading.value.low is not None and reading.value.high is not None:
            ends = [reading.value.low, reading.value.high]
            axes.plot([x, x], ends, color=look["color"], linewidth=1, alpha=0.6)


def _learning_plots(run: Run) -> list[Plot]:
    """Draw the training losses over images seen, one panel per row because units differ."""
    from pretext.training.log import read_log

    logs = {
        row: [
            [line for line in read_log(folder / "log.jsonl") if "loss" in line]
            for folder in seeds.values()
            if (folder / "log.jsonl").exists()
        ]
        for row, seeds in run.pretrained().items()
    }
    logs = {row: kept for row, seeds in logs.items() if (kept := [log for log in seeds if log])}
    rows = list(logs)
    parts = [rows[start : start + PANELS] for start in range(0, len(rows), PANELS)]
    return [_learning_plot(run, {row: logs[row] for row in part}, number) for number, part in enumerate(parts, start=1)]


def _learning_plot(run: Run, logs: Mapping[str, list[list[dict[str, Any]]]], part_number: int) -> Plot:
    from matplotlib.ticker import EngFormatter

    figure, panels = blank_panels(len(logs))
    ends = []
    for axes, (row, seeds) in zip(panels, logs.items(), strict=True):
        names = list(seeds[0][0]["loss"])
        for log in seeds:
            for number, name in enumerate(names):
                points = [(entry["images"], entry["loss"][name]) for entry in log if name in entry["loss"]]
                axes.plot(
                    [x for x, _ in points],
                    [y for _, y in points],
                    color=COLOURS[3] if number == 0 else COLOURS[4],
                    marker="." if len(points) < 3 else None,
                    linewidth=1.2,
                    alpha=0.85,
                    label=name if log is seeds[0] else None,
                )
        panel_title(axes, run.title(row))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.locator_params(axis="x", nbins=4)
        if len(names) > 1:
            axes.legend(fontsize=8.5)
        first = names[0]
        of_first = [entry["loss"][first] for entry in seeds[0] if first in entry["loss"]]
        ends.append(f"{run.title(row)} from {of_first[0]:.3g} to {of_first[-1]:.3g}")
    for axes in panels[-2:]:
        axes.set_xlabel("images seen")
    return Plot(
        "learning" if part_number == 1 else f"learning-{part_number}",
        figure,
        f"Training loss over images seen, one panel per row: {'; '.join(ends)}.",
        "Learning curves: training loss, one line per seed. Losses of different tasks are not comparable.",
    )

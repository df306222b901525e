"""The watch curves: what `--watch` has measured of each row while it trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.report.content import Run
from benchmarks.report.plotting import Plot, blank_figure, legend_below, legend_height, look_of
from pretext.training.log import read_log
from pretext.training.watching import TRAIN_IMAGES, VAL_IMAGES

Points = dict[int, float]
"""A measurement by the number of images seen."""


class Measure(NamedTuple):
    """How the report names a measurement of `pretext.training.watching`."""

    file: str
    """Name of the figure's file."""
    title: str
    axis: str
    caption: str
    """What was measured on which pictures."""


MEASURES = {
    "knn_top1": Measure(
        "watch-knn",
        "k-NN while training",
        "k-NN top-1 %",
        f"k-NN accuracy of the encoder while it trains: up to {VAL_IMAGES} fixed pictures of val, by their labelled "
        f"nearest among up to {TRAIN_IMAGES:,} of train (of the training data)",
    ),
    "rank_me": Measure(
        "watch-rankme",
        "Effective rank while training",
        "RankMe",
        f"Effective rank (RankMe) of the encoder's features while it trains, on up to {TRAIN_IMAGES:,} fixed pictures "
        "of train, without labels; higher is not always better",
    ),
}


class Curve(NamedTuple):
    """One row's measurements over the images that it has seen."""

    images: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    """Smallest value of any seed."""
    high: NDArray[np.float64]
    seeds: int


def watch_plots(run: Run) -> list[Plot]:
    """Return a figure for each measurement that the logs of the training runs hold."""
    found = {name: _curves(run, name) for name in MEASURES}
    return [_watch_plot(run, name, curves) for name, curves in found.items() if curves]


def over_seeds(logs: Sequence[Points]) -> Curve:
    """Return the mean and the range of several seeds, at the points of the first that all have reached.

    Seeds that were measured at other points (a budget in seconds) are interpolated.
    """
    start, end = max(min(log) for log in logs), min(max(log) for log in logs)
    images = np.array([x for x in sorted(logs[0]) if start <= x <= end] or [end], dtype=np.float64)
    values = np.array([np.interp(images, sorted(log), [log[x] for x in sorted(log)]) for log in logs])
    return Curve(images, values.mean(axis=0), values.min(axis=0), values.max(axis=0), len(logs))


def _curves(run: Run, name: str) -> dict[str, Curve]:
    """Return the curve of each row that was watched."""
    found = {}
    for row, seeds in run.pretrained().items():
        logs = []
        for folder in seeds.values():
            lines = read_log(folder / "log.jsonl") if (folder / "log.jsonl").exists() else []
            points = {line["images"]: line["watch"][name] for line in lines if name in line.get("watch", {})}
            logs += [points] if points else []
        if logs:
            found[row] = over_seeds(logs)
    return found


def _watch_plot(run: Run, name: str, curves: Mapping[str, Curve]) -> Plot:
    from matplotlib.ticker import EngFormatter

    measure = MEASURES[name]
    figure = blank_figure(2.8 + legend_height(map(run.title, run.shown)))
    axes = figure.subplots()
    for row, curve in sorted(curves.items(), key=lambda item: item[0] in run.shown):
        look = look_of(row, run.shown)
        shown = row in run.shown
        axes.plot(curve.images, curve.mean, label=run.title(row) if shown else None, **look)
        if shown and curve.seeds > 1:
            axes.fill_between(curve.images, curve.low, curve.high, color=look["color"], alpha=0.15, linewidth=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("images seen")
    axes.set_ylabel(measure.axis)
    axes.set_title(measure.title, loc="left", fontsize=11)
    legend_below(figure, run, axes, others=len(curves.keys() - {*run.shown}))
    ends = "; ".join(
        f"{run.title(row)} from {curve.mean[0]:.1f} to {curve.mean[-1]:.1f}" for row, curve in curves.items()
    )
    seeds = max(curve.seeds for curve in curves.values())
    over = f" Lines: mean over {seeds} seeds; bands: from the lowest to the highest." if seeds > 1 else ""
    return Plot(
        measure.file,
        figure,
        f"Line plot of {measure.axis} over images seen, one line per row: {ends}.",
        f"{measure.caption}. No test picture was read, and no checkpoint was chosen by it: each run ends where its "
        f"budget ends.{over}",
    )

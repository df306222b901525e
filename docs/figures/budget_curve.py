"""Draw docs/figures/budget.png and print its table: the headline score of every row against the pictures it has seen.

    python docs/figures/budget_curve.py results/budget-*

Each folder is a comparison with another `--budget images=N`; rows, probes and seeds are the same in all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

from benchmarks.records.results import read_measurements
from benchmarks.report.plotting import COLOURS, MARKERS, style
from benchmarks.summaries.verdict import BASELINE, CEILING, Summary, summarise
from benchmarks.words.naming import metric_title, probe_title, row_title

DRAWN = ("context_encoder", "simclr", "kmeans")
"""Rows with a line; random weights are the dashed one, and labels would hide what is compared."""
FILE = Path(__file__).with_name("budget.png")

Curves = Mapping[str, Mapping[int, Sequence[Summary]]]
"""Headline summaries by probe, and by pictures seen."""
Seeds = Mapping[tuple[str, str], Sequence[tuple[int, float]]]
"""Pictures seen and score of each seed, by probe and row."""


def read_curves(folders: Sequence[Path]) -> tuple[Curves, Seeds]:
    """Return the headlines of all folders by the pictures that their trained rows have seen."""
    curves: dict[str, dict[int, list[Summary]]] = {}
    seeds: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for folder in folders:
        measurements = read_measurements(folder)
        seen = max(m.images_seen for m in measurements)
        for summary in summarise(measurements):
            if summary.headline:
                curves.setdefault(summary.probe, {}).setdefault(seen, []).append(summary)
        for m in measurements:
            if m.headline:
                seeds.setdefault((m.probe, m.pretext), []).append((seen, m.value))
    return curves, seeds


def table(curves: Curves) -> pd.DataFrame:
    """Return the mean scores, and differences from random weights with their 95 % intervals, by probe and row."""
    lines = []
    for probe, by_seen in curves.items():
        for seen, summaries in sorted(by_seen.items()):
            for s in summaries:
                text = f"{s.mean:.1f}"
                if s.pretext in (*DRAWN, CEILING) and s.difference_low is not None:
                    text += f" ({s.difference:+.1f}, {s.difference_low:+.1f} to {s.difference_high:+.1f})"
                lines.append((probe_title(probe), row_title(s.pretext), f"{seen:,}", text))
    frame = pd.DataFrame(lines, columns=["probe", "row", "seen", "text"])
    wide = frame.pivot_table(index=["probe", "row"], columns="seen", values="text", aggfunc="first", sort=False)
    return wide.reset_index()


def draw(curves: Curves, seeds: Seeds, file: Path) -> None:
    """Draw a panel per probe: a line per row through the means of its seeds, and a small mark for each seed."""
    with style():
        lines = -(-len(curves) // 2)
        figure, panels = plt.subplots(lines, 2, figsize=(6.6, 2.9 * lines + 0.5), squeeze=False)
        for axes in panels.flat[len(curves) :]:
            axes.remove()
        for axes, (probe, by_seen) in zip(panels.flat, curves.items(), strict=False):
            places = sorted(by_seen)
            for number, row in enumerate((BASELINE, *DRAWN)):
                points = [(seen, s.mean) for seen in places for s in by_seen[seen] if s.pretext == row]
                if not points:
                    continue
                if row == BASELINE:
                    axes.plot(*zip(*points, strict=True), "--", color="grey", label=row_title(row))
                    continue
                look = {"marker": MARKERS[number], "color": COLOURS[number], "label": row_title(row)}
                axes.plot(*zip(*points, strict=True), **look)
                axes.plot(*zip(*seeds[probe, row], strict=True), ".", color=COLOURS[number], markersize=4)
            one = next(iter(by_seen.values()))[0]
            axes.set_xscale("log")
            axes.set_xticks(
                places, [f"{seen / 1e6:g} M" if seen >= 1e6 else f"{round(seen / 1000)} k" for seen in places]
            )
            axes.minorticks_off()
            axes.set_xlabel("pictures seen")
            axes.set_title(probe_title(probe), fontsize=11)
            axes.set_ylabel(metric_title(one.metric, one.unit))
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=len(labels))
        figure.tight_layout(rect=(0, 0.16 / lines, 1, 1))
        figure.savefig(file, dpi=150, facecolor="white")
        plt.close(figure)


if __name__ == "__main__":
    found, of_seeds = read_curves([Path(word) for word in sys.argv[1:]])
    draw(found, of_seeds, FILE)
    columns = table(found)
    print("| " + " | ".join(columns.columns) + " |\n|" + "|".join(["---"] * len(columns.columns)) + "|")
    print("\n".join("| " + " | ".join(str(each) for each in line) + " |" for line in columns.itertuples(index=False)))

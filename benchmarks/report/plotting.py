"""What plots share: inline SVG for the page, whose black takes the page's colour by day and by night, and files for
papers; colours, markers, sizes.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.report.content import Run
from benchmarks.verdict import BASELINE
from pretext.system.checkpoint import atomic_write

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
TITLE_LETTERS = 23
"""As many as a panel is wide."""
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
        with style():
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
        with style(**{"svg.fonttype": "path", "savefig.facecolor": "white"}):
            for kind in ("svg", "png"):
                with atomic_write(folder / f"{self.name}.{kind}") as beside:
                    about = {"Date": None} if kind == "svg" else None
                    self.figure.savefig(beside, format=kind, dpi=DOTS_PER_INCH, metadata=about)


@contextmanager
def style(**more: Any) -> Iterator[None]:
    """Draw and write in the report's style; `more` are settings of matplotlib."""
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


def look_of(row: str, shown: Sequence[str]) -> dict[str, Any]:
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


def blank_figure(height: float) -> Figure:
    """Return a figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def blank_panels(count: int, legend: int) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels, two abreast, with room for a legend of so many entries."""
    lines = math.ceil(count / 2)
    figure = blank_figure(0.5 + 1.75 * lines + 0.2 * math.ceil(legend / 2))
    grid = list(figure.subplots(lines, min(count, 2), squeeze=False).flat)
    for axes in grid[count:]:
        axes.remove()
    return figure, grid[:count]


def panel_title(axes: Axes, text: str) -> None:
    """Put a title above one of two panels abreast, broken where it would run into the other."""
    axes.set_title(textwrap.fill(text, TITLE_LETTERS), loc="left", fontsize=10)


def legend_below(figure: Figure, run: Run, *panels: Axes) -> None:
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

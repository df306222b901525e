"""Style and output of plots: colours, markers, sizes; inline SVG for the page, and SVG and PNG files for papers."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.report.content import Run
from benchmarks.summaries.verdict import BASELINE
from benchmarks.words.wording import count_of
from pretext.system.checkpoint import atomic_write

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#E69F00", "#009E73", "#56B4E9", "#0072B2", "#D55E00", "#CC79A7", "#999999")
"""Okabe and Ito's palette, with grey in place of yellow, which is hardly visible on white."""
MARKERS = "osD^vPX*"
INK = "#010203"
"""Placeholder for the page's text colour, replaced by `currentColor` in inline SVG (light and dark mode)."""
PAPER = "#fefdfc"
"""Placeholder for the page's background, replaced by `var(--paper)` in inline SVG: the inside of an open mark."""
GREY = COLOURS[-1]
"""Colour of the rows that are not in `Run.shown`."""
WIDTH = 5.0
"""Figure width in inches, 360 SVG units: a font of size 10 has 10 px on a phone."""
LABEL_LETTERS = 23
"""Characters of a row's name on one line of a legend or an axis."""
TITLE_LETTERS = 23
"""Characters that fit above one of two panels side by side."""
DOTS_PER_INCH = 200
"""Resolution of the PNG files."""


class Plot(NamedTuple):
    """A figure with its file name, alternative text and caption."""

    name: str
    figure: Figure
    alt: str
    caption: str

    def inline(self) -> str:
        """Return the figure as SVG inside HTML: no prologue, no metadata, ids unique to the figure."""
        with style():
            _lay_out(self.figure)
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
        return text.replace(INK, "currentColor").replace(PAPER, "var(--paper)")

    def write(self, folder: Path) -> None:
        """Write the figure as SVG (text as outlines, independent of fonts) and as PNG, both on white."""
        with style(**{"svg.fonttype": "path", "savefig.facecolor": "white"}):
            _lay_out(self.figure)
            for kind in ("svg", "png"):
                with atomic_write(folder / f"{self.name}.{kind}") as beside:
                    about = {"Date": None} if kind == "svg" else None
                    self.figure.savefig(beside, format=kind, dpi=DOTS_PER_INCH, metadata=about)


def _lay_out(figure: Figure) -> None:
    """Place everything in a figure once, for all the forms that it is written in."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


@contextmanager
def style(**more: Any) -> Iterator[None]:
    """Draw and write figures in the report's style; `more` are further matplotlib settings."""
    import matplotlib as mpl

    style: Any = {  # Any: the stubs accept literal keys only
        "svg.hashsalt": "pretext-bench",
        "svg.fonttype": "none",
        "text.parse_math": False,  # a dollar sign in a name is a dollar sign
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
    """Return a row's colour, marker and line style, the same in all plots; grey if it is not in `shown`."""
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


def blank_figure(height: float, *, width: float = WIDTH) -> Figure:
    """Return an empty figure; sides in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def blank_panels(count: int, legend: Sequence[str] = ()) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels, two side by side, with room for a legend of these names."""
    lines = math.ceil(count / 2)
    figure = blank_figure(0.5 + 1.75 * lines + (legend_height(legend) if legend else 0.0))
    grid = list(figure.subplots(lines, min(count, 2), squeeze=False).flat)
    for axes in grid[count:]:
        axes.remove()
    return figure, grid[:count]


def wrapped(name: str) -> str:
    """Return a name in lines of at most `LABEL_LETTERS`, broken between words or after a mark of its spec."""
    lines = [""]
    for token in re.findall(r"[^ ?&:,_]*[ ?&:,_]*", " ".join(name.split())):
        for start in range(0, len(token), LABEL_LETTERS):
            piece = token[start : start + LABEL_LETTERS]
            if lines[-1] and len((lines[-1] + piece).rstrip()) > LABEL_LETTERS:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line.strip() for line in lines)


def legend_height(names: Iterable[str]) -> float:
    """Return the height in inches of a legend of these names in two columns."""
    lines = [wrapped(name).count("\n") + 1 for name in names] + [1]
    half = math.ceil(len(lines) / 2)
    return 0.22 * max(sum(lines[:half]), sum(lines[half:]))


def plot_title(axes: Axes, text: str) -> None:
    """Set the title of the only panel, wrapped to the figure's width."""
    axes.set_title(textwrap.fill(text, 2 * TITLE_LETTERS), loc="left", fontsize=11)


def panel_title(axes: Axes, text: str) -> None:
    """Set the title of one of two panels side by side, wrapped to the panel's width."""
    axes.set_title(textwrap.fill(text, TITLE_LETTERS), loc="left", fontsize=10)


def legend_below(figure: Figure, run: Run, *panels: Axes, others: int | None = None) -> None:
    """Draw one legend below all panels; `others` is the number of rows that it does not name, None for all others."""
    from matplotlib.lines import Line2D

    found: dict[str, Artist] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    entries = {name: found[name] for name in map(run.title, run.shown) if name in found}
    others = len(run.rows) - len(run.shown) if others is None else others
    if others:
        entries[count_of(others, "other")] = Line2D([], [], color=GREY, marker=".", linewidth=0.7)
    labels = [wrapped(name) for name in entries]
    figure.legend(handles=list(entries.values()), labels=labels, loc="outside lower left", ncols=2)

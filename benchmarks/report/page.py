"""The page, from top to bottom."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from html import escape

from benchmarks.report import dense, fills, gallery
from benchmarks.report.content import Run
from benchmarks.report.evidence import Evidence, evidence
from benchmarks.report.markdown import TITLE
from benchmarks.report.plotting import Plot
from benchmarks.report.retrieval import without_network
from benchmarks.report.sentences import cautions, data_sentence, verdict
from benchmarks.report.style import CSS, SCRIPT
from benchmarks.report.tables import evidence_table, main_table, score_table
from benchmarks.wording import LEGEND, and_list
from pretext.system.errors import UserError

REGIONS = {
    "objects": "Objects: the region within the outline is looked for",
    "contexts": "Contexts: the centre is hidden, only the surroundings are looked for",
    "images": "Whole pictures",
}


MOST_BYTES = 9_900_000
"""Of the sections together: a page of 10 MB can still be mailed."""


@dataclasses.dataclass
class _Sections:
    """Sections as they are found, and a line for each that could not be made."""

    found: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    gaps: list[str] = dataclasses.field(default_factory=list)

    def add(self, title: str, make: Callable[[], str]) -> None:
        try:
            content = make()
        except (UserError, OSError, LookupError, ValueError, RuntimeError) as error:
            # data moved, a file cut short, no memory left on the device: the numbers still count
            self.gaps.append(f"{title} left out: {type(error).__name__}: {error}".replace("UserError: ", ""))
            return
        taken = sum(len(other) for _, other in self.found)  # all but a few letters are ASCII
        if taken + len(content) > MOST_BYTES:
            self.gaps.append(f"{title} left out: with its {len(content) / 1e6:.1f} MB the page would be over 10 MB")
        elif content:
            self.found.append((title, content))


def page(run: Run, plots: Callable[[], Sequence[Plot]]) -> str:
    """Return the whole report as one HTML page that asks for nothing from outside.

    Args:
        run: What the results folder holds.
        plots: Draws the figures; where it fails, the page says so and goes without.
    """
    sections = _Sections()
    if run.rows:
        sections.add("Results", lambda: _results(run))
        sections.add("How sure", lambda: _evidence(*evidence(run)))
        sections.add("Figures", lambda: _figures(plots()))
    if "data" in run.plan and run.first_encoders():
        sections.add("Filled holes", lambda: _fills(run))
        sections.add("Filled by neighbours", lambda: _nearest_fills(run))
        sections.add("Nearest neighbours", lambda: _neighbours(run))
        sections.add("Dense features", lambda: _dense(run))
    sections.add("Detection and segmentation", lambda: _sheets(run))
    sections.add("First-layer filters", lambda: _filters(run))
    sections.add("What failed", lambda: _failures(run))
    sections.found.append(("What was run", _facts(run, sections.gaps)))
    links = "".join(f'<a href="#{_anchor(title)}">{escape(title)}</a>' for title, _ in sections.found)
    body = "".join(
        f'<section id="{_anchor(title)}"><h2>{escape(title)}</h2>{content}</section>'
        for title, content in sections.found
    )
    opening = f'<p class="data{" synthetic" if run.synthetic else ""}">{escape(data_sentence(run))}</p>'
    words = "".join(f'<p class="verdict">{escape(text)}</p>' for text in verdict(run))
    words += "".join(f'<p class="small">{escape(text)}</p>' for text in cautions(run))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{TITLE}: {escape(', '.join(run.data))}</title><style>{CSS}</style></head>\n"
        f"<body><header><h1>{TITLE}</h1>{opening}{words}<nav>{links}</nav></header>\n"
        f"<main>{body}</main>\n<script>{SCRIPT}</script></body></html>\n"
    )


def _results(run: Run) -> str:
    return (
        f"{main_table(run)}"
        f'<p class="legend">{escape(LEGEND)}; best of each column in bold. '
        "A heading sorts.</p>"
        "<details><summary>Every score of every stage</summary>"
        '<p class="legend">From and to are the ends of the 95 % interval; ★ the stage that the table above '
        f"quotes for some seed; − random the difference from random weights.</p>{score_table(run)}</details>"
        f"{_evidence(without_network(run))}"
    )


def _evidence(*tables: Evidence | None) -> str:
    return "".join(
        f'<h3>{escape(table.title)}</h3>{evidence_table(table)}<p class="legend">{escape(table.legend)}</p>'
        for table in tables
        if table is not None
    )


def _figures(plots: Sequence[Plot]) -> str:
    figures = [
        f'<figure><div role="img" aria-label="{escape(plot.alt)}">{plot.inline()}</div>'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
        for plot in plots
    ]
    return f'<div class="plots">{"".join(figures)}</div>' if figures else ""


def _fills(run: Run) -> str:
    content = fills.decoded(run, gallery.open_data(run))
    return content and (
        "<p>The same test pictures, the hole of each filled by what needs no training and by each row's "
        f"decoder (first seed). A decoder never sees what the hole hides.</p>{content}"
    )


def _nearest_fills(run: Run) -> str:
    content = fills.nearest(run, gallery.open_data(run))
    return content and (
        "<p>The same test pictures, the hole of each filled from the training picture whose surroundings are the most "
        "alike, and blended in: by histograms of gradients (HOG), and by each encoder's features (first seed) at the "
        f"stage below its name. {fills.TAKEN_FROM} training pictures are looked through, at most.</p>{content}"
        f"{_at_most(run)}"
    )


def _neighbours(run: Run) -> str:
    found = gallery.neighbours(run, gallery.open_data(run))
    content = "".join(
        f"<h3>{REGIONS[mode]}</h3>{first}"
        + (
            f'<details><summary>{len(rest)} more</summary><div class="sheets">{"".join(rest)}</div></details>'
            * bool(rest)
        )
        for mode, (first, *rest) in found.items()
    )
    return content and (
        "<p>The query at the left, what lies nearest to it in the training split at the right, best first, "
        "with its cosine and class; an encoder a row, read at the stage that its headline quotes. "
        f"{gallery.SEARCHED} regions are searched, at most.</p>{content}{_at_most(run)}"
    )


def _dense(run: Run) -> str:
    content = dense.coloured(run, gallery.open_data(run))
    return content and (
        "<p>What each encoder tells apart within a picture: of its features over these test pictures the first "
        "principal component goes from dark to light, the second from blue to yellow, the third from green to red, "
        "each stretched to its full range, first seed. Alike in colour is alike in "
        "features; a colour by itself means nothing, and colours of two encoders do not compare. Beside "
        f"each encoder its stage and how much of the variance the three hold.</p>{content}"
    )


def _sheets(run: Run) -> str:
    parts = []
    for probe in gallery.SHEETS:
        for row, sheet in gallery.sheets(run, probe).items():
            shown = " open" if row in gallery.OPEN_ROWS else ""
            parts.append(f"<details{shown}><summary>{probe}: {escape(row)}</summary>{sheet}</details>")
    return "".join([*parts, _at_most(run)]) if parts else ""


def _at_most(run: Run) -> str:
    """Return a line that says so where the pictures are not of all rows."""
    if len(run.shown) == len(run.rows):
        return ""
    return f'<p class="legend">Of {len(run.rows)} rows {len(run.shown)} are shown: {escape(and_list(run.shown))}.</p>'


def _filters(run: Run) -> str:
    found: Mapping[str, str] = gallery.filters(run)
    figures = [f"<figure>{image}<figcaption>{escape(row)}</figcaption></figure>" for row, image in found.items()]
    return f'<div class="filters">{"".join(figures)}</div>' if figures else ""


def _facts(run: Run, gaps: list[str]) -> str:
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in run.facts())
    notes = "".join(f"<li>{escape(note)}</li>" for note in [*run.notes(), *gaps])
    return f"<dl>{facts}</dl>" + (f"<h3>Notes</h3><ul>{notes}</ul>" if notes else "")


def _failures(run: Run) -> str:
    return "".join(
        f"<details><summary><code>{escape(failure['cell'])}</code>: "
        f"{escape((failure['error'].splitlines() or [''])[0])}</summary>"
        f"<pre>{escape(failure['traceback'])}</pre></details>"
        for failure in run.failures
    )


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")

"""The HTML page, from top to bottom."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from html import escape

from benchmarks.report import dense, fills, gallery
from benchmarks.report.content import Run
from benchmarks.report.evidence import Evidence, evidence
from benchmarks.report.markdown import TITLE
from benchmarks.report.plotting import Plot
from benchmarks.report.sentences import caveats, data_sentence, verdict
from benchmarks.report.style import CSS, SCRIPT
from benchmarks.report.tables import evidence_table, main_table, score_table
from benchmarks.wording import LEGEND, and_list
from pretext.system.errors import UserError

REGIONS = {
    "objects": "Objects: the query is the outlined region",
    "contexts": "Contexts: the query is the surroundings; the centre is hidden",
    "images": "Whole images",
}
MOST_BYTES = 9_900_000
"""Largest size of all sections together: a page of 10 MB still fits into an e-mail."""


@dataclasses.dataclass
class _Sections:
    """Sections of the page as title and HTML, and a note for each that was left out."""

    found: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    left_out: list[str] = dataclasses.field(default_factory=list)

    def add(self, title: str, make: Callable[[], str]) -> None:
        try:
            content = make()
        except (UserError, OSError, LookupError, ValueError, RuntimeError) as error:
            # the data moved, a file is truncated, the device is out of memory: the other sections are still valid
            self.left_out.append(f"{title} left out: {type(error).__name__}: {error}".replace("UserError: ", ""))
            return
        taken = sum(len(other) for _, other in self.found)  # nearly all characters are ASCII
        if taken + len(content) > MOST_BYTES:
            self.left_out.append(f"{title} left out: {len(content) / 1e6:.1f} MB more would make the page exceed 10 MB")
        elif content:
            self.found.append((title, content))


def page(run: Run, plots: Callable[[], Sequence[Plot]]) -> str:
    """Return the report as one HTML page that loads nothing from outside.

    Args:
        run: The results folder.
        plots: Draws the figures; if it fails, the page contains a note instead.
    """
    sections = _Sections()
    if run.rows:
        sections.add("Results", lambda: _results(run))
        sections.add("Uncertainty", lambda: _evidence(*evidence(run)))
        sections.add("Figures", lambda: _figures(plots()))
    if "data" in run.plan and run.first_encoders():
        sections.add("Inpainting", lambda: _fills(run))
        sections.add("Inpainting from neighbours", lambda: _nearest_fills(run))
        sections.add("Nearest neighbours", lambda: _neighbours(run))
        sections.add("Dense features", lambda: _dense(run))
    sections.add("Detection and segmentation", lambda: _sheets(run))
    sections.add("First-layer filters", lambda: _filters(run))
    sections.add("Failed cells", lambda: _failures(run))
    sections.found.append(("Run details", _facts(run, sections.left_out)))
    links = "".join(f'<a href="#{_anchor(title)}">{escape(title)}</a>' for title, _ in sections.found)
    body = "".join(
        f'<section id="{_anchor(title)}"><h2>{escape(title)}</h2>{content}</section>'
        for title, content in sections.found
    )
    opening = f'<p class="data{" synthetic" if run.synthetic else ""}">{escape(data_sentence(run))}</p>'
    words = "".join(f'<p class="verdict">{escape(text)}</p>' for text in verdict(run))
    words += "".join(f'<p class="small">{escape(text)}</p>' for text in caveats(run))
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
        f'<p class="legend">{escape(LEGEND)}; best without labels in bold. '
        "Click a heading to sort.</p>"
        "<details><summary>All scores at all stages</summary>"
        '<p class="legend">from, to: ends of the 95 % interval. ★: stage that the table above reports for at least '
        f"one seed. − random: difference from random weights.</p>{score_table(run)}</details>"
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
    content = fills.decoder_table(run, gallery.open_data(run))
    return content and (
        "<p>The same test images, with the hole filled by baselines without training and by each row's decoder "
        f"(first seed). Decoders never see the hidden pixels.</p>{content}"
    )


def _nearest_fills(run: Run) -> str:
    content = fills.nearest_table(run, gallery.open_data(run))
    return content and (
        "<p>The same test images, with the hole filled from the training image with the most similar surroundings, "
        "and blended in. Similarity is measured on histograms of oriented gradients (HOG), and on each encoder's "
        "features (first seed) at the stage below its name. "
        f"At most {fills.TAKEN_FROM} training images are searched.</p>{content}{_shown_rows(run)}"
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
        "<p>Left: the query. Right: its nearest neighbours in the training split, nearest first, with cosine "
        "similarity and class. One row per encoder, read at the stage of its headline score. "
        f"At most {gallery.SEARCHED} regions are searched.</p>{content}{_shown_rows(run)}"
    )


def _dense(run: Run) -> str:
    content = dense.feature_table(run, gallery.open_data(run))
    return content and (
        "<p>Features of each encoder (first seed) as colours. Over these test images, the first principal component "
        "runs from dark to light, the second from blue to yellow, the third from green to red, each stretched to its "
        "full range. Within one encoder, similar colours mean similar features; colours of different encoders are not "
        f"comparable. Below each name: the stage, and the variance explained by the three components.</p>{content}"
    )


def _sheets(run: Run) -> str:
    parts = []
    for probe in gallery.SHEETS:
        for row, sheet in gallery.sheets(run, probe).items():
            shown = " open" if row in gallery.OPEN_ROWS else ""
            parts.append(f"<details{shown}><summary>{escape(probe)}: {escape(row)}</summary>{sheet}</details>")
    return "".join([*parts, _shown_rows(run)]) if parts else ""


def _shown_rows(run: Run) -> str:
    """Return a line that names the shown rows, if not all rows are shown."""
    if len(run.shown) == len(run.rows):
        return ""
    return f'<p class="legend">{len(run.shown)} of {len(run.rows)} rows are shown: {escape(and_list(run.shown))}.</p>'


def _filters(run: Run) -> str:
    found: Mapping[str, str] = gallery.filters(run)
    figures = [f"<figure>{image}<figcaption>{escape(row)}</figcaption></figure>" for row, image in found.items()]
    return f'<div class="filters">{"".join(figures)}</div>' if figures else ""


def _facts(run: Run, left_out: list[str]) -> str:
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in run.facts())
    notes = "".join(f"<li>{escape(note)}</li>" for note in [*run.notes(), *left_out])
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

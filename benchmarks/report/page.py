"""The HTML page, from top to bottom."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from html import escape

from benchmarks.report import dense, fills, gallery, grids, neighbours
from benchmarks.report.content import Run
from benchmarks.report.evidence import Evidence, evidence
from benchmarks.report.headline import best_by_probe, bold_legend, standings
from benchmarks.report.links import ways_out
from benchmarks.report.markdown import TITLE
from benchmarks.report.plotting import Plot
from benchmarks.report.sentences import caveats, data_sentence, setting_sentence, verdict, without_labels
from benchmarks.report.style import CSS, SCRIPT
from benchmarks.report.tables import evidence_table, main_table, score_table
from benchmarks.words.columns import probe_of
from benchmarks.words.wording import LEGEND, and_list
from pretext.datasets.base import ImageDataset
from pretext.system.errors import UserError

MOST_BYTES = 9_900_000
"""Largest size of all sections together: a page of 10 MB still fits into an e-mail."""
SMALL_SIDE = 64
"""Below this side in pixels, filters and dense features are folded: they show little."""
FOREST = ("forest", "forest-narrow")
"""Names of the figure of the first screen: for screens and paper, and for phones."""


FOLDED = '<details class="screen">'
"""Begins what is folded, and is not printed."""


@dataclasses.dataclass
class _Sections:
    """Sections of the page as title and HTML, and a note for each that was left out."""

    found: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    left_out: list[str] = dataclasses.field(default_factory=list)

    def made(self, title: str, make: Callable[[], str], *, beside: int = 0) -> str:
        """Return the content; empty, with a note, if it cannot be made or would make the page too large.

        `beside` is the size of what belongs to the same section.
        """
        try:
            content = make()
        except (UserError, OSError, LookupError, ValueError, RuntimeError) as error:
            # the data moved, a file is truncated, the device is out of memory: the other sections are still valid
            self.left_out.append(f"{title} left out: {type(error).__name__}: {error}".replace("UserError: ", ""))
            return ""
        taken = beside + sum(len(other) for _, other in self.found)  # nearly all characters are ASCII
        if taken + len(content) > MOST_BYTES:
            self.left_out.append(f"{title} left out: {len(content) / 1e6:.1f} MB more would make the page exceed 10 MB")
            return ""
        return content

    def add_by_set(self, title: str, run: Run, make: Callable[[str], str]) -> None:
        """Add a section of pictures: of the one data set, or of several, which are folded but for the first."""
        parts: list[str] = []
        for label in run.sets:
            name = f"{title} on {label}" if label else title
            if part := self.made(name, functools.partial(make, label), beside=sum(map(len, parts))):
                summary = f"<summary>On {escape(label)}</summary>"
                opening = "<details open>" if not parts else FOLDED
                parts.append(f"{opening}{summary}{part}</details>" if label else part)
        if parts:
            self.found.append((title, "".join(parts)))

    def add(self, title: str, make: Callable[[], str]) -> None:
        content = self.made(title, make)
        if content:
            self.found.append((title, content))


def page(run: Run, plots: Callable[[], Sequence[Plot]]) -> str:
    """Return the report as one HTML page that loads nothing from outside.

    Args:
        run: The results folder.
        plots: Draws the figures; if it fails, the page contains a note instead.
    """
    sections = _Sections()
    drawn: list[Plot] = []

    def draw() -> str:
        drawn.extend(plots())
        return "".join(_figure(plot) for plot in drawn if plot.name in FOREST)

    forest = sections.made("Figures", draw)
    unlabelled = without_labels(run)
    if unlabelled:  # the pictures are what such a page is for
        _add_pictures(sections, run)
    if run.rows:
        sections.add("Results", lambda: (forest if unlabelled else "") + _results(run))
        sections.add("Figures", lambda: _figures([plot for plot in drawn if plot.name not in FOREST]))
        sections.add("Uncertainty", lambda: _uncertainty(run, *evidence(run)))
    if not unlabelled:
        _add_pictures(sections, run)
    sections.add("Failed cells", lambda: _failures(run))
    sections.add("Files", lambda: ways_out(run, [plot.name for plot in drawn]))
    sections.found.append(("Run details", _facts(run, sections.left_out)))
    small = "".join(f'<p class="small">{escape(text)}</p>' for text in caveats(run))
    links = "".join(f'<a href="#{_anchor(title)}">{escape(title)}</a>' for title, _ in sections.found)
    body = "".join(
        f'<section id="{_anchor(title)}"{_on_screen(title, content)}><h2>{escape(title)}</h2>{content}</section>'
        for title, content in sections.found
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{TITLE}: {escape(', '.join(run.data))}</title><style>{CSS}</style></head>\n"
        f"<body><header><h1>{TITLE}</h1>{_opening(run, unlabelled)}{'' if unlabelled else forest}"
        f"{small}<nav>{links}</nav></header>\n"
        f"<main>{body}</main>\n<script>{SCRIPT}</script></body></html>\n"
    )


def _on_screen(title: str, content: str) -> str:
    """Return the class of a section that is not printed: links, and what is folded as a whole."""
    return ' class="screen"' if title == "Files" or content.startswith(FOLDED) else ""


def _opening(run: Run, unlabelled: str) -> str:
    """Return the first screen's sentences: what was compared, who is best, how sure, at what cost."""
    words = f'<p class="data{" synthetic" if run.synthetic else ""}">{escape(data_sentence(run))}</p>'
    words += f'<p class="verdict">{escape(setting_sentence(run))}</p>'
    if unlabelled:
        words += f'<p class="verdict">{escape(unlabelled)}</p>'
        notes = run.plan.get("left_out", ())
        fallen = "".join(f"<li>{escape(note)}</li>" for note in notes)
        summary = f"<summary>What fell away for want of labels: {len(notes)} notes</summary>"
        words += f'<details class="small">{summary}<ul>{fallen}</ul></details>' if notes else ""
    else:
        words += "".join(
            f'<p class="verdict"><strong>{escape(claim)}</strong> {escape(numbers)}</p>'
            for claim, numbers in standings(run.summaries, run.costs)
        )
        words += f'<p class="verdict">{escape(best_by_probe(run.summaries))}</p>'
    if not run.rows or not any(s.difference is not None for s in run.summaries):
        words += "".join(f'<p class="verdict">{escape(text)}</p>' for text in verdict(run))
    return words.replace('<p class="verdict"></p>', "")


def _add_pictures(sections: _Sections, run: Run) -> None:
    """Add the sections of images."""
    if "data" in run.plan and run.first_encoders():
        sections.add_by_set("Nearest neighbours", run, lambda label: _neighbours(run, label))
        sections.add_by_set("Inpainting", run, lambda label: _fills(run, label))
        sections.add_by_set("Inpainting from neighbours", run, lambda label: _nearest_fills(run, label))
    sections.add("Detection and segmentation", lambda: _sheets(run))
    if "data" in run.plan and run.first_encoders():
        sections.add_by_set("Dense features", run, lambda label: _dense(run, label))
    sections.add("First-layer filters", lambda: _filters(run))


def _results(run: Run) -> str:
    return (
        f"{main_table(run)}"
        f'<p class="legend">{escape(LEGEND)}; {bold_legend(run.summaries)}; grey rows are references. Below each '
        "probe: what it had of labels, training steps and test items. Click a heading to sort.</p>"
        '<details class="screen"><summary>All scores at all stages</summary>'
        '<p class="legend">from, to: ends of the 95 % interval. ★: stage that the table above reports for at least '
        f"one seed. − random: difference from random weights.</p>{score_table(run)}</details>"
    )


def _uncertainty(run: Run, *tables: Evidence | None) -> str:
    content = "".join(
        f'<h3>{escape(table.title)}</h3>{evidence_table(table)}<p class="legend">{escape(table.legend)}</p>'
        for table in tables
        if table is not None
    )
    return content and "".join(f"<p>{escape(text)}</p>" for text in verdict(run)) + content


def _figure(plot: Plot) -> str:
    return (
        f'<figure class="{plot.name}"><div role="img" aria-label="{escape(plot.alt)}">{plot.inline()}</div>'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
    )


def _figures(plots: Sequence[Plot]) -> str:
    return f'<div class="plots">{"".join(map(_figure, plots))}</div>' if plots else ""


def _fills(run: Run, label: str) -> str:
    content = fills.decoder_table(run, gallery.open_data(run, label))
    return content and (
        "<p>Test images drawn at random, with the hole filled by baselines without training and by each row's decoder "
        "(first seed). Decoders never see the hidden pixels. Below each fill: its PSNR inside the hole; more is "
        f"better.</p>{content}"
    )


def _nearest_fills(run: Run, label: str) -> str:
    data = gallery.open_data(run, label)
    content = fills.nearest_table(run, data, label)
    return content and (
        "<p>The same test images, with the hole filled from the training image with the most similar surroundings, "
        "and blended in. Similarity is measured on histograms of oriented gradients (HOG), and on each encoder's "
        "features (first seed) at the stage below its name. "
        f"{_searched(data, fills.TAKEN_FROM)}</p>{content}{_shown_rows(run)}"
    )


def _neighbours(run: Run, label: str) -> str:
    data = gallery.open_data(run, label)
    content = neighbours.neighbours(run, data, label)
    frames = (
        "Full green frame and ✓: the same class; dashed red frame and ✗: another class. Beside each name: how many are "
        "right. "
    )
    labelled = '<figure class="' in content
    regions = f"At most {neighbours.SEARCHED:,} regions are searched."
    searched = regions if "boxes" in data.annotations else _searched(data, neighbours.SEARCHED)
    return content and (
        f"<p>Left: a test image{', one of each class' if labelled else ''}, drawn at random. Right: its nearest "
        "neighbours in the training split, a line per encoder, read at the stage of its headline score. "
        f"{frames if labelled else ''}{searched}</p>{content}{_shown_rows(run)}"
    )


def _searched(data: ImageDataset, most: int) -> str:
    """Return how many training images are searched, of which at most `most` are drawn."""
    count = len(data.split("train"))
    return f"All {count:,} training images are searched." if count <= most else f"{most:,} of {count:,} are searched."


def _dense(run: Run, label: str) -> str:
    content = dense.feature_table(run, gallery.open_data(run, label))
    return content and _folded(
        run,
        "<p>Features of each encoder (first seed) as colours. Over these test images, the first principal component "
        "runs from dark to light, the second from blue to yellow, the third from green to red, each stretched to its "
        "full range. Within one encoder, similar colours mean similar features; colours of different encoders are not "
        f"comparable. Below each name: the stage, and the variance explained by the three components.</p>{content}",
    )


def _sheets(run: Run) -> str:
    content = "".join(grids.sheet_grid(run, column) for column in run.probes if probe_of(column) in grids.SHEETS)
    return content and (
        "<p>The same test images, drawn at random, for all encoders (first seed). In detections, a full green frame "
        "finds an object of its class, a dashed red frame does not, and a grey one lies on a difficult object, which "
        "does not count; there are two more frames than objects that count.</p>"
        f"{content}{_shown_rows(run)}"
    )


def _shown_rows(run: Run) -> str:
    """Return a line that names the shown rows, if not all rows are shown."""
    if len(run.shown) == len(run.rows):
        return ""
    names = and_list([run.title(row) for row in run.shown])
    return f'<p class="legend">{len(run.shown)} of {len(run.rows)} rows are shown: {escape(names)}.</p>'


def _filters(run: Run) -> str:
    found: Mapping[str, str] = gallery.filters(run)
    figures = [
        f"<figure>{image}<figcaption>{escape(run.title(row))}</figcaption></figure>" for row, image in found.items()
    ]
    return _folded(run, f'<div class="filters">{"".join(figures)}</div>') if figures else ""


def _folded(run: Run, content: str) -> str:
    """Fold what shows little in small images."""
    side = run.plan.get("image_size", SMALL_SIDE)
    if side >= SMALL_SIDE:
        return content
    summary = f"<summary>At {side} px these images show little; unfold them.</summary>"
    return f"{FOLDED}{summary}{content}</details>"


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

"""The report as Markdown: verdict, tables, run details, failed cells."""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchmarks.report.content import Run
from benchmarks.report.evidence import Evidence, evidence
from benchmarks.report.headline import best_by_probe, bold_legend, standings
from benchmarks.report.protocols import protocol
from benchmarks.report.sentences import caveats, data_sentence, setting_sentence, verdict, without_labels
from benchmarks.summaries.costs import COSTS, cost_texts
from benchmarks.summaries.verdict import without_learning
from benchmarks.words.naming import metric_title, probe_title
from benchmarks.words.wording import LEGEND, NO_LEARNING, NO_LEARNING_LEGEND, value_text

TITLE = "Pretext tasks compared"
MARKUP = re.compile(r"[\\`*<>|~$]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|&(?=#?\w+;)")
"""What Markdown, as GitHub extends it, would not print as given within a line."""


def markdown(run: Run) -> str:
    """Return the report as Markdown."""
    opening = [data_sentence(run), setting_sentence(run), without_labels(run)]
    if not without_labels(run):
        opening += [*(each.text() for each in standings(run.summaries, run.costs)), best_by_probe(run.summaries)]
    opening += [" ".join(verdict(run)), *caveats(run)]
    parts = [f"# {TITLE}", *(escape(text) for text in opening if text)]
    if run.rows:
        plain = f" {NO_LEARNING_LEGEND}." if without_learning(run.summaries) else ""
        parts += [_main_table(run), f"{LEGEND}; {bold_legend(run.summaries)}.{plain}"]
        parts += [_evidence(found) for found in evidence(run) if found is not None]
    if run.notes():
        parts += ["## Notes", "\n".join(f"- {escape(note)}" for note in run.notes())]
    parts += ["## Run details", "\n".join(f"- {name}: {code(value)}" for name, value in run.facts())]
    if run.failures:
        parts += [
            "## Failed cells",
            "\n".join(f"- {code(f['cell'])}: {escape((f['error'].splitlines() or [''])[0])}" for f in run.failures),
        ]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Escape plain text for a line of Markdown."""
    return MARKUP.sub(r"\\\g<0>", _in_one_line(text))


def code(text: str) -> str:
    """Return plain text as a code span; its fence is longer than any run of backticks in the text."""
    text = _in_one_line(text)
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def _in_one_line(text: str) -> str:
    return re.sub(r"[\r\n]+", " ", text)


def _main_table(run: Run) -> str:
    headlines = run.headlines()
    first = {probe: next(s for (_, name), s in headlines.items() if name == probe) for probe in run.probes}
    units = {probe: metric_title(one.metric, one.unit) for probe, one in first.items()}
    head = [
        "row",
        *(escape(f"{probe_title(probe)} ({'; '.join([units[probe], *protocol(run, probe)])})") for probe in run.probes),
        *(f"{name} ({unit})" if unit != "seen" else f"{name} {unit}" for name, unit in COSTS),
    ]
    body = []
    for row in run.rows:
        cells = []
        for probe in run.probes:
            summary = headlines.get((row, probe))
            text = escape(value_text(summary).strip()) if summary else "–"
            cells.append(f"**{text}**" if row in run.best(probe) else text)
        body.append([escape(run.title(row)), *cells, *cost_texts(run.costs.get(row))])
    if plain := without_learning(run.summaries):
        cells = [plain.get(probe, "–") for probe in run.probes]
        body.append([NO_LEARNING, *cells, *cost_texts(None)])
    return table(head, body)


def _evidence(found: Evidence) -> str:
    head, body = [*map(escape, found.head)], [[escape(cell.text) for cell in line] for line in found.body]
    return "\n\n".join([f"### {escape(found.title)}", table(head, body), escape(found.legend)])


def table(head: Sequence[str], body: Sequence[Sequence[str]], *, names: int = 1) -> str:
    """Return a table of cells that are Markdown already; all columns after the first `names` are flush right."""
    return "\n".join(_line(line) for line in [head, [":--"] * names + ["--:"] * (len(head) - names), *body])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"

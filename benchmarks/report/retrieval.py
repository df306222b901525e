"""What retrieval scores beside what needs no network, the same on the page and in Markdown."""

from __future__ import annotations

from benchmarks.report.content import Run
from benchmarks.report.evidence import Cell, Evidence
from benchmarks.verdict import Summary
from benchmarks.wording import and_list, value_text

PROBE, BY = "retrieval", " by "
"""A metric of what needs no network is an encoder's, this word, and its name."""


def without_network(run: Run) -> Evidence | None:
    """Return a table of rows × measures with what needs no network below; None where it was not judged."""
    metrics = list(dict.fromkeys(m.metric for m in run.measurements if m.probe == PROBE))
    plain = list(dict.fromkeys(metric.partition(BY)[2] for metric in metrics if BY in metric))
    columns = [metric for metric in metrics if any(f"{metric}{BY}{name}" in metrics for name in plain)]
    found = {(s.pretext, s.metric): s for s in run.summaries if s.probe == PROBE}
    rows = [row for row in run.rows if any((row, metric) in found for metric in columns)]
    if not rows:
        return None
    body = [[Cell(row), *(_cell(found.get((row, metric))) for metric in columns)] for row in rows]
    # the queries are the same for all rows, so that these are too
    body += [
        [Cell(name), *(_cell(found.get((rows[0], f"{metric}{BY}{name}"))) for metric in columns)] for name in plain
    ]
    chances = [s.chance if (s := found.get((rows[0], metric))) else None for metric in columns]
    body.append([Cell("chance"), *(Cell("–" if chance is None else f"{chance:.1f}", chance) for chance in chances)])
    return Evidence(
        "Retrieval, beside what needs no network",
        "The same queries in the same database, in percent: by each row at the stage that its headline quotes, and by "
        f"{and_list(plain)}. Precision@k: how many of the k nearest are of the query's class; recall@k: how often any "
        "is; mAP: over the whole ranking; context: with the object hidden.",
        ["row", *columns],
        body,
    )


def _cell(summary: Summary | None) -> Cell:
    return Cell("–") if summary is None else Cell(value_text(summary).strip(), summary.mean)

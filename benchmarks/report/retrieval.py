"""Retrieval scores next to those of methods without a network, for the page and for Markdown."""

from __future__ import annotations

from benchmarks.report.content import Run
from benchmarks.report.evidence import Cell, Evidence
from benchmarks.verdict import Summary
from benchmarks.wording import and_list, value_text

PROBE, BY = "retrieval", " by "
"""A method without a network is recognised by its metric: `precision@10 by HOG`."""


def without_network(run: Run) -> Evidence | None:
    """Return a table of rows × metrics, with the methods without a network below; None if none was evaluated."""
    metrics = list(dict.fromkeys(m.metric for m in run.measurements if m.probe == PROBE))
    plain = list(dict.fromkeys(metric.partition(BY)[2] for metric in metrics if BY in metric))
    columns = [metric for metric in metrics if any(f"{metric}{BY}{name}" in metrics for name in plain)]
    found = {(s.pretext, s.metric): s for s in run.summaries if s.probe == PROBE}
    rows = [row for row in run.rows if any((row, metric) in found for metric in columns)]
    if not rows:
        return None
    body = [[Cell(row), *(_cell(found.get((row, metric))) for metric in columns)] for row in rows]
    # their scores are the same in all rows, because the queries are
    body += [
        [Cell(name), *(_cell(found.get((rows[0], f"{metric}{BY}{name}"))) for metric in columns)] for name in plain
    ]
    chances = [s.chance if (s := found.get((rows[0], metric))) else None for metric in columns]
    body.append([Cell("chance"), *(Cell("–" if chance is None else f"{chance:.1f}", chance) for chance in chances)])
    return Evidence(
        "Retrieval with and without a network",
        "Same queries and database, in percent. Encoders are read at the stage of their headline score; without a "
        f"network: {and_list(plain)}. Precision@k: share of the k nearest items with the query's class. Recall@k: "
        "share of queries with at least one such item. mAP: over the whole ranking. Context: with the object hidden.",
        ["row", *columns],
        body,
    )


def _cell(summary: Summary | None) -> Cell:
    return Cell("–") if summary is None else Cell(value_text(summary).strip(), summary.mean)

"""Uncertainty tables, for the page and for Markdown: differences, gap shares, detectable differences, mean ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.report.content import PERCENT, Run, column_title
from benchmarks.report.stages import gains_by_stage
from benchmarks.summaries.intervals import POWER
from benchmarks.summaries.verdict import BASELINE, CEILING, Summary, smallest_detectable
from benchmarks.words.naming import probe_title
from benchmarks.words.wording import MARK


class Cell(NamedTuple):
    """Text of a table cell, and the value that its column is sorted by."""

    text: str
    value: float | None = None


class Evidence(NamedTuple):
    """A table whose first column holds row names."""

    title: str
    legend: str
    head: list[str]
    body: list[list[Cell]]
    rows: tuple[str, ...] = ()
    """The row that each line is about; empty for a table of probes."""


def evidence(run: Run) -> list[Evidence]:
    """Return all tables that the run has numbers for."""
    found = [_differences(run), _by_stage(run), _shares(run), _power(run), _ranks(run)]
    return [table for table in found if table is not None]


def _differences(run: Run) -> Evidence | None:
    return _by_row_and_probe(
        run,
        "Differences from random weights",
        f"Paired by seed and test item, with {PERCENT} intervals. One mark: the interval excludes zero. Two marks: "
        "still significant after Holm's correction for all comparisons of this table.",
        _difference,
    )


def _by_stage(run: Run) -> Evidence | None:
    """Return each row's headline stage beside its deepest one, for probes that read several stages of the baseline."""
    columns = gains_by_stage(run)
    if not columns:
        return None
    rows = [row for row in run.rows if any(row in found for found in columns.values())]
    body, headlines = [], run.headlines()
    for row in rows:
        cells = [Cell(run.title(row))]
        for probe, found in columns.items():
            gains, text = found.get(row), headlines[BASELINE, probe].text
            if gains is None:
                cells += [Cell("–"), Cell("–")]
                continue
            chosen = next((gain for gain in gains if gain.headline), gains[-1])
            cells += [
                Cell(f"{gain.stage} {text(gain.mean)} ({text(gain.gain, '+')})", gain.mean)
                for gain in (chosen, gains[-1])
            ]
        body.append(cells)
    return Evidence(
        "Chosen and deepest stage",
        "The stage that val chose for the table (of several seeds, the first in the encoder), and the last one; in "
        "brackets the difference from random weights at the same stage.",
        ["row", *(f"{probe_title(probe)}, {which}" for probe in columns for which in ("chosen", "deepest"))],
        body,
        tuple(rows),
    )


def _shares(run: Run) -> Evidence | None:
    return _by_row_and_probe(
        run,
        "Share of the gap from random weights to labels",
        f"0 % is random weights, 100 % is training with labels; {PERCENT} intervals by Fieller's method. "
        "–: labels are not significantly better than random weights.",
        _share,
    )


def _power(run: Run) -> Evidence | None:
    """Return each probe's smallest detectable difference, next to the gap from random weights to labels."""
    headlines = run.headlines()
    body = []
    for probe in run.probes:
        column = [s for (_, name), s in headlines.items() if name == probe]
        compared = [s for s in column if s.p is not None]
        smallest = smallest_detectable(column)
        if smallest is None:
            continue
        ceiling = headlines.get((CEILING, probe))
        counts = [sum(bool(s.distinguishable) for s in compared), sum(bool(s.survives_holm) for s in compared)]
        body.append(
            [
                Cell(column_title(column[0])),
                *(Cell(str(n), n) for n in (max(s.seeds for s in column), column[0].n)),
                Cell(column[0].text(smallest), smallest),
                _signed(ceiling) if ceiling else Cell("–"),
                *(Cell(f"{n} of {len(compared)}", n) for n in counts),
            ]
        )
    if not body:
        return None
    head = ["probe", "seeds", "n", "detectable", "labels − random weights", "significant", "after Holm"]
    return Evidence(
        "Detectable differences",
        "Detectable: the smallest true difference from random weights that these seeds and test items reveal in "
        f"{100 * POWER:.0f} % of repetitions, for a row with the average variance of the rows. "
        f"Smaller differences may remain undetected. {run.plan.get('sized', '')}".rstrip(),
        head,
        body,
    )


def _ranks(run: Run) -> Evidence | None:
    if run.ranking is None:
        return None
    body = [
        [Cell(run.title(row)), *(Cell(f"{at:.2f}", at) for at in (rank, *run.ranking.ends(row)))]
        for row, rank in run.ranking.ranks.items()
    ]
    return Evidence(
        "Mean ranks",
        f"Over {', '.join(map(probe_title, run.ranking.probes))}; 1 is best. "
        f"Rows whose intervals do not overlap differ ({PERCENT} for all pairs together, Nemenyi). "
        f"No difference between any rows: p = {run.ranking.p:.2g} (Friedman).",
        ["row", "mean rank", "from", "to"],
        body,
        tuple(run.ranking.ranks),
    )


def _by_row_and_probe(run: Run, title: str, legend: str, cell: Callable[[Summary], Cell]) -> Evidence | None:
    """Return a table of rows × probes, without empty rows and columns."""
    texts = {key: cell(summary) for key, summary in run.headlines().items()}
    filled = {key for key, one in texts.items() if one.value is not None}
    rows = [row for row in run.rows if any((row, probe) in filled for probe in run.probes)]
    probes = [probe for probe in run.probes if any((row, probe) in filled for row in rows)]
    if not rows:
        return None
    body = [[Cell(run.title(row)), *(texts.get((row, probe), Cell("–")) for probe in probes)] for row in rows]
    return Evidence(title, legend, ["row", *map(probe_title, probes)], body, tuple(rows))


def _difference(summary: Summary) -> Cell:
    mean, low, high = summary.difference, summary.difference_low, summary.difference_high
    if mean is None or low is None or high is None:
        return _signed(summary)
    marks = MARK[summary.better] * (2 if summary.survives_holm else 1)
    mean_text, low_text, high_text = (summary.text(value, "+") for value in (mean, low, high))
    return Cell(f"{mean_text} [{low_text}, {high_text}] {marks}".rstrip(), mean)


def _share(summary: Summary) -> Cell:
    if summary.share is None or summary.share_low is None or summary.share_high is None:
        return Cell("–")
    share, low, high = (round(100 * each) for each in (summary.share, summary.share_low, summary.share_high))
    return Cell(f"{share} % [{low}, {high}]", summary.share)


def _signed(summary: Summary) -> Cell:
    return Cell("–") if summary.difference is None else Cell(summary.text(summary.difference, "+"), summary.difference)

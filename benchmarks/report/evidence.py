"""Small tables of how sure the numbers are, the same on the page and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.intervals import LEVEL, POWER
from benchmarks.report.content import Run
from benchmarks.verdict import BASELINE, CEILING, Summary, smallest_seen
from benchmarks.wording import MARK

PERCENT = f"{100 * LEVEL:.0f}\N{NO-BREAK SPACE}%"


class Cell(NamedTuple):
    """What is read, and what a column is sorted by."""

    text: str
    value: float | None = None


class Evidence(NamedTuple):
    """A table; its first column names rows."""

    title: str
    legend: str
    head: list[str]
    body: list[list[Cell]]


def evidence(run: Run) -> list[Evidence]:
    """Return the tables that a run has numbers for."""
    found = [_differences(run), _shares(run), _power(run), _ranks(run)]
    return [table for table in found if table is not None]


def _differences(run: Run) -> Evidence | None:
    return _by_row_and_probe(
        run,
        "Differences from random weights",
        f"Paired by seed and test item, with {PERCENT} intervals. One mark: the interval excludes zero; two: it "
        "does so after Holm's correction for all comparisons of this table.",
        _difference,
    )


def _shares(run: Run) -> Evidence | None:
    return _by_row_and_probe(
        run,
        f"Share of the way from {BASELINE} to {CEILING}",
        f"0 % is random weights, 100 % labels; {PERCENT} intervals by Fieller's method. – where labels are "
        "not better than random weights for certain, so that there is no way to go.",
        _share,
    )


def _power(run: Run) -> Evidence | None:
    """Return what each probe could have seen, beside the whole way there is to go."""
    headlines = run.headlines()
    body = []
    for probe in run.probes:
        column = [s for (_, name), s in headlines.items() if name == probe]
        compared = [s for s in column if s.p is not None]
        smallest = smallest_seen(column)
        if smallest is None:
            continue
        ceiling = headlines.get((CEILING, probe))
        counts = [sum(bool(s.distinguishable) for s in compared), sum(bool(s.survives_holm) for s in compared)]
        body.append(
            [
                Cell(f"{probe}, {column[0].metric} {column[0].unit}".strip()),
                *(Cell(str(n), n) for n in (max(s.seeds for s in column), column[0].n)),
                Cell(f"{smallest:.1f}", smallest),
                _signed(ceiling.difference if ceiling else None),
                *(Cell(f"{n} of {len(compared)}", n) for n in counts),
            ]
        )
    if not body:
        return None
    head = ["probe", "seeds", "n", "smallest seen", f"{CEILING} − {BASELINE}", "differ", "after Holm"]
    return Evidence(
        "What could have been seen",
        f"Smallest seen: the true difference from random weights that these seeds and test items show in "
        f"{100 * POWER:.0f} % of repetitions, were every row as noisy as the rows are on average. "
        f"A smaller one may be there and stay hidden. {run.plan.get('sized', '')}".rstrip(),
        head,
        body,
    )


def _ranks(run: Run) -> Evidence | None:
    if run.ranking is None:
        return None
    body = [
        [Cell(row), *(Cell(f"{at:.2f}", at) for at in (rank, *run.ranking.ends(row)))]
        for row, rank in run.ranking.ranks.items()
    ]
    return Evidence(
        "Mean ranks",
        f"Over {', '.join(run.ranking.probes)}; 1 is best. Rows whose intervals do not overlap differ, {PERCENT} for "
        f"all pairs together (Nemenyi). No difference at all: p = {run.ranking.p:.2g} (Friedman).",
        ["row", "mean rank", "from", "to"],
        body,
    )


def _by_row_and_probe(run: Run, title: str, legend: str, cell: Callable[[Summary], Cell]) -> Evidence | None:
    """Return a table of rows × probes without the rows and columns that are empty."""
    texts = {place: cell(summary) for place, summary in run.headlines().items()}
    told = {place for place, one in texts.items() if one.value is not None}
    rows = [row for row in run.rows if any((row, probe) in told for probe in run.probes)]
    probes = [probe for probe in run.probes if any((row, probe) in told for row in rows)]
    if not rows:
        return None
    body = [[Cell(row), *(texts.get((row, probe), Cell("–")) for probe in probes)] for row in rows]
    return Evidence(title, legend, ["row", *probes], body)


def _difference(summary: Summary) -> Cell:
    ends = (summary.difference_low, summary.difference_high)
    marks = MARK[summary.better] * (2 if summary.survives_holm else 1)
    return _ranged(summary.difference, ends, marks)


def _share(summary: Summary) -> Cell:
    if summary.share is None or summary.share_low is None or summary.share_high is None:
        return Cell("–")
    middle, low, high = (round(100 * part) for part in (summary.share, summary.share_low, summary.share_high))
    return Cell(f"{middle} % [{low}, {high}]", summary.share)


def _ranged(mean: float | None, ends: Sequence[float | None], marks: str) -> Cell:
    low, high = ends
    if mean is None or low is None or high is None:
        return _signed(mean)
    return Cell(f"{mean:+.1f} [{low:+.1f}, {high:+.1f}] {marks}".rstrip(), mean)


def _signed(value: float | None) -> Cell:
    return Cell("–") if value is None else Cell(f"{value:+.1f}", value)

"""The verdict in sentences, and its caveats."""

from __future__ import annotations

from benchmarks.intervals import LEVEL
from benchmarks.report.content import PERCENT, Run
from benchmarks.verdict import BASELINE
from benchmarks.wording import MOST_NAMED, after_holm, and_list, listed, numbered


def data_sentence(run: Run) -> str:
    """Return the first line of the report: the data."""
    data = ", ".join(run.data)
    pretraining = f" Pretraining data: {run.pretrain_data}." if run.pretrain_data else ""
    if run.synthetic:
        return (
            f"Synthetic data: all images are drawn by a program ({data}). "
            f"Results may not transfer to photographs.{pretraining}"
        )
    return f"Data: {data}.{pretraining}"


def verdict(run: Run) -> list[str]:
    """Return two or three sentences: which rows differ from random weights in which probes, and which do not.

    Long lists name the rows with the most probes and count the others.
    """
    headlines = list(run.headlines().values())
    if not headlines:
        return ["No cell has a result, so nothing can be compared."]
    compared = [s for s in headlines if s.difference is not None]
    if not compared:
        return [f"Gains need the row {BASELINE} and another row, so none are reported."]
    tested = [s for s in compared if s.distinguishable is not None]
    better = listed(tested, lambda s: s.better is True, run.probes)
    worse = listed(tested, lambda s: s.better is False, run.probes)
    neither = listed(tested, lambda s: s.better is None, run.probes, short=numbered)
    untested = listed(compared, lambda s: s.distinguishable is None, run.probes, short=numbered)
    sentences = [
        f"Better than random weights ({PERCENT} interval of the difference excludes zero): {better}."
        if better
        else f"No row is better than random weights at the {PERCENT} level."
    ]
    if worse:
        sentences.append(f"Worse than random weights: {worse}.")
    rest = [f"Not distinguishable from random weights: {neither}"] if neither else []
    rest += [f"{'no' if rest else 'No'} interval with this number of seeds: {untested}"] if untested else []
    if rest:
        sentences.append("; ".join(rest) + ".")
    return sentences


def caveats(run: Run) -> list[str]:
    """Return the caveats of the verdict: missing cells, uncommitted code, and the number of comparisons."""
    missing = len(run.planned - run.evaluated)
    failed = f"; failed: {len(run.failures)}" if run.failures else ""
    have = "has" if missing == 1 else "have"
    unfinished = f"{missing} of {len(run.planned)} planned cells {have} no result{failed}." if missing else ""
    return [text for text in (unfinished, _dirty(run), _by_chance(run)) if text]


def _dirty(run: Run) -> str:
    cells = {m.cell for m in run.measurements if m.git_dirty}
    rows = [row for row in run.rows if any(m.git_dirty and m.pretext == row for m in run.measurements)]
    named = f" ({and_list(rows)})" if len(rows) <= MOST_NAMED else ""
    total = len(run.evaluated)
    return f"{len(cells)} of {total} results were computed with uncommitted changes{named}." if cells else ""


def _by_chance(run: Run) -> str:
    count = sum(s.distinguishable is not None for s in run.headlines().values())
    if not count:
        return ""
    seeds = max(s.seeds for s in run.summaries)
    text = (
        f"{count} comparison{'s' if count > 1 else ''}, each at the {PERCENT} level: without any true difference, "
        f"about {count * (1 - LEVEL):.1f} would be marked. {after_holm(run.summaries)}"
    )
    few = {
        1: " One seed: the intervals cover the choice of test images, not the variation between training runs.",
        2: " Two seeds: a third would more than halve the smallest detectable difference.",
    }
    return text + few.get(seeds, "")

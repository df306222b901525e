"""The verdict in sentences, made from the numbers and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.intervals import LEVEL
from benchmarks.report.content import Run
from benchmarks.verdict import BASELINE, Summary

PERCENT = f"{100 * LEVEL:.0f}\N{NO-BREAK SPACE}%"


def data_sentence(run: Run) -> str:
    """Return the line that a report opens with: what the pictures are."""
    data = ", ".join(run.data)
    if run.synthetic:
        return (
            f"Synthetic data: a program drew every picture ({data}). "
            "What holds for drawn scenes need not hold for photographs."
        )
    return f"Data: {data}."


def verdict(run: Run) -> list[str]:
    """Return two or three sentences: which rows differ from random weights in which probes, which not."""
    headlines = list(run.headlines().values())
    if not headlines:
        return ["No cell has a result, so there is nothing to compare."]
    compared = [s for s in headlines if s.difference is not None]
    if not compared:
        return [f"There is no row of {BASELINE} weights beside another row, so nothing can be said of gains."]
    said = [s for s in compared if s.distinguishable is not None]
    better = _listed(said, lambda s: s.better is True, run.probes)
    worse = _listed(said, lambda s: s.better is False, run.probes)
    neither = _listed(said, lambda s: s.better is None, run.probes)
    unsaid = _listed(compared, lambda s: s.distinguishable is None, run.probes)
    sentences = [
        f"Better than random weights, the {PERCENT} interval of the difference excluding zero: {better}."
        if better
        else f"No row is better than random weights by a difference whose {PERCENT} interval excludes zero."
    ]
    if worse:
        sentences.append(f"Worse than random weights, by the same measure: {worse}.")
    rest = [f"Not distinguishable from random weights: {neither}"] if neither else []
    rest += [f"{'no' if rest else 'No'} interval from these seeds: {unsaid}"] if unsaid else []
    if rest:
        sentences.append("; ".join(rest) + ".")
    return sentences


def cautions(run: Run) -> list[str]:
    """Return what to keep in mind about the verdict: what is missing, and how many comparisons it rests on."""
    missing = len(run.planned - run.judged)
    failed = f"; failed: {len(run.failures)}" if run.failures else ""
    unfinished = f"{missing} of {len(run.planned)} planned cells have no result{failed}." if missing else ""
    return [text for text in (unfinished, _by_chance(run)) if text]


def _by_chance(run: Run) -> str:
    count = sum(s.distinguishable is not None for s in run.headlines().values())
    if not count:
        return ""
    seeds = max(s.seeds for s in run.summaries)
    text = (
        f"{count} comparison{'s' if count > 1 else ''}, each at {PERCENT} by itself: were nothing real, "
        f"about {count * (1 - LEVEL):.1f} would look so. {after_holm(run.summaries)}"
    )
    few = {
        1: " One seed: the intervals know the test pictures' chance, not the training's.",
        2: " Two seeds hardly tell how far seeds differ: a third more than halves the smallest difference that shows.",
    }
    return text + few.get(seeds, "")


def after_holm(summaries: Sequence[Summary]) -> str:
    """Return the sentence of what is left when all headline comparisons are held to 95 % together."""
    family = [s for s in summaries if s.survives_holm is not None]
    left = _listed(family, lambda s: bool(s.survives_holm), list(dict.fromkeys(s.probe for s in family)))
    return f"After Holm's correction for all {len(family)}: {left or 'none'}."


def and_list(words: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _listed(summaries: Sequence[Summary], wanted: Callable[[Summary], bool], probes: Sequence[str]) -> str:
    """Return `supervised and rotation in linear and knn; simclr in knn`."""
    rows_of: dict[str, list[str]] = {}
    for row in dict.fromkeys(s.pretext for s in summaries):
        of_row = [s for s in summaries if s.pretext == row]
        hits = [probe for probe in probes if any(s.probe == probe and wanted(s) for s in of_row)]
        if hits:
            every = len(hits) == len(of_row) > 2
            rows_of.setdefault(f"all {len(hits)} probes" if every else and_list(hits), []).append(row)
    return "; ".join(f"{and_list(rows)} in {where}" for where, rows in rows_of.items())

"""The verdict in sentences, made from the numbers and from nothing else."""

from __future__ import annotations

from benchmarks.intervals import LEVEL
from benchmarks.report.content import Run
from benchmarks.verdict import BASELINE
from benchmarks.wording import MOST_NAMED, after_holm, and_list, listed, numbered

PERCENT = f"{100 * LEVEL:.0f}\N{NO-BREAK SPACE}%"


def data_sentence(run: Run) -> str:
    """Return the line that a report opens with: what the pictures are."""
    data = ", ".join(run.data)
    trained = f" Rows were trained on other pictures: {run.learned}." if run.learned else ""
    if run.synthetic:
        return (
            f"Synthetic data: a program drew every picture ({data}). "
            f"What holds for drawn scenes need not hold for photographs.{trained}"
        )
    return f"Data: {data}.{trained}"


def verdict(run: Run) -> list[str]:
    """Return two or three sentences: which rows differ from random weights in which probes, which not.

    Where that would be long, they name the rows that do so in the most probes, and count.
    """
    headlines = list(run.headlines().values())
    if not headlines:
        return ["No cell has a result, so there is nothing to compare."]
    compared = [s for s in headlines if s.difference is not None]
    if not compared:
        return [f"There is no row of {BASELINE} weights beside another row, so nothing can be said of gains."]
    said = [s for s in compared if s.distinguishable is not None]
    better = listed(said, lambda s: s.better is True, run.probes)
    worse = listed(said, lambda s: s.better is False, run.probes)
    neither = listed(said, lambda s: s.better is None, run.probes, short=numbered)
    unsaid = listed(compared, lambda s: s.distinguishable is None, run.probes, short=numbered)
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
    have = "has" if missing == 1 else "have"
    unfinished = f"{missing} of {len(run.planned)} planned cells {have} no result{failed}." if missing else ""
    return [text for text in (unfinished, _dirty(run), _by_chance(run)) if text]


def _dirty(run: Run) -> str:
    cells = {m.cell for m in run.measurements if m.git_dirty}
    rows = [row for row in run.rows if any(m.git_dirty and m.pretext == row for m in run.measurements)]
    told = f" ({and_list(rows)})" if len(rows) <= MOST_NAMED else ""
    return f"{len(cells)} of {len(run.judged)} results come of code that no commit holds{told}." if cells else ""


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

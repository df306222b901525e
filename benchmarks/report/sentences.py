"""What was compared, the verdict in sentences, and its caveats."""

from __future__ import annotations

from benchmarks.report.content import PERCENT, Run
from benchmarks.report.headline import chance_caveat
from benchmarks.summaries.verdict import BASELINE
from benchmarks.words.columns import synthetic_sets
from benchmarks.words.naming import encoder_title
from benchmarks.words.ordering import group_of, needs_labels
from benchmarks.words.wording import MOST_NAMED, and_list, listed, number_word, numbered


def data_sentence(run: Run) -> str:
    """Return the first line of the report: the data."""
    data = ", ".join(run.data) if len(run.sets) < 2 else and_list(run.data)
    pretraining = f" Pretraining data: {run.pretrain_data}." if run.pretrain_data else ""
    if run.synthetic:
        return (
            f"Synthetic data: all images are drawn by a program ({data}). "
            f"Results may not transfer to photographs.{pretraining}"
        )
    drawn = " Results on synthetic data may not transfer to photographs." if synthetic_sets(run.plan) else ""
    return f"Data: {data}.{drawn}{pretraining}"


def setting_sentence(run: Run) -> str:
    """Return what was compared: rows, encoder, budget, seeds and references; empty without results."""
    given = [row for row in run.rows if run.named(row).is_given]
    labelled = [row for row in run.rows if run.named(row).uses_labels]
    trained = [row for row in run.rows if group_of(row) == "task" and row not in (*given, *labelled)]
    plain = [row for row in run.rows if group_of(row) == "plain"]
    if not (trained or given):
        return ""
    encoders = f"{number_word(len(given))} given encoder{'s' if len(given) > 1 else ''}"
    if trained:
        ways = f"{number_word(len(trained))} way{'s' if len(trained) > 1 else ''}"
        text = (
            f"{ways} to train {encoder_title(run.plan.get('encoder', '')) or 'an encoder'} without labels"
            f"{_budget(run, several=len(trained) > 1)}"
        )
        text += f", and {encoders}" if given else ""  # what they have seen is not known
    else:
        text = encoders + _budget(run, several=len(given) > 1)
    seeds = max(s.seeds for s in run.summaries)
    text += f", with {number_word(seeds)} seed{'s' if seeds > 1 else ''}"
    beside = ["untrained random weights"] if BASELINE in run.rows else []
    beside += ["training with labels"] if labelled else []
    beside += [run.title(row) for row in plain]
    text += f"; beside {and_list(beside)}" if beside else ""
    return f"{text[0].upper()}{text[1:]}."


def _budget(run: Run, *, several: bool) -> str:
    """Return the training pictures of each task, if all saw equally many, and their size."""
    seen = {run.costs[row].images_seen for row in run.rows if row in run.costs and group_of(row) == "task"}
    drawn = "drawn pictures" if run.plan.get("pretrain_synthetic", run.synthetic) else "pictures"
    size = f" of {run.plan['image_size']} px" if "image_size" in run.plan else ""
    count = f"{seen.pop():,.0f} " if len(seen) == 1 else ""
    return f", {'each ' if several and count else ''}on {count}{drawn}{size}"


def without_labels(run: Run) -> str:
    """Return what the page of a data set without labels can and cannot say; empty if a probe has read labels."""
    if not run.probes or any(map(needs_labels, run.probes)):
        return ""
    return (
        "The pictures have no labels, so no probe can say which encoder is best at a task. Look at the neighbours and "
        "the filled holes of your own pictures below; the numbers are measures that need no labels."
    )


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
    return [text for text in (unfinished, _dirty(run), chance_caveat(run.summaries)) if text]


def _dirty(run: Run) -> str:
    cells = {m.cell for m in run.measurements if m.git_dirty}
    rows = [row for row in run.rows if any(m.git_dirty and m.pretext == row for m in run.measurements)]
    named = f" ({and_list([run.title(row) for row in rows])})" if len(rows) <= MOST_NAMED else ""
    total = len(run.evaluated)
    return f"{len(cells)} of {total} results were computed with uncommitted changes{named}." if cells else ""

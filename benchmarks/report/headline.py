"""The result in a few plain sentences, made from the numbers: who is best without labels, how sure, at what cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from benchmarks.summaries.costs import Cost
from benchmarks.summaries.intervals import LEVEL
from benchmarks.summaries.verdict import BASELINE, CEILING, Summary, ranking
from benchmarks.words.columns import by_set, probe_of
from benchmarks.words.naming import Row, metric_title, probe_title
from benchmarks.words.ordering import REFERENCE_ROWS, UNRANKED, column_order, needs_labels, row_key
from benchmarks.words.wording import after_holm, and_list, columns_counted, count_of, duration

HERO = "context_encoder"
"""The row that is always described if it is there: the task that this suite is about."""


class Standing(NamedTuple):
    """What is said of one row: the claim, and its numbers."""

    claim: str
    numbers: str

    def text(self) -> str:
        """Return both as one line."""
        return f"{self.claim} {self.numbers}".rstrip()


def standings(summaries: Sequence[Summary], costs: Mapping[str, Cost]) -> list[Standing]:
    """Return the best row over all probes, the best of the leading probe, and the context encoder.

    Args:
        summaries: The result of `summarise`.
        costs: Cost of pretraining by row; external encoders have none.

    Returns:
        Up to three rows, each once; none if no row but the references has a result.
    """
    cells = {(s.pretext, s.probe): s for s in summaries if s.headline}
    named = {s.pretext: s.row for s in cells.values()}
    rows = sorted((row for row in named if _competes(row, named[row])), key=row_key)
    judged = column_order(probe for row, probe in cells if row in rows and probe_of(probe) not in UNRANKED)
    if not judged:
        return []
    lead = next(filter(needs_labels, judged), judged[0])  # others cannot say which features are best
    chosen: dict[str, str] = {}
    ranks = ranking(summaries)
    best = best_over_probes(summaries)
    rank = ""
    if ranks is not None and best:
        near = [row for row in ranks.ranks if ranks.ranks[row] - ranks.ranks[best[0]] < ranks.critical_difference]
        equal = [row for row in near if row in rows and row not in best]
        unsure = [count_of(len(equal), "other")] if equal else []
        unsure += ["random weights"] if BASELINE in near else []
        claim = f"Best{_without_labels(named[row] for row in best)} over {columns_counted(ranks.probes)}"
        chosen[best[0]] = f"{claim}: {and_list([named[row].title for row in best])}."
        doubt = f", not distinguishable from {' and '.join(unsure)}" if unsure else ""
        rank = f"Mean rank {ranks.ranks[best[0]]:.1f} of {len(ranks.ranks)} rows{doubt}."
    first = best_of_probe([s for (row, probe), s in cells.items() if probe == lead and row in rows])
    own, base = cells[first[0], lead], cells.get((BASELINE, lead))
    only = _without_labels(named[row] for row in first) if needs_labels(lead) else ""
    if base is not None and (own.mean == base.mean or (own.mean > base.mean) != own.higher_is_better):
        chosen[BASELINE] = f"In {probe_title(lead)}, no row{only} is better than random weights."
    else:
        titles = and_list([named[row].title for row in first])
        chosen.setdefault(first[0], f"Best{only} in {probe_title(lead)}: {titles}.")
    if HERO in rows:
        chosen.setdefault(HERO, f"{named[HERO].title}.")
    tied = {rows[0] for rows in (best, first) if len(rows) > 1}  # the numbers are those of one of them
    found = []
    for row, claim in chosen.items():
        of_row = rank if row in best else ""
        numbers = "" if row in REFERENCE_ROWS else _numbers(row, lead, cells, costs, of_row)
        found.append(Standing(claim, f"{named[row].title}: {numbers}" if row in tied else numbers))
    return found


def best_over_probes(summaries: Sequence[Summary]) -> list[str]:
    """Return the rows with the lowest mean rank, references aside; several if they are equal."""
    ranks = ranking(summaries)
    if ranks is None:
        return []
    named = {s.pretext: s.row for s in summaries}
    others = {row: rank for row, rank in ranks.ranks.items() if _competes(row, named[row])}
    return sorted((row for row, rank in others.items() if rank == min(others.values())), key=row_key)


def _competes(row: str, known: Row) -> bool:
    """Return whether a row can be the best: the references and rows trained with labels cannot."""
    return row not in REFERENCE_ROWS and not known.uses_labels


def _without_labels(rows: Iterable[Row]) -> str:
    """Return ` without labels`, or nothing where the weights of a row, or its first ones, may have seen some."""
    return "" if any(row.may_know_labels for row in rows) else " without labels"


def bold_legend(summaries: Sequence[Summary]) -> str:
    """Return what bold numbers in a table are: `best without labels in bold`."""
    headlines = [s for s in summaries if s.headline]
    columns = {s.probe: [each for each in headlines if each.probe == s.probe] for s in headlines}
    return f"best{_without_labels(s.row for column in columns.values() for s in best_of_column(column))} in bold"


def best_of_probe(column: Sequence[Summary]) -> list[str]:
    """Return the names of the rows of `best_of_column`."""
    return [s.pretext for s in best_of_column(column)]


def best_of_column(column: Sequence[Summary]) -> list[Summary]:
    """Return the rows with the best mean of one probe's headline, training with labels aside if others are there.

    A high rank of features does not show that they are good, so it has no best row.
    """
    column = [s for s in column if probe_of(s.probe) not in UNRANKED]
    if not column:
        return []
    column = [s for s in column if not s.row.uses_labels] or [*column]
    best = (max if column[0].higher_is_better else min)(s.mean for s in column)
    return [s for s in column if s.mean == best]


def best_by_probe(summaries: Sequence[Summary]) -> str:
    """Return the sentence that names the best row of each probe, one for each of several data sets.

    Empty with fewer than two probes that can have one.
    """
    cells = [s for s in summaries if s.headline and probe_of(s.probe) not in UNRANKED]
    columns = column_order(s.probe for s in cells)
    if len(columns) < 2:
        return ""
    sentences, named = [], dict[str, Row]()
    for label, of_set in by_set(columns).items():
        best: dict[str, list[str]] = {}
        for probe in of_set:
            for s in best_of_column([s for s in cells if s.probe == probe]):
                named[s.pretext] = s.row
                best.setdefault(s.pretext, []).append(probe_title(probe_of(probe)))
        listed = "; ".join(f"{named[row].title} in {and_list(names)}" for row, names in best.items())
        sentences.append(f"On {label}: {listed}." if label else listed)
    start = f"Best{_without_labels(named.values())} by probe"
    return f"{start}. {' '.join(sentences)}" if len(sentences) > 1 else f"{start}: {sentences[0].rstrip('.')}."


def chance_caveat(summaries: Sequence[Summary]) -> str:
    """Return the caution about the number of comparisons and of seeds; empty if nothing was tested."""
    count = sum(s.distinguishable is not None for s in summaries if s.headline)
    if not count:
        return ""
    seeds = max(s.seeds for s in summaries)
    text = (
        f"{count} comparison{'s' if count > 1 else ''}, each at the {100 * LEVEL:.0f}\N{NO-BREAK SPACE}% level: "
        f"without any true difference, about {count * (1 - LEVEL):.1f} would be marked. {after_holm(summaries)}"
    )
    few = {
        1: " One seed: the intervals cover the choice of test images, not the variation between training runs.",
        2: " Two seeds: a third would about halve the smallest detectable difference.",
    }
    return text + few.get(seeds, "")


def _numbers(
    row: str, lead: str, cells: Mapping[tuple[str, str], Summary], costs: Mapping[str, Cost], rank: str
) -> str:
    """Return a row's rank, its score in the leading probe, in how many probes it is better, and its cost."""
    parts = [rank] if rank else []
    own = cells.get((row, lead))
    if own is not None:
        parts.append(_score(own, cells.get((BASELINE, lead)), cells.get((CEILING, lead))))
    tested = [s for (name, _), s in cells.items() if name == row and s.distinguishable is not None]
    if tested:
        parts.append(_counts(tested))
    cost = costs.get(row)
    if cost is not None:
        seconds, kind = (cost.wall_s, "") if cost.cpu_s is None else (cost.cpu_s, " of processor time")
        parts.append(f"Cost: {duration(seconds)}{kind}.")
    return " ".join(parts)


def _score(own: Summary, base: Summary | None, labels: Summary | None) -> str:
    unit = f"\N{NO-BREAK SPACE}{own.unit}" if own.unit else ""
    name = metric_title(own.metric)
    text = f"{probe_title(own.probe)} {name}{':' if ', ' in name else ''} {own.text(own.mean)}{unit}"
    if own.difference is None or base is None:
        return f"{text}."
    points, sign = "points" if own.unit == "%" else own.unit, "+"
    text += f", {own.text(own.difference, sign)} {points}".rstrip()
    if own.difference_low is not None and own.difference_high is not None:
        text += f" [{own.text(own.difference_low, sign)}, {own.text(own.difference_high, sign)}]"
    with_labels = f"; with labels {own.text(labels.mean)}" if labels is not None else ""
    return f"{text} over random weights ({own.text(base.mean)}{with_labels})."


def _counts(tested: Sequence[Summary]) -> str:
    better, worse = (sum(s.better is wanted for s in tested) for wanted in (True, False))
    sure = sum(bool(s.better and s.survives_holm) for s in tested)
    text = f"Better in {better} of {len(tested)} probe{'s' if len(tested) > 1 else ''}"
    text += f", after Holm's correction in {sure or 'none'}" if better else ""
    return f"{text}; worse in {worse}." if worse else f"{text}."

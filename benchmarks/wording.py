"""Which rows in which probes, in words that are read in a moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.verdict import Summary

MOST_WORDS = 20
"""Of a longer listing the rows with the most probes are named and the others counted."""
MOST_NAMED = 8


def and_list(words: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def after_holm(summaries: Sequence[Summary]) -> str:
    """Return the sentence of what is left when all headline comparisons are held to 95 % together."""
    family = [s for s in summaries if s.survives_holm is not None]
    probes = list(dict.fromkeys(s.probe for s in family))
    better = listed(family, lambda s: bool(s.survives_holm and s.better), probes)
    worse = listed(family, lambda s: bool(s.survives_holm and not s.better), probes)
    told = f"{better or 'none better'}; worse: {worse}" if worse else better or "none"
    return f"After Holm's correction for all {len(family)}: {told}."


def listed(
    summaries: Sequence[Summary],
    wanted: Callable[[Summary], bool],
    probes: Sequence[str],
    *,
    short: Callable[[Sequence[Summary], Sequence[Summary]], str] | None = None,
) -> str:
    """Return `supervised and rotation in linear and knn; simclr in knn`, or where that is long what `short` says."""
    rows_of: dict[str, list[str]] = {}
    for row in dict.fromkeys(s.pretext for s in summaries):
        of_row = [s for s in summaries if s.pretext == row]
        hits = [probe for probe in probes if any(s.probe == probe and wanted(s) for s in of_row)]
        if hits:
            every = len(hits) == len(of_row) > 2
            rows_of.setdefault(f"all {len(hits)} probes" if every else and_list(hits), []).append(row)
    whole = "; ".join(f"{and_list(rows)} in {where}" for where, rows in rows_of.items())
    if len(whole.split()) <= MOST_WORDS:
        return whole
    return (short or counted)([s for s in summaries if wanted(s)], summaries)


def counted(found: Sequence[Summary], asked: Sequence[Summary]) -> str:
    """Return `supervised in all 6 probes; simclr and moco in 5; 9 more rows in 1 to 4`."""
    by_count: dict[int, list[str]] = {}
    for row, count in Counter(s.pretext for s in found).most_common():
        by_count.setdefault(count, []).append(row)
    every = len({s.probe for s in asked})
    parts: list[str] = []
    left, room = list(by_count.items()), MOST_NAMED
    while left and room > 0:
        count, rows = left.pop(0)
        names = and_list(rows) if len(rows) <= room else f"{len(rows)} {'more ' if parts else ''}rows"
        room -= len(rows)
        unit = "" if parts else f" probe{'s' if count > 1 else ''}"
        parts.append(f"{names} in {'all ' if count == every else ''}{count}{unit}")
    if left:
        most, fewest = left[0][0], left[-1][0]
        number = sum(len(rows) for _, rows in left)
        span = str(most) if fewest == most else f"{fewest} to {most}"
        parts.append(f"{number} more row{'s' if number > 1 else ''} in {span}")
    return "; ".join(parts)


def numbered(found: Sequence[Summary], asked: Sequence[Summary]) -> str:
    """Return `16 of 42 comparisons`."""
    return f"{len(found)} of {len(asked)} comparisons"

"""Wording and marks that the terminal, the report and the commands share."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from benchmarks.words.columns import label_of
from benchmarks.words.naming import probe_title

if TYPE_CHECKING:
    from benchmarks.summaries.intervals import Interval
    from benchmarks.summaries.verdict import Summary

MARK = {True: "▲", False: "▼", None: ""}
"""Marks for better than random weights, worse, and not distinguishable."""
LEGEND = "± half of the 95 % interval; ▲ better than random weights, ▼ worse, unmarked not distinguishable"
NO_LEARNING = "No learning"
"""Name of the line with the best answers without learning."""
NO_LEARNING_LEGEND = "No learning: the best answer without any, as a guess, one box per class, or interpolation"
MOST_WORDS = 20
"""A longer listing is shortened: it names the rows with the most probes and counts the others."""
MOST_NAMED = 8
"""Rows that a shortened listing names."""


NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
"""Numbers that sentences write as words."""


def number_word(count: int) -> str:
    """Return `seven` for 7; numbers above twelve stay digits."""
    return NUMBERS[count] if count < len(NUMBERS) else f"{count:,}"


def count_of(count: int, noun: str) -> str:
    """Return `1 cell` or `1,200 cells`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def and_list(words: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def columns_counted(columns: Sequence[str]) -> str:
    """Return the number of columns, as `6 probes` or, on several data sets, `12 probes on 3 data sets`."""
    sets = {*map(label_of, columns)}
    on = f" on {len(sets)} data sets" if len(sets) > 1 else ""
    return f"{len(columns)} probe{'s' if len(columns) > 1 else ''}{on}"


def wrapped(text: str, width: int) -> str:
    """Return text whose lines are broken between words where they are longer than `width`; paths stay whole."""
    lines = (textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) for line in text.splitlines())
    return "\n".join("\n".join(each) for each in lines)


def duration(seconds: float) -> str:
    """Return a duration with a suitable unit, as `40 s`, `12 min`, `3.5 h` or `2.1 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def value_text(summary: Summary) -> str:
    """Return the mean with interval and mark, as `41.2 ±1.3▲`."""
    half = "" if summary.half_width is None else f" ±{summary.text(summary.half_width)}"
    return f"{summary.text(summary.mean)}{half}{MARK[summary.better] or ' '}"


def difference_text(found: Interval, unit: str) -> str:
    """Return a difference as `+3.1 points (95 % interval +1.0 to +5.2)`; points are those of percent."""
    unit, digits = (" points", 1) if unit == "%" else (f" {unit}".rstrip(), 2)
    ends = "no interval"
    if found.low is not None and found.high is not None:
        ends = f"95 % interval {found.low:+.{digits}f} to {found.high:+.{digits}f}"
    return f"{found.mean:+.{digits}f}{unit} ({ends})"


def after_holm(summaries: Sequence[Summary]) -> str:
    """Return a sentence on the differences that remain significant after Holm's correction."""
    family = [s for s in summaries if s.survives_holm is not None]
    probes = list(dict.fromkeys(s.probe for s in family))
    better = listed(family, lambda s: bool(s.survives_holm and s.better), probes)
    worse = listed(family, lambda s: bool(s.survives_holm and not s.better), probes)
    remaining = f"{better or 'none better'}; worse: {worse}" if worse else better or "none"
    return f"After Holm's correction for {all_of(len(family))}: {remaining}."


def all_of(comparisons: int) -> str:
    """Return `all 57`, or `the one comparison`."""
    return "the one comparison" if comparisons == 1 else f"all {comparisons}"


def listed(
    summaries: Sequence[Summary],
    wanted: Callable[[Summary], bool],
    probes: Sequence[str],
    *,
    short: Callable[[Sequence[Summary], Sequence[Summary]], str] | None = None,
) -> str:
    """Return the rows and their probes, as `Jigsaw and SimCLR in Linear and k-NN; MoCo in k-NN`.

    Args:
        summaries: All summaries of the table; rows keep their order.
        wanted: Selects the summaries to list.
        probes: Names of the probes, in the order to list them.
        short: Makes the text if the listing has over `MOST_WORDS` words, from the selected and all summaries;
            None takes `counted`.
    """
    rows_of: dict[str, list[str]] = {}
    for row, title in {s.pretext: s.row.title for s in summaries}.items():
        of_row = [s for s in summaries if s.pretext == row]
        hits = [probe for probe in probes if any(s.probe == probe and wanted(s) for s in of_row)]
        if hits:
            every = len(hits) == len(of_row) > 2
            where = f"all {len(hits)} probes" if every else and_list([probe_title(probe) for probe in hits])
            rows_of.setdefault(where, []).append(title)
    full = "; ".join(f"{and_list(rows)} in {where}" for where, rows in rows_of.items())
    if len(full.split()) <= MOST_WORDS:
        return full
    return (short or counted)([s for s in summaries if wanted(s)], summaries)


def counted(found: Sequence[Summary], summaries: Sequence[Summary]) -> str:
    """Return rows by number of probes, as `Jigsaw in all 6 probes; SimCLR and MoCo in 5; 9 more rows in 1 to 4`.

    Args:
        found: The summaries to list.
        summaries: All summaries of the table.
    """
    by_count: dict[int, list[str]] = {}
    titles = {s.pretext: s.row.title for s in found}
    for row, count in Counter(s.pretext for s in found).most_common():
        by_count.setdefault(count, []).append(titles[row])
    every = len({s.probe for s in summaries})
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


def numbered(found: Sequence[Summary], summaries: Sequence[Summary]) -> str:
    """Return how many were found among all, as `16 of 42 comparisons`."""
    return f"{len(found)} of {len(summaries)} comparisons"

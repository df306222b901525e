"""The results as plain text for the terminal: a table that fits its width, then the best row, cautions and files."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.report.headline import best_by_probe, chance_caveat, standings
from benchmarks.summaries.costs import COSTS, Cost, cost_texts
from benchmarks.summaries.intervals import POWER
from benchmarks.summaries.verdict import Summary, ranking, smallest_detectable, without_learning
from benchmarks.words.columns import by_set, probe_of
from benchmarks.words.naming import metric_title, probe_title
from benchmarks.words.ordering import column_order, group_of, row_key
from benchmarks.words.wording import LEGEND, NO_LEARNING, and_list, columns_counted, value_text, wrapped

NARROWEST = 40
"""Columns of characters that a table needs: a row's name, and one number."""
LONGEST_NAME = 32
"""Longest line of a row's name, in characters; a longer name takes several lines."""


class Column(NamedTuple):
    """One column: its lines of heading, and the text of each row."""

    head: tuple[str, str]
    texts: list[str]

    @property
    def width(self) -> int:
        """Characters that the column needs."""
        return max(map(len, (*self.head, *self.texts)))


def text_table(summaries: Sequence[Summary], costs: Mapping[str, Cost], *, width: int) -> str:
    """Return the headline numbers, with intervals and marks, and the cost of each row.

    Columns that do not fit beside the others follow in a further table below, and so does each further data set.

    Args:
        summaries: The result of `summarise`.
        costs: Cost by row; external encoders have none.
        width: Width of the terminal in characters.
    """
    cells = {(s.pretext, s.probe): s for s in summaries if s.headline}
    if not cells:
        return "no results yet"
    titles = {s.pretext: s.row.title for s in cells.values()}
    rows, plain = sorted(titles, key=row_key), without_learning(summaries)

    def scores(probe: str) -> Column:
        column = [s for (_, name), s in cells.items() if name == probe]
        smallest = smallest_detectable(column)
        texts = [value_text(cells[row, probe]) if (row, probe) in cells else "– " for row in rows]
        texts.append(f"{plain[probe]} " if probe in plain else "")
        texts.append("" if smallest is None else f"{column[0].text(smallest)} ")
        unit = metric_title(column[0].metric, column[0].unit) + " "
        return Column((f"{probe_title(probe_of(probe))} ", unit), texts)

    sets = by_set(column_order(probe for _, probe in cells))
    blocks = {f"on {label}" if label else "": [*map(scores, probes)] for label, probes in sets.items()}
    spent = [cost_texts(costs.get(row)) for row in rows]
    of_costs = [
        Column((name, unit), [*(texts[at] for texts in spent), "", ""])
        for at, (name, unit) in enumerate(COSTS)
        if any(texts[at] != "–" for texts in spent)
    ]
    if of_costs:
        blocks.setdefault("" if "" in blocks else "cost", []).extend(of_costs)
    names = [broken(titles[row]) for row in rows]
    names += [NO_LEARNING, f"detectable at {100 * POWER:.0f} % power"]
    groups = [group_of(row) for row in rows]
    rules = {at for at in range(1, len(rows)) if groups[at] != groups[at - 1]} | {len(rows), len(rows) + 1}
    room = max(width, NARROWEST) - _widest(names)
    tables = [table(names, part, rules, title=title) for title, block in blocks.items() for part in _parts(block, room)]
    return "\n".join(["\n\n".join(tables), wrapped(LEGEND, width)])


def closing(
    summaries: Sequence[Summary],
    costs: Mapping[str, Cost],
    *,
    csv: Path,
    page: Path,
    synthetic: bool = False,
    drawn: Sequence[str] = (),
) -> str:
    """Return what follows the table: the best rows, the cautions, and how to open the report.

    Args:
        summaries: The result of `summarise`.
        costs: Cost by row.
        csv: The file of all numbers.
        page: The report.
        synthetic: Whether the pictures were drawn by a program.
        drawn: Labels of the data sets whose pictures were, if only some of several were.
    """
    lines = [text for text in (_ranks(summaries), best_by_probe(summaries)) if text]
    lines += [each.text() for each in standings(summaries, costs)]
    where = f" in {and_list(drawn)}" if drawn else ""
    cautions = [f"Drawn pictures{where}; results may not transfer to photographs."] if synthetic or drawn else []
    cautions += [text] if (text := chance_caveat(summaries)) else []
    lines += [f"Caution: {' '.join(cautions)}"] if cautions else []
    lines += [f"All numbers: {csv}", f"Report: {page}", f"Open it in a browser: {page.resolve().as_uri()}"]
    return "\n".join(lines)


def _parts(columns: Sequence[Column], width: int) -> list[list[Column]]:
    """Split columns so that each part fits the width; a part has at least one column."""
    parts: list[list[Column]] = [[]]
    for column in columns:
        if parts[-1] and sum(each.width + 2 for each in (*parts[-1], column)) > width:
            parts.append([])
        parts[-1].append(column)
    return parts


def table(names: Sequence[str], columns: Sequence[Column], rules: set[int], *, title: str = "") -> str:
    """Return a table with a line above each row in `rules`; a row that is empty in all columns is left out.

    The title stands above the names. The numbers of a row stand on the first line of its name.
    """
    first = _widest((title, *names))

    def line(name: str, texts: Sequence[str]) -> str:
        each = [text.rjust(column.width) for text, column in zip(texts, columns, strict=True)]
        start, *more = name.split("\n")
        return "\n".join(["  ".join([start.ljust(first), *each]).rstrip(), *more])

    rule = "─" * (first + sum(column.width + 2 for column in columns))
    lines = [line(("", title)[at], [column.head[at] for column in columns]) for at in (0, 1)]
    lines.append(rule)
    for at, name in enumerate(names):
        texts = [column.texts[at] for column in columns]
        if any(texts):
            lines += ["─" * first] if at in rules else []
            lines.append(line(name, texts))
    return "\n".join(lines)


def broken(name: str) -> str:
    """Return a row's name in lines of up to `LONGEST_NAME` characters, broken between its settings where it can be."""
    words = " ".join(name.split())
    lines = textwrap.wrap(words, LONGEST_NAME, subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines)


def _widest(names: Sequence[str]) -> int:
    """Return the length of the longest line."""
    return max(len(line) for name in names for line in name.split("\n"))


def _ranks(summaries: Sequence[Summary]) -> str:
    """Return the mean ranks in one sentence; empty without them."""
    ranks = ranking(summaries)
    if ranks is None:
        return ""
    titles = {s.pretext: s.row.title for s in summaries}
    order = ", ".join(f"{titles[row]} {value:.1f}" for row, value in ranks.ranks.items())
    over = columns_counted(ranks.probes)
    return f"Mean rank over {over}: {order}; critical difference {ranks.critical_difference:.1f}."

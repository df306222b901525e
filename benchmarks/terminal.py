"""The results table as plain text, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.costs import COSTS, Cost, cost_texts
from benchmarks.intervals import POWER
from benchmarks.ordering import probe_key, row_key
from benchmarks.verdict import Summary, ranking, smallest_detectable
from benchmarks.wording import LEGEND, after_holm, value_text


def text_table(summaries: Sequence[Summary], costs: Mapping[str, Cost]) -> str:
    """Return the headline numbers, with intervals and marks, and the cost of each row.

    Args:
        summaries: The result of `summarise`.
        costs: Cost by row; external encoders have none.
    """
    cells = {(s.pretext, s.probe): s for s in summaries if s.headline}
    if not cells:
        return "no results yet"
    rows = sorted({row for row, _ in cells}, key=row_key)
    probes = sorted({probe for _, probe in cells}, key=probe_key)
    first = {probe: next(s for (_, name), s in cells.items() if name == probe) for probe in probes}
    head = ["", *probes, *(name for name, _ in COSTS)]
    units = [
        "",
        *(f"{first[probe].metric} {first[probe].unit}".strip() for probe in probes),
        *(unit for _, unit in COSTS),
    ]
    body = [
        [
            " ".join(row.splitlines()),
            *(value_text(cells[row, probe]) if (row, probe) in cells else "–" for probe in probes),
            *cost_texts(costs.get(row)),
        ]
        for row in rows
    ]
    smallest = [smallest_detectable(s for s in cells.values() if s.probe == probe) for probe in probes]
    if any(value is not None for value in smallest):
        texts = ["" if value is None else f"{value:.1f} " for value in smallest]
        body.append([f"detectable at {100 * POWER:.0f} % power", *texts, *[""] * len(COSTS)])
    lines = [head, units, *body]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    printed = [
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*printed[:2], "─" * max(map(len, printed)), *printed[2:], LEGEND, *_footnotes(summaries)])


def _footnotes(summaries: Sequence[Summary]) -> list[str]:
    """Return the lines on the whole table: what remains after Holm's correction, and the mean ranks."""
    lines = [after_holm(summaries)] if any(s.survives_holm is not None for s in summaries) else []
    ranks = ranking(summaries)
    if ranks is not None:
        order = ", ".join(f"{row} {value:.1f}" for row, value in ranks.ranks.items())
        lines.append(
            f"Mean rank over {len(ranks.probes)} probes: {order}; critical difference {ranks.critical_difference:.1f}"
        )
    return lines

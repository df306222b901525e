"""The comparison as a table of plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.intervals import POWER
from benchmarks.results import Cost
from benchmarks.verdict import BASELINE, Summary, probe_key, ranking, row_key, smallest_detectable
from benchmarks.wording import after_holm

MARK = {True: "▲", False: "▼", None: ""}
LEGEND = "± half of the 95 % interval; ▲ better than random weights, ▼ worse, unmarked not distinguishable"


def text_table(summaries: Sequence[Summary], costs: Mapping[str, Cost]) -> str:
    """Return the headline numbers, with intervals and marks, and each row's cost.

    Args:
        summaries: As `summarise` returns them.
        costs: By row; random weights and foreign encoders have none.
    """
    cells = {(s.pretext, s.probe): s for s in summaries if s.headline}
    if not cells:
        return "no results yet"
    rows = sorted({row for row, _ in cells}, key=row_key)
    probes = sorted({probe for _, probe in cells}, key=probe_key)
    first = {probe: next(s for (_, name), s in cells.items() if name == probe) for probe in probes}
    head = ["", *probes, "images", "time", "memory"]
    units = [
        "",
        *(f"{first[probe].metric} {first[probe].unit}".strip() for probe in probes),
        "seen",
        "s",
        "MB",
    ]
    body = [
        [
            row,
            *(value_text(cells[row, probe]) if (row, probe) in cells else "–" for probe in probes),
            *_cost(row, costs.get(row)),
        ]
        for row in rows
    ]
    smallest = [smallest_detectable(s for s in cells.values() if s.probe == probe) for probe in probes]
    if any(value is not None for value in smallest):
        texts = ["" if value is None else f"{value:.1f} " for value in smallest]
        body.append([f"seen at {100 * POWER:.0f} % power", *texts, "", "", ""])
    lines = [head, units, *body]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    printed = [
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*printed[:2], "─" * max(map(len, printed)), *printed[2:], LEGEND, *_below(summaries)])


def _below(summaries: Sequence[Summary]) -> list[str]:
    """Return what the whole table says: what Holm leaves, and the mean ranks."""
    lines = [after_holm(summaries)] if any(s.survives_holm is not None for s in summaries) else []
    ranks = ranking(summaries)
    if ranks is not None:
        order = ", ".join(f"{row} {value:.1f}" for row, value in ranks.ranks.items())
        lines.append(
            f"Mean rank over {len(ranks.probes)} probes: {order}; different where {ranks.critical_difference:.1f} or "
            "more apart"
        )
    return lines


def value_text(summary: Summary) -> str:
    """Return `41.2 ±1.3▲`."""
    half = f" ±{(summary.high - summary.low) / 2:.1f}" if summary.low is not None and summary.high is not None else ""
    mark = MARK[summary.better] or " "
    return f"{summary.mean:.1f}{half}{mark}"


def _cost(row: str, cost: Cost | None) -> list[str]:
    if cost is None:
        return ["0" if row == BASELINE else "–", "–", "–"]
    return [f"{cost.images_seen:,.0f}", f"{cost.wall_s:,.0f}", f"{cost.peak_mem_bytes / 1e6:,.0f}"]

"""HTML tables of the page; a click on a heading sorts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benchmarks.report.content import Run
from benchmarks.report.evidence import Cell, Evidence
from benchmarks.report.protocols import protocol
from benchmarks.summaries.costs import COST_FORMATS, COSTS, cost_values
from benchmarks.summaries.verdict import Summary
from benchmarks.words.columns import label_of, probe_of
from benchmarks.words.naming import metric_title, probe_title
from benchmarks.words.ordering import group_of
from benchmarks.words.wording import MARK

NBSP = "\N{NO-BREAK SPACE}"


def main_table(run: Run) -> str:
    """Return the table of rows × headline probes, with intervals, marks and costs."""
    headlines = run.headlines()
    head = [_head("row")]
    for probe in run.probes:
        column = [s for (_, name), s in headlines.items() if name == probe]
        one = column[0]
        about = metric_title(one.metric, one.unit) + (" ↑" if one.higher_is_better else " ↓")
        chance = f"no learning {one.text(one.chance)}" if one.chance is not None else NBSP
        on = [f"on {label}"] if (label := label_of(probe)) else []
        head.append(_head(probe_title(probe_of(probe)), *on, about, *protocol(run, probe), chance))
    head += [_head(name, unit) for name, unit in COSTS]
    body = []
    for row in run.rows:
        cells = [_row_head(run.title(row))]
        cells += [_value(headlines.get((row, probe)), best=row in run.best(probe)) for probe in run.probes]
        cells += map(_number, cost_values(run.costs.get(row)), COST_FORMATS)
        body.append("".join(cells))
    return _table(head, _lines(run.rows, body), "Headline number of each probe by row")


def score_table(run: Run) -> str:
    """Return the table of all scores at all stages, with differences from random weights at the headline's stage."""
    differences = {(s.pretext, s.probe, s.metric, s.stage): s for s in run.summaries}
    names = ("row", "probe", "metric", "stage", "unit", "mean", "from", "to", "no learning", "− random")
    head = [_head(name, text=name in names[1:5]) for name in (*names, "from", "to", "seeds", "n")]
    body, rows = [], []
    for r in run.readings:
        s = differences.get((r.pretext, r.probe, r.metric, r.stage))
        difference = (s.difference, s.difference_low, s.difference_high) if s else (None, None, None)
        words = [probe_title(r.probe), metric_title(r.metric), r.stage + (" ★" if r.headline else ""), r.unit]
        numbers = [r.value.mean, r.value.low, r.value.high, r.chance, *difference]
        rows.append(r.pretext)
        body.append(
            _row_head(run.title(r.pretext))
            + "".join(f'<td class="text">{escape(word)}</td>' for word in words)
            + "".join(_number(number, ".3f") for number in numbers)
            + f"{_number(r.seeds, 'd')}{_number(r.n, 'd')}"
        )
    return _table(head, _lines(rows, body), "All scores at all stages")


def evidence_table(table: Evidence) -> str:
    """Return an uncertainty table."""
    cells = [
        f'<th scope="row">{breakable(first.text)}</th>{"".join(_cell(cell) for cell in rest)}'
        for first, *rest in table.body
    ]
    rows = table.rows or ("",) * len(cells)
    return _table([_head(name) for name in table.head], _lines(rows, cells), table.title, kind="sortable ranged")


def breakable(name: str) -> str:
    """Return a row's name as HTML that may wrap after `_` and `:`."""
    return escape(name).replace("_", "_<wbr>").replace(":", ":<wbr>")


def _row_head(title: str) -> str:
    return f'<th scope="row">{breakable(title)}</th>'


def _lines(rows: Sequence[str], cells: Sequence[str]) -> list[str]:
    """Return lines of a table: those of references are grey, and groups that hold together are ruled off."""
    groups = [group_of(row) if row else "" for row in rows]
    borders = {at for at in range(1, len(groups)) if groups[at] != groups[at - 1]}
    together = len(borders) < len({*groups})
    lines = []
    for at, (group, content) in enumerate(zip(groups, cells, strict=True)):
        ruled = together and at in borders
        kinds = " ".join([*(["reference"] if group == "reference" else []), *(["ruled"] if ruled else [])])
        lines.append(f'<tr class="{kinds}">{content}</tr>' if kinds else f"<tr>{content}</tr>")
    return lines


def _table(head: list[str], body: list[str], label: str, *, kind: str = "sortable") -> str:
    return (
        f'<div class="scroll tall" tabindex="0" role="region" aria-label="{escape(label)}">'
        f'<table class="{kind}"><thead><tr>{"".join(head)}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _head(name: str, *below: str, text: bool = False) -> str:
    lines = "".join(f"<small>{escape(line)}</small>" for line in below)
    kind = ' class="text"' if text else ""
    return f'<th scope="col"{kind}><button><span>{escape(name)}</span>{lines}</button></th>'


def _number(value: float | None, form: str) -> str:
    return '<td data-value="">–</td>' if value is None else f'<td data-value="{value!r}">{value:{form}}</td>'


def _cell(cell: Cell) -> str:
    value = "" if cell.value is None else repr(float(cell.value))
    text = cell.text.replace(", ", f",{NBSP}").replace("] ", f"]{NBSP}")  # narrow pages wrap before the interval
    text = escape(text).replace("▲", '<span class="up">▲</span>').replace("▼", '<span class="down">▼</span>')
    return f'<td data-value="{value}">{text}</td>'


def _value(summary: Summary | None, *, best: bool) -> str:
    if summary is None:
        return _number(None, "")
    text = summary.text(summary.mean)
    text = f"<strong>{text}</strong>" if best else text
    if summary.half_width is not None:
        text += f' <span class="half">±{summary.text(summary.half_width)}</span>'
    if summary.better is not None:
        kind, words = ("up", "better") if summary.better else ("down", "worse")
        text += f'{NBSP}<span class="{kind}" title="{words} than random weights">{MARK[summary.better]}</span>'
    return f'<td data-value="{summary.mean!r}">{text}</td>'

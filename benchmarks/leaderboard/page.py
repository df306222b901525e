"""The page of the leaderboard: filters, one table, and the record of every line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from html import escape

from benchmarks.leaderboard.entries import Entry
from benchmarks.leaderboard.style import CSS, SCRIPT
from benchmarks.report.style import CSS as REPORT_CSS
from benchmarks.report.style import SCRIPT as REPORT_SCRIPT
from benchmarks.report.tables import breakable
from benchmarks.summaries.verdict import Summary
from benchmarks.words.naming import metric_title, probe_title
from benchmarks.words.ordering import probe_key
from benchmarks.words.wording import MARK

TITLE = "Leaderboard"
HEAD = (
    ("row", "opens its record"),
    ("probe", "metric"),
    ("mean", "95 % interval"),
    ("− random", "95 % interval"),
    ("data", "[fingerprint]"),
    ("encoder", ""),
    ("budget", "pictures seen"),
    ("tests", "seeds × items"),
    ("protocol", ""),
    ("remarks", ""),
)
"""Columns of the table, each with a second line."""
LEGEND = "▲ better than random weights of the same folder, ▼ worse, unmarked not distinguishable"
"""What the marks of the differences mean."""
TEXT = ("probe", "data", "encoder", "protocol", "remarks")
"""Columns of text."""


def page(entries: Sequence[Entry]) -> str:
    """Return the page as HTML that loads nothing from outside."""
    head = "".join(
        f'<th scope="col"{" class=text" if name in TEXT else ""}><button>{name}<small>{below}</small></button></th>'
        for name, below in HEAD
    )
    body = "".join(_line(f"record-{number}", entry) for number, entry in enumerate(entries))
    records = "".join(_record(f"record-{number}", entry) for number, entry in enumerate(entries))
    folders = sorted({str(folder) for entry in entries for folder in entry.folders})
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{TITLE}</title><style>{REPORT_CSS}{CSS}</style></head>\n"
        f"<body><header><h1>{TITLE}</h1><p>{len(entries)} rows from {len(folders)} results "
        f"folder{'s' if len(folders) > 1 else ''}: {escape(', '.join(folders))}.</p>"
        f"<p>Compare rows of one protocol only: the same pictures, picture size, probe settings and code "
        f"version.</p></header>\n<main>{_choices(entries)}"
        '<div class="scroll" tabindex="0" role="region" aria-label="All rows"><table class="sortable" id="rows">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f'<p class="legend">{LEGEND}. Click a heading to sort.</p>'
        f'<section id="records"><h2>Records</h2><p class="small">The command and the record of every cell.</p>'
        f"{records}</section></main>\n<script>{REPORT_SCRIPT}{SCRIPT}</script></body></html>\n"
    )


def _choices(entries: Sequence[Entry]) -> str:
    """Return the filters; without JavaScript all rows are shown."""
    facets: dict[str, list[tuple[str, str]]] = {
        "data": sorted({(entry.data, entry.data) for entry in entries}),
        "budget": [(str(each), f"{each:,} pictures") for each in sorted({entry.budget for entry in entries})],
        "encoder": sorted({(entry.cells[0].encoder,) * 2 for entry in entries}),
        "probe": [
            (name, probe_title(name)) for name in sorted({entry.summary.probe for entry in entries}, key=probe_key)
        ],
        "protocol": sorted(
            {
                (entry.protocol, f"{entry.protocol}, {probe_title(entry.summary.probe)} on {entry.data}")
                for entry in entries
            }
        ),
    }
    selects = "".join(
        f'<label>{name}<select name="{name}"><option value="">all</option>'
        + "".join(f'<option value="{escape(value)}">{escape(shown)}</option>' for value, shown in options)
        + "</select></label>"
        for name, options in facets.items()
    )
    return (
        f'<form class="choices">{selects}<label>row contains<input type="search" name="words"></label>'
        f'<button type="reset">Show all</button></form><p class="small" id="count">{len(entries)} rows</p>'
    )


def _line(anchor: str, entry: Entry) -> str:
    s, first = entry.summary, entry.cells[0]
    about = metric_title(s.metric, s.unit) + (" ↑" if s.higher_is_better else " ↓")
    facets = {
        "data": entry.data,
        "budget": str(entry.budget),
        "encoder": first.encoder,
        "probe": s.probe,
        "protocol": entry.protocol,
        "record": anchor,
    }
    attributes = "".join(f' data-{name}="{escape(value)}"' for name, value in facets.items())
    remarks = "; ".join(entry.doubts)
    ends = (s.difference_low, s.difference_high)
    own = f"<small>{breakable(s.pretext)}</small>" if s.row.title != s.pretext else ""  # as commands take it
    return (
        f'<tr{attributes}><th scope="row"><a href="#{anchor}">{escape(s.row.title)}</a>{own}</th>'
        f'<td class="text">{escape(probe_title(s.probe))}<small>{escape(about)}</small></td>'
        f"{_number(s, s.mean, '', s.low, s.high)}{_number(s, s.difference, '+', *ends, s.better)}"
        f'<td class="spec">{_spec(entry.data)}</td><td class="spec">{_spec(first.encoder)}</td>'
        f'<td data-value="{entry.budget}">{f"{entry.budget:,}" if entry.budget else "–"}</td>'
        f'<td data-value="{s.seeds * s.n}">{s.seeds} × {s.n:,}</td>'
        f'<td class="text"><code>{entry.protocol}</code></td>'
        f'<td class="remarks">{f"<span class=doubt>{escape(remarks)}</span>" if remarks else "none"}</td></tr>'
    )


def _number(
    s: Summary, mean: float | None, sign: str, low: float | None, high: float | None, better: bool | None = None
) -> str:
    """Return a table cell with a mean, its interval below, and the mark of a significant difference."""
    if mean is None:
        return '<td data-value="">–</td>'
    ends = "" if low is None or high is None else f"<small>[{s.text(low, sign)}, {s.text(high, sign)}]</small>"
    mark = "" if better is None else f' <span class="{"up" if better else "down"}">{MARK[better]}</span>'
    return f'<td data-value="{mean!r}">{s.text(mean, sign)}{mark}{ends}</td>'


def _spec(text: str) -> str:
    """Return a spec as HTML that may wrap before its options."""
    return escape(text).replace("?", "<wbr>?").replace("&amp;", "<wbr>&amp;")


def _record(anchor: str, entry: Entry) -> str:
    """Return the foldable record of a line: commands, versions, each cell, all settings."""
    first, folder = entry.cells[0], str(entry.folders[0])
    reproduce = shlex.join(["python", "benchmarks/run_all.py", "reproduce", first.cell, "--out", folder])
    facts = {
        "Folder": ", ".join(map(str, entry.folders)),
        "Command": entry.command,
        "Compute the first cell again": reproduce,
        "Data": f"{first.data}, test fingerprint {first.data_fingerprint}",
        "Pretraining data": first.pretrain_data,
        "Encoder": first.encoder,
        "Remarks": "; ".join(entry.doubts),
    }
    listed = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if value)
    names = ("cell", "value", "stage", "revision", "PyTorch", "device", "started", "seconds", "MB", "weights (SHA-256)")
    cells = "".join(
        "<tr>"
        + "".join(
            f'<td class="text">{escape(str(value))}</td>'
            for value in (
                m.cell,
                m.value,
                m.stage,
                f"{m.git_sha}{' with uncommitted changes' if m.git_dirty else ''}",
                m.torch_version,
                m.device,
                m.started_at,
                m.wall_s,
                round(m.peak_mem_bytes / 1e6),
                m.encoder_sha256[:16],
            )
        )
        + "</tr>"
        for m in entry.cells
    )
    head = "".join(f'<th class="text" scope="col">{name}</th>' for name in names)
    settings = json.dumps(entry.settings, indent=1, sort_keys=True)
    return (
        f'<details class="record" id="{anchor}"><summary>{escape(entry.summary.row.title)}, '
        f"{escape(probe_title(entry.summary.probe))}: {escape(folder)}</summary><dl>{listed}</dl>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Cells"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{cells}</tbody></table></div><details><summary>All settings of the first cell</summary>"
        f"<pre>{escape(settings)}</pre></details></details>"
    )

"""The table of headline numbers for a paper; needs the LaTeX package booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.costs import COSTS, cost_texts
from benchmarks.report.content import PERCENT, Run
from benchmarks.report.sentences import data_sentence
from benchmarks.verdict import Summary

ESCAPED = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",  # at the start of a line it would be an argument of the line break
    "]": "{]}",
    "\n": " ",  # two in a row would end the paragraph
    "\r": " ",
    "\N{NO-BREAK SPACE}": "~",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
}


def latex(run: Run) -> str:
    """Return the table as LaTeX; only a comment if no cell has a result."""
    if not run.rows:
        return "% No cell has a result.\n"
    headlines = run.headlines()
    about = {probe: next(s for (_, name), s in headlines.items() if name == probe) for probe in run.probes}
    arrows = [r"$\uparrow$" if one.higher_is_better else r"$\downarrow$" for one in about.values()]
    units = [f"{escape(one.unit)} {arrow}".strip() for one, arrow in zip(about.values(), arrows, strict=True)]
    head = [
        ["", *map(escape, run.probes), *(name for name, _ in COSTS)],
        ["", *(escape(one.metric) for one in about.values()), *(unit for _, unit in COSTS)],
        ["", *units, *[""] * len(COSTS)],
    ]
    body = [
        [escape(row), *(_value(headlines.get((row, p)), best=row in run.best(p)) for p in run.probes), *_cost(run, row)]
        for row in run.rows
    ]
    seeds = max(s.seeds for s in headlines.values())
    caption = (
        f"{escape(data_sentence(run))} Means over {seeds} seed{'s' if seeds > 1 else ''}, $\\pm$~half of the "
        f"{escape(PERCENT)} interval. $^{{+}}$ better than random weights, $^{{-}}$ worse; two signs: also after "
        "Holm's correction for the whole table; no sign: not distinguishable. Best without labels in bold."
    )
    lines = [
        r"% Needs \usepackage{booktabs}.",
        r"\begin{table*}",
        r"  \centering",
        r"  \footnotesize",
        r"  \setlength{\tabcolsep}{3pt}",
        rf"  \begin{{tabular}}{{l{'r' * (len(head[0]) - 1)}}}",
        r"    \toprule",
        *map(_line, head),
        r"    \midrule",
        *map(_line, body),
        r"    \bottomrule",
        r"  \end{tabular}",
        rf"  \caption{{{caption}}}",
        r"  \label{tab:pretext-tasks}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Escape plain text for LaTeX."""
    return "".join(ESCAPED.get(letter, letter) for letter in text)


def _line(cells: Sequence[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _value(summary: Summary | None, *, best: bool) -> str:
    if summary is None:
        return "--"
    text = f"{summary.mean:.1f}".replace("-", "$-$")
    text = rf"\textbf{{{text}}}" if best else text
    if summary.low is not None and summary.high is not None:
        text += rf" {{\scriptsize$\pm${(summary.high - summary.low) / 2:.1f}}}"
    if summary.better is not None:
        text += f"$^{{{('+' if summary.better else '-') * (2 if summary.survives_holm else 1)}}}$"
    return text


def _cost(run: Run, row: str) -> list[str]:
    return [escape(text) for text in cost_texts(run.costs.get(row))]

"""The table of headline numbers for a paper; needs the LaTeX packages booktabs and graphicx."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.content import PERCENT, Run
from benchmarks.report.headline import bold_legend
from benchmarks.report.protocols import protocol
from benchmarks.report.sentences import data_sentence
from benchmarks.summaries.costs import COSTS, cost_texts
from benchmarks.summaries.verdict import Summary, without_learning
from benchmarks.words.columns import by_set, probe_of
from benchmarks.words.naming import metric_title, probe_title
from benchmarks.words.ordering import group_of
from benchmarks.words.wording import NO_LEARNING, NO_LEARNING_LEGEND

COSTS_SHOWN = ("images", "work")
"""Columns of a row's cost in a paper: those that do not depend on the machine."""
MARK_WIDTH = r"\makebox[1.1em][l]"
"""A box in which every mark is equally wide, so that numbers stand below each other."""
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
    """Return the table as LaTeX; only a comment if no cell has a result.

    What is the same for all rows is in the caption: images seen, and what each probe had. A table that is wider than
    the page is made smaller.
    """
    if not run.rows:
        return "% No cell has a result.\n"
    seen = {run.costs[row].images_seen for row in run.rows if row in run.costs and group_of(row) == "task"}
    shown = [name for name in COSTS_SHOWN if not (name == "images" and len(seen) == 1)]
    costs = [at for at, (name, _) in enumerate(COSTS) if name in shown]
    sets = by_set(run.probes)
    last = [*sets][-1]
    tabulars = [_tabular(run, label, probes, costs if label == last else ()) for label, probes in sets.items()]
    lines = [
        r"% Needs \usepackage{booktabs,graphicx}.",
        r"\begin{table*}",
        r"  \centering",
        r"  \scriptsize",
        r"  \setlength{\tabcolsep}{2pt}",
        *r"\par\medskip".join(tabulars).splitlines(),
        rf"  \caption{{{_caption(run, seen)}}}",
        r"  \label{tab:pretext-tasks}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _tabular(run: Run, label: str, probes: Sequence[str], costs: Sequence[int]) -> str:
    """Return the numbers of one data set, with its label above the rows' names, and these columns of costs."""
    headlines = run.headlines()
    about = {probe: next(s for (_, name), s in headlines.items() if name == probe) for probe in probes}
    arrows = [r"$\uparrow$" if one.higher_is_better else r"$\downarrow$" for one in about.values()]
    units = [f"{escape(one.unit)} {arrow}".strip() for one, arrow in zip(about.values(), arrows, strict=True)]
    head = [
        [escape(label), *(escape(probe_title(probe_of(probe))) for probe in probes), *(COSTS[at][0] for at in costs)],
        ["", *(escape(metric_title(one.metric)) for one in about.values()), *(COSTS[at][1] for at in costs)],
        ["", *units, *[""] * len(costs)],
    ]
    body, groups = [], [group_of(row) for row in run.rows]
    for at, row in enumerate(run.rows):
        if at and groups[at] != groups[at - 1]:
            body.append(r"    \midrule")
        spent = cost_texts(run.costs.get(row))
        values = [_value(headlines.get((row, probe)), best=row in run.best(probe)) for probe in probes]
        body.append(_line([escape(run.title(row)), *values, *(escape(spent[each]) for each in costs)]))
    if plain := without_learning(s for s in run.summaries if s.probe in about):
        values = [f"{plain[probe]}{MARK_WIDTH}{{}}" if probe in plain else _value(None, best=False) for probe in about]
        body += [r"    \midrule", _line([NO_LEARNING, *values, *[""] * len(costs)])]
    lines = [
        r"  \resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        rf"  \begin{{tabular}}{{l{'r' * (len(head[0]) - 1)}}}",
        r"    \toprule",
        *map(_line, head),
        r"    \midrule",
        *body,
        r"    \bottomrule",
        r"  \end{tabular}}",
    ]
    return "\n".join(lines)


def _caption(run: Run, seen: set[float]) -> str:
    seeds = max(s.seeds for s in run.summaries)
    same = f"Each task has seen {next(iter(seen)):,.0f} images. " if len(seen) == 1 else ""
    plain = f"{NO_LEARNING_LEGEND}. " if without_learning(run.summaries) else ""
    bold = bold_legend(run.summaries)
    had = "; ".join(f"{probe_title(probe)}: {', '.join(protocol(run, probe))}" for probe in run.probes)
    return (
        f"{escape(data_sentence(run))} {same}Means over {seeds} seed{'s' if seeds > 1 else ''}, $\\pm$~half of the "
        f"{escape(PERCENT)} interval. $^{{+}}$ better than random weights, $^{{-}}$ worse; two signs: also after "
        f"Holm's correction for the whole table; no sign: not distinguishable. {bold[0].upper()}{bold[1:]}. "
        f"{plain}{escape(had)}."
    )


def escape(text: str) -> str:
    """Escape plain text for LaTeX."""
    return "".join(ESCAPED.get(letter, letter) for letter in text)


def _line(cells: Sequence[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _value(summary: Summary | None, *, best: bool) -> str:
    if summary is None:
        return rf"--{MARK_WIDTH}{{}}"
    text = summary.text(summary.mean).replace("-", "$-$")
    text = rf"\textbf{{{text}}}" if best else text
    if summary.half_width is not None:
        text += rf" {{\tiny$\pm${summary.text(summary.half_width)}}}"
    signs = ("+" if summary.better else "-") * (2 if summary.survives_holm else 1)
    mark = f"$^{{{signs}}}$" if summary.better is not None else ""
    return f"{text}{MARK_WIDTH}{{{mark}}}"

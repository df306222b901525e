"""A strict parser for LaTeX tables: input that LaTeX would reject or print differently is an AssertionError."""

from __future__ import annotations

import re
from typing import NamedTuple

TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|--|''|.", re.DOTALL)
MATH = {r"\pm": "±", r"\uparrow": "↑", r"\downarrow": "↓", r"\times": "×", r"\cdot": "·"}
TEXT = {
    r"\textbackslash": "\\",
    r"\textasciitilde": "~",
    r"\textasciicircum": "^",
    r"\textless": "<",
    r"\textgreater": ">",
    r"\textbar": "|",
    **{f"\\{sign}": sign for sign in "&%$#_{}"},
}
SILENT = {r"\centering", r"\footnotesize", r"\scriptsize", r"\tiny", r"\textbf"}
SMALLER = r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{"
"""What makes a table smaller that is wider than the page."""
RULES = {r"\toprule", r"\midrule", r"\bottomrule"}


class Table(NamedTuple):
    """Content of a printed table."""

    columns: str
    lines: list[list[str]]
    rules: list[int]
    """Number of lines above each rule."""
    caption: str


def read_table(source):
    """Parse a `table*` with one `tabular`, a caption and a label; AssertionError for anything else."""
    source = re.sub(r"(?<!\\)%.*", "", source)  # comments
    assert source.count(SMALLER) == source.count(r"\end{tabular}}") == 1, "a table wider than the page would stand out"
    source = source.replace(SMALLER, "").replace(r"\end{tabular}}", r"\end{tabular}")
    whole = re.fullmatch(
        r"\s*\\begin\{table\*\}(?P<before>.*?)\\begin\{tabular\}\{(?P<columns>[lrc]+)\}(?P<body>.*)\\end\{tabular\}\s*"
        r"\\caption\{(?P<caption>.*)\}\s*\\label\{[a-z:-]+\}\s*\\end\{table\*\}\s*",
        source,
        re.DOTALL,
    )
    assert whole, "no table* with a tabular, a caption and a label"
    assert not shown(re.sub(r"\\setlength\{\\tabcolsep\}\{\d+pt\}", "", whole["before"]))
    lines, rules = [], []
    *parts, rest = _split(whole["body"], r"\\")
    for part in parts:
        body, above = _without_rules(part)
        assert not body.startswith("["), "would be an argument of the line break above"
        rules += [len(lines)] * above
        lines.append([shown(cell) for cell in _split(body, "&")])
        assert len(lines[-1]) == len(whole["columns"]), lines[-1]
    rest, above = _without_rules(rest)
    assert not rest, rest
    return Table(whole["columns"], lines, rules + [len(lines)] * above, shown(whole["caption"]))


def shown(source):
    """Return the printed form of LaTeX text."""
    source = re.sub(r"\\makebox\[[\d.]+em\]\[l\](?=\{)", "", source)  # a box of a fixed width around its content
    out, open_, math = [], [], False
    for token in TOKEN.findall(source):
        if token == "{":
            open_.append(math)
        elif token == "}":
            assert open_ and open_.pop() == math, f"unbalanced brace, or across a $: {source}"
        elif token == "$":
            math = not math
        elif token in MATH or token == "^":
            assert math, f"{token} outside of $: {source}"
            out.append(MATH.get(token, token))
        elif token in TEXT:
            assert not math, f"{token} inside of $: {source}"
            out.append(TEXT[token])
        elif token == "~":
            out.append("\N{NO-BREAK SPACE}")
        elif token.startswith("\\"):
            assert token in SILENT, f"unknown {token}"
        else:
            assert token not in tuple('&#_<>|"'), f"bare {token}: {source}"
            out.append(token.replace("-", "−") if math else {"--": "–", "''": '"'}.get(token, token))
    assert not open_ and not math, f"unclosed brace or $: {source}"
    return re.sub(r"[ \n]+", " ", "".join(out)).strip(" ")


def _split(source, separator):
    """Split at the separators outside of braces."""
    parts, depth = [""], 0
    for token in TOKEN.findall(source):
        depth += (token == "{") - (token == "}")
        if token == separator and not depth:
            parts.append("")
        else:
            parts[-1] += token
    return parts


def _without_rules(body):
    """Strip the rules above a line; return the line and their number."""
    body, count = body.strip(), 0
    while (found := re.match(r"\\\w+", body)) and found[0] in RULES:
        body, count = body[found.end() :].strip(), count + 1
    return body, count

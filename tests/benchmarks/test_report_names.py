"""Names of any kind in the report: those of files are not UTF-8, and those that a user gives may hold markup."""

from __future__ import annotations

import csv
import dataclasses
import re
from html import unescape

import pytest
from comparison_samples import HIGH, LOW, row
from report_samples import written

from benchmarks.planning.cells import slug
from benchmarks.records import results
from benchmarks.records.results import write_cell, write_csv, write_json
from benchmarks.report.markdown import code, escape

ODD = "*a*_b_ | `c` <i>d</i> ~~e~~ [f](g) $h$ &amp; \\i"


def folder(out, name, **fields):
    """Write random weights and a row of that name in two probes, the second one of that name too."""
    for number, (pretext, items) in enumerate((("random", LOW), (name, HIGH))):
        for probe in ("linear", name):
            cell = f"{slug(f'{pretext} {probe}')}.{number}"
            write_cell(out, cell, [row(pretext, items, probe=probe, cell=cell, stage=s, headline=s == "a", **fields)
                                   for s in "ab"])  # fmt: skip
    write_json(out / "plan.json", {"cells": [], "notes": [f"a note on {name}"], "command": f"run {name}"})


def test_markdown_prints_every_name_as_given(tmp_path):
    folder(tmp_path, ODD)
    _, page, markdown = written(tmp_path)
    assert ODD in "".join(page.words)
    assert not page.wrong
    plain = markdown.replace(code(f"run {ODD}"), "")
    assert ODD not in plain
    assert plain.count(escape(ODD)) >= 4
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
    assert all(width == widths[0] for width in widths[:4])


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("context_encoder", "context_encoder"),  # not emphasis within a word
        ("_a_", r"\_a\_"),
        ("a|b", r"a\|b"),
        ("*a* `b`", r"\*a\* \`b\`"),
        ("a\nb\r\n\nc", "a b c"),
        ("a\\|b", r"a\\\|b"),
        ("<b> &lt; & c", r"\<b\> \&lt; & c"),
        ("[a](b) [c]", r"[a\](b) [c]"),
    ],
)
def test_markdown_escapes_only_what_it_would_change(text, escaped):
    assert escape(text) == escaped


def test_code_spans_hold_backticks():
    assert code("a\nb") == "`a b`"
    assert code("a``b`") == "``` a``b` ```"


def test_the_page_escapes_the_names_of_probes(tmp_path):
    folder(tmp_path, "<script>alert(1)</script>")
    assert "<script>alert" not in written(tmp_path)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["caf\udce9", r"$\nosuchmacro{$", "a\n\nb"])
def test_a_report_is_written_with_any_name(tmp_path, name):
    folder(tmp_path, name, data=f"folder:{name}")
    text, page, markdown = written(tmp_path)
    shown = name.replace("\udce9", "?")
    assert shown in unescape(text)
    assert not page.wrong
    assert escape(shown) in markdown
    assert "\n\n" not in (tmp_path / "report.tex").read_text(encoding="utf-8")
    assert list((tmp_path / "figures").glob("*.png"))


def test_results_files_hold_names_that_are_not_utf8(tmp_path, monkeypatch):
    import pandas as pd

    folder(tmp_path, "caf\udce9")
    with write_csv(tmp_path).open(newline="", encoding="utf-8") as file:
        assert {line["pretext"] for line in csv.DictReader(file)} == {"random", "caf?"}
    tables = []
    monkeypatch.setattr(results.importlib.util, "find_spec", lambda name: dataclasses)
    monkeypatch.setattr(pd.DataFrame, "to_parquet", lambda frame, **_: tables.append(frame) or b"PAR1")
    results.write_parquet(tmp_path)
    tables[0].to_csv().encode()

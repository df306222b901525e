"""The table for papers is LaTeX, and says what the numbers say."""

from __future__ import annotations

import numpy as np
import pytest
from latex_reader import read_table, shown
from scipy.stats import t as t_distribution
from test_report import HIGH, LOW
from test_verdict import row

from benchmarks.cells import slug
from benchmarks.report import write_report
from benchmarks.report.latex import escape
from benchmarks.results import write_cell


def test_the_latex_table_says_what_the_numbers_say(tmp_path):
    odd = "[a_b & c%]{$x^2$} \\y~#<|>"
    numbers = {"random": LOW, "supervised": HIGH, odd: [9.0, 11.0, 9.5, 10.0], "minus": [-4.0, -4.5, -3.5, -4.0]}
    for name, items in numbers.items():
        measured = [row(name, items, data="folder:a_b&c?x=1#2", cell=slug(name), metric="the_metric")]
        write_cell(tmp_path, measured[0].cell, measured)
    write_report(tmp_path)
    text = (tmp_path / "report.tex").read_text(encoding="utf-8")
    assert text.startswith(r"% Needs \usepackage{booktabs}.")
    table = read_table(text)
    assert table.columns == "lrrr"
    assert table.rules == [0, 2, 6]
    assert table.lines[:2] == [["", "linear", "images", "time"], ["", "the_metric % ↑", "seen", "s"]]
    found = {name: value for name, value, *_ in table.lines[2:]}
    assert found.keys() == numbers.keys()
    for name, items in numbers.items():
        half = t_distribution.ppf(0.975, 3) * np.std(items, ddof=1) / 2
        marks = {"random": "", "supervised": "^++"}.get(name, "^−−")  # paired, and far apart: Holm leaves all three
        assert found[name] == f"{np.mean(items):.1f} ±{half:.1f}{marks}".replace("-", "−")  # a hyphen is no minus
    assert r"\textbf{60.0}" in text
    assert text.count(r"\textbf") == 1
    assert table.caption.startswith("Data: folder:a_b&c?x=1#2. Means over 1 seed, ±\N{NO-BREAK SPACE}half of the 95")


@pytest.mark.parametrize("letter", [*(chr(code) for code in range(32, 127)), "\N{NO-BREAK SPACE}", "–", "±", "×", "·"])
def test_every_letter_is_printed_as_it_is(letter):
    assert shown(f"x{escape(letter)}y") == f"x{letter}y"


@pytest.mark.parametrize(
    "source", ["a & b", "a_b", "a^b", "{a", "a}", "$a", "${$}", r"\pm", r"\odd", "#", "<", r"$\textbar$"]
)
def test_the_reader_of_latex_would_notice(source):
    with pytest.raises(AssertionError):
        shown(source)

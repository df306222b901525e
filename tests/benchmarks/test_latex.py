"""Tests the LaTeX table against the numbers, and that pdflatex accepts it."""

from __future__ import annotations

import re
import subprocess
from shutil import which

import numpy as np
import pytest
from comparison_samples import HIGH, LOW, row
from latex_reader import SMALLER, read_table, shown
from scipy.stats import t as t_distribution

from benchmarks.planning.cells import slug
from benchmarks.records.results import write_cell
from benchmarks.report import write_report
from benchmarks.report.latex import escape


def test_the_latex_table_shows_the_numbers(tmp_path):
    odd = "[a_b & c%]{$x^2$} \\y~#<|>"
    numbers = {"random": LOW, "supervised": HIGH, odd: [9.0, 11.0, 9.5, 10.0], "minus": [-4.0, -4.5, -3.5, -4.0]}
    for name, items in numbers.items():
        measured = [row(name, items, data="folder:a_b&c?x=1#2", cell=slug(name), metric="the_metric")]
        write_cell(tmp_path, measured[0].cell, measured)
    write_report(tmp_path)
    text = (tmp_path / "report.tex").read_text(encoding="utf-8")
    assert text.startswith(r"% Needs \usepackage{booktabs,graphicx}.")
    table = read_table(text)
    assert table.columns == "lrrr"
    assert table.rules == [0, 3, 5, 7, 8]  # references are ruled off, and the answer without learning
    assert table.lines[:3] == [
        ["", "Linear", "images", "work"],
        ["", "the_metric", "seen", "TFLOP"],
        ["", "% ↑", "", ""],
    ]
    *lines, last = table.lines[3:]
    assert last == ["No learning", "10.0", "", ""]
    found = {name: value for name, value, *_ in lines}
    titles = {"random": "Random weights", "supervised": "Supervised"}
    assert found.keys() == {titles.get(name, name) for name in numbers}
    for name, items in numbers.items():
        half = t_distribution.ppf(0.975, 3) * np.std(items, ddof=1) / 2
        marks = {"random": "", "supervised": "^++"}.get(
            name, "^−−"
        )  # paired, large differences: all three are significant after Holm
        assert found[titles.get(name, name)] == f"{np.mean(items):.1f} ±{half:.1f}{marks}".replace(
            "-", "−"
        )  # minus signs, not hyphens
    assert r"\textbf{30.0}" in text  # labels aside
    assert text.count(r"\textbf") == 1
    assert table.caption.startswith("Data: folder:a_b&c?x=1#2. Means over 1 seed, ±\N{NO-BREAK SPACE}half of the 95")


SEVEN = {
    **dict.fromkeys(("linear", "knn", "fine_tune"), "top1"),
    **{"detection": "AP50", "segmentation": "mIoU", "retrieval": "precision@10", "inpainting": "PSNR"},
}
TWELVE = SEVEN | dict.fromkeys(("svm", "low_shot", "robustness", "nearest_fill", "label_free"), "a long metric")


@pytest.mark.slow
@pytest.mark.skipif(
    which("pdflatex") is None, reason="needs pdflatex; tests/latex_reader.py checks the table without it"
)
@pytest.mark.parametrize("probes", [SEVEN, TWELVE], ids=["as in a usual comparison", "as wide as can be"])
def test_a_wide_table_fits_into_two_columns(probes, tmp_path):
    for name in ("random", "random:untouched", "supervised", "context_encoder:adversarial"):
        for probe, metric in probes.items():
            numbers = LOW if name == "random" else HIGH
            measured = [row(name, numbers, probe=probe, cell=slug(f"{name} {probe}"), metric=metric)]
            write_cell(tmp_path, measured[0].cell, measured)
    write_report(tmp_path)
    table = (tmp_path / "report.tex").read_text(encoding="utf-8")
    assert "^{++}" in table  # the widest marks
    log = typeset(table, tmp_path)
    assert not re.findall(r"^(?:Overfull|Underfull|LaTeX Warning|!).*", log, re.MULTILINE)
    assert "Output written on page.pdf (2 pages" in log
    wider = re.findall(r"Overfull \\hbox \((\d+)", typeset(table.replace(SMALLER, "{"), tmp_path))
    if probes is SEVEN:  # the page of `article` is 410 pt wide: letters are at most a tenth smaller
        assert all(int(points) <= 41 for points in wider)
    else:
        assert wider  # the test would see it


def typeset(table, folder):
    """Return pdflatex's log of a page in two columns that holds the table."""
    (folder / "report.tex").write_text(table, encoding="utf-8")
    page = (
        r"\documentclass[twocolumn]{article}\usepackage{booktabs,graphicx}\begin{document}See \ref{tab:pretext-tasks}."
    )
    (folder / "page.tex").write_text(page + r"\input{report}\end{document}")
    for _ in range(2):  # the second run resolves references
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page"]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout.decode()
    return (folder / "page.log").read_text(errors="replace")


@pytest.mark.parametrize("letter", [*(chr(code) for code in range(32, 127)), "\N{NO-BREAK SPACE}", "–", "±", "×", "·"])
def test_every_character_is_printed_as_given(letter):
    assert shown(f"x{escape(letter)}y") == f"x{letter}y"


@pytest.mark.parametrize(
    "source", ["a & b", "a_b", "a^b", "{a", "a}", "$a", "${$}", r"\pm", r"\odd", "#", "<", r"$\textbar$"]
)
def test_the_latex_reader_notices_faults(source):
    with pytest.raises(AssertionError):
        shown(source)

"""The report of several judging sets: columns, sentences and pictures name their set."""

from __future__ import annotations

import re

import numpy as np
import pytest
from comparison_samples import row
from report_samples import Page, trained_folder, written

from benchmarks.records.results import read_cell, read_measurements, read_plan, write_cell, write_json
from benchmarks.report.content import read_run
from benchmarks.report.forest import forest_plots
from benchmarks.report.plotting import style
from benchmarks.report.terminal import text_table
from benchmarks.summaries.verdict import summarise

DRAWN, PHOTOS = "scenes?size=16", "coco:photos/tiny"
GAINS = {DRAWN: {"linear": 20, "knn": 0}, PHOTOS: {"linear": 0, "knn": -20}}


@pytest.fixture
def folder(tmp_path):
    """Two sets and two probes: rotation is better in linear on scenes and worse in k-NN on tiny."""
    rng = np.random.default_rng(0)
    for spec, gains in GAINS.items():
        for probe, gain in gains.items():
            noise = rng.normal(0, 5, 100)
            for name in ("random", "rotation"):
                for seed in range(2):
                    items = 40 + noise + (gain if name == "rotation" else 0) + rng.normal(0, 1, 100)
                    cell = f"{name}.{probe}.s{seed}.{len(spec):08x}"
                    one = row(name, items, probe=probe, seed=seed, data=spec, data_fingerprint=spec, cell=cell)
                    write_cell(tmp_path, cell, [one])
    plan = {"data": [DRAWN, PHOTOS], "pretrain_data": DRAWN, "synthetic_sets": [DRAWN], "synthetic": False, "cells": []}
    write_json(tmp_path / "plan.json", plan)
    return tmp_path


def test_the_page_has_a_column_for_each_probe_and_set_and_names_the_sets(folder):
    text, page, md = written(folder)
    assert not page.wrong and not page.open
    assert "Data: scenes (synthetic) and tiny. Results on synthetic data may not transfer to photographs." in text
    heads = re.findall(r"<th scope=\"col\"><button><span>([^<]+)</span><small>(on \w+)</small>", text)
    assert heads == [("Linear", "on scenes"), ("k-NN", "on scenes"), ("Linear", "on tiny"), ("k-NN", "on tiny")]
    words = " ".join(page.words)
    assert "Best without labels over 4 probes on 2 data sets: " in words
    assert "Linear on scenes top-1 60" in words
    assert "Best without labels by probe. On scenes: " in words and ". On tiny: " in words
    assert "excludes zero): Rotation in Linear on scenes." in words
    assert "scenes (synthetic): scenes?size=16; tiny: coco:photos/tiny" in words
    assert "Linear on tiny (top-1 %; 100 test)" in md


def test_the_forest_plot_has_a_panel_for_each_column(folder):
    with style():
        plots = forest_plots(read_run(folder))
    for plot in plots:
        titles = [axes.get_title(loc="left") for axes in plot.figure.axes]
        assert titles == [f"{probe}\non {on}\ntop-1 %" for on in ("scenes", "tiny") for probe in ("Linear", "k-NN")]
        assert "k-NN on tiny: Rotation -" in plot.alt


def test_the_table_for_a_paper_has_one_part_for_each_set(folder):
    written(folder)
    parts = (folder / "report.tex").read_text().split(r"\par\medskip")
    assert [re.findall(r"\n    (\w+) & Linear & k-NN", part) for part in parts] == [["scenes"], ["tiny"]]


def test_the_terminal_has_a_table_for_each_set_that_fits_its_width(folder):
    summaries = summarise(read_measurements(folder))
    table = text_table(summaries, {}, width=60)
    assert max(map(len, table.splitlines())) <= 60
    first, second = (part.splitlines()[0:2] for part in table.split("\n\n"))
    assert first[0].split() == second[0].split() == ["Linear", "k-NN"]
    assert (first[1].split()[:2], second[1].split()[:2]) == (["on", "scenes"], ["on", "tiny"])


@pytest.mark.slow
def test_pictures_come_from_the_data_of_their_column(tmp_path):
    trained_folder(tmp_path)
    first = read_plan(tmp_path)["data"]
    other = first + "&seed=5"
    for path in [*(tmp_path / "results").iterdir()]:
        rows = read_cell(path)
        name = path.stem[:-8] + "11111111"
        write_cell(
            tmp_path,
            name,
            [type(m)(**vars(m) | {"data": other, "data_fingerprint": "g", "cell": name}) for m in rows],
        )
    write_json(tmp_path / "plan.json", read_plan(tmp_path) | {"data": [first, other], "synthetic_sets": [first, other]})
    text, page, _ = written(tmp_path)
    assert not page.wrong
    for section in ("nearest-neighbours", "inpainting", "inpainting-from-neighbours", "dense-features"):
        content = re.search(rf'<section id="{section}".*?</section>', text, re.DOTALL)[0]
        halves = content.split("<summary>On scenes seed=5</summary>")
        assert len(halves) == 2 and "<summary>On scenes</summary>" in halves[0]
        pictures = [{i["src"] for i in Page(half).images if "Test image" in i["alt"] or "query" in i["alt"] or
                     "original" in i["alt"]} for half in halves]  # fmt: skip
        assert pictures[0] and pictures[1] and not pictures[0] & pictures[1]
    assert "Segmentation on scenes" in text

"""Tests the report's uncertainty tables and its retrieval table."""

from __future__ import annotations

import re

import numpy as np
from comparison_samples import HIGH, LOW, row
from report_samples import written

from benchmarks.records.results import write_cell, write_json


def test_the_uncertainty_tables_are_on_the_page_and_in_markdown(tmp_path):
    rng = np.random.default_rng(0)
    for pretext, mean in (("random", 30), ("supervised", 80), ("rotation", 55), ("simclr", 30)):
        for probe in ("linear", "knn", "svm"):
            for seed in range(3):
                items = list(rng.normal(mean, 10, 200))
                measured = row(pretext, items, probe=probe, seed=seed)
                write_cell(tmp_path, measured.cell, [measured])
    write_json(tmp_path / "plan.json", {"cells": [], "sized": "Sized for a minute."})
    text, page, markdown = written(tmp_path)
    words = "".join(page.words)
    assert not page.wrong
    assert "remain undetected. Sized for a minute." in words
    for title in (
        "Differences from random weights",
        "Share of the gap from random weights to labels",
        "Detectable differences",
        "Mean ranks",
    ):
        assert title in words
        assert f"### {title}" in markdown
    assert markdown.count("▲▲") == 6  # supervised and rotation in all three probes
    assert text.count('<span class="up">▲</span><span class="up">▲</span>') == 6
    assert re.search(r"\| Rotation \| (4[5-9]|5[0-5]) % \[", markdown)
    assert "| Supervised | 1.00 | 1.00 |" in markdown
    assert "After Holm's correction for all 9: Supervised and Rotation in all 3 probes." in words
    (ranks,) = [image for image in page.images if "Critical-difference" in image["aria-label"]]
    assert "Supervised 1.0; Rotation 2.0" in ranks["aria-label"]


def test_the_chosen_and_the_deepest_stage_are_compared_at_the_same_stage(tmp_path):
    values = {"random": (30.0, 25.0), "rotation": (40.0, 21.0), "hog": (70.0,)}
    for name, means in values.items():
        stages = ("conv1", "conv2") if len(means) == 2 else ("hog",)
        scores = [
            row(name, [mean] * 4, stage=stage, headline=stage in ("conv1", "hog"))
            for mean, stage in zip(means, stages, strict=True)
        ]
        write_cell(tmp_path, scores[0].cell, scores)
    _, page, markdown = written(tmp_path)
    assert not page.wrong
    table = markdown.split("### Chosen and deepest stage")[1].split("###")[0]
    head, _, *lines = (line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|"))
    assert head == ["row", "Linear, chosen", "Linear, deepest"]
    assert lines == [  # another encoder has other stages
        ["Random weights", "conv1 30.0 (+0.0)", "conv2 25.0 (+0.0)"],
        ["Rotation", "conv1 40.0 (+10.0)", "conv2 21.0 (−4.0)".replace("−", "-")],
    ]
    (figure,) = [image["aria-label"] for image in page.images if "difference in Linear" in image["aria-label"]]
    assert "At the last stage, conv2: Rotation -4.0." in figure and "HOG" not in figure


def test_without_such_methods_there_is_no_retrieval_table(tmp_path):
    items = row("random", LOW, probe="retrieval", metric="precision@10")
    write_cell(tmp_path, items.cell, [items])
    text, _, markdown = written(tmp_path)
    assert "without a network" not in text + markdown


def test_worse_rows_are_listed_as_worse_and_a_negative_gap_has_no_shares(tmp_path):
    rng = np.random.default_rng(0)
    for pretext, linear, knn in (("random", 50, 50), ("supervised", 80, 20), ("rotation", 65, 35), ("simclr", 50, 20)):
        for probe, mean in (("linear", linear), ("knn", knn)):
            for seed in range(3):
                measured = row(pretext, rng.normal(mean, 10, 200), probe=probe, seed=seed)
                write_cell(tmp_path, measured.cell, [measured])
    markdown = written(tmp_path)[2]
    assert (
        "After Holm's correction for all 6: Supervised and Rotation in Linear; "
        "worse: Supervised, Rotation and SimCLR in k-NN." in markdown
    )
    shares = markdown[markdown.index("### Share of the gap") :].split("\n\n")[1]
    assert shares.splitlines()[0] == "| row | Linear |"  # no column for k-NN, where labels are worse
    assert re.search(r"\| Rotation \| (4[5-9]|5[0-5]) % \[", shares)


def test_without_random_weights_there_are_no_uncertainty_tables(tmp_path):
    write_cell(tmp_path, "a", [row("supervised", HIGH)])
    text, _, markdown = written(tmp_path)
    assert "Uncertainty" not in text
    assert "###" not in markdown

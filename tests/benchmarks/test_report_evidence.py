"""Tests the report's uncertainty tables and its retrieval table."""

from __future__ import annotations

import itertools
import re

import numpy as np
from comparison_samples import HIGH, LOW, row
from report_samples import written

from benchmarks.results import write_cell, write_json


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
        "Share of the gap from random to supervised",
        "Detectable differences",
        "Mean ranks",
    ):
        assert title in words
        assert f"### {title}" in markdown
    assert markdown.count("▲▲") == 6  # supervised and rotation in all three probes
    assert text.count('<span class="up">▲</span><span class="up">▲</span>') == 6
    assert re.search(r"\| rotation \| (4[5-9]|5[0-5]) % \[", markdown)
    assert "| supervised | 1.00 | 1.00 |" in markdown
    assert "After Holm's correction for all 9: supervised and rotation in all 3 probes." in words
    (ranks,) = [image for image in page.images if "Critical-difference" in image["aria-label"]]
    assert "supervised 1.0; rotation 2.0" in ranks["aria-label"]


def test_retrieval_is_compared_with_methods_without_a_network(tmp_path):
    plain = {"HOG": [80.0, 90.0], "raw pixels": [20.0, 25.0]}
    for seed, (pretext, items) in itertools.product((0, 1), (("random", LOW), ("supervised", HIGH))):
        shared = {"probe": "retrieval", "seed": seed}
        scores = [
            row(pretext, items, metric="precision@10", **shared),
            row(pretext, [v / 2 for v in items], metric="precision@10", stage="conv1", headline=False, **shared),
            row(pretext, [v / 3 for v in items], metric="mAP", headline=False, chance=12.5, **shared),
            row(pretext, [99.0] * 4, metric="approximate recall@10", headline=False, **shared),
        ]
        for name, values in plain.items():
            for metric, factor in (("precision@10", 1), ("mAP", 0.1)):
                ours = [factor * (values[seed] + shift) for shift in (-1, 0, 0, 1)]
                scores.append(row(pretext, ours, metric=f"{metric} by {name}", stage="", headline=False, **shared))
        write_cell(tmp_path, scores[0].cell, scores)
    text, page, markdown = written(tmp_path)
    assert not page.wrong
    assert "Retrieval with and without a network" in "".join(page.words)
    table = markdown.split("### Retrieval with and without a network")[1].split("###")[0]
    head, _, *lines = (line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|"))
    assert head == ["row", "precision@10", "mAP"]
    assert [[cell.split(" ")[0] for cell in line] for line in lines if line[0] != "raw pixels"] == [
        ["random", "30.0", "10.0"],
        ["supervised", "60.0", "20.0"],
        ["HOG", "85.0", "8.5"],
        ["chance", "10.0", "12.5"],
    ]
    (pixels,) = [line for line in lines if line[0] == "raw pixels"]
    assert pixels[1].startswith("22.5 ±")
    main = markdown.split("###")[0]
    assert "**60.0" in main  # methods without a network are no rows of the main table
    assert not any(name in main for name in plain)
    assert "by stage" in text
    figure = next(image["aria-label"] for image in page.images if "stage" in image["aria-label"])
    assert "HOG" not in figure


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
        "After Holm's correction for all 6: supervised and rotation in linear; "
        "worse: supervised, rotation and simclr in knn." in markdown
    )
    shares = markdown[markdown.index("### Share of the gap") :].split("\n\n")[1]
    assert shares.splitlines()[0] == "| row | linear |"  # no column for knn, where labels are worse
    assert re.search(r"\| rotation \| (4[5-9]|5[0-5]) % \[", shares)


def test_without_random_weights_there_are_no_uncertainty_tables(tmp_path):
    write_cell(tmp_path, "a", [row("supervised", HIGH)])
    text, _, markdown = written(tmp_path)
    assert "Uncertainty" not in text
    assert "###" not in markdown

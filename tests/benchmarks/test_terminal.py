"""The results as text: a table that fits the terminal, then the best row, the cautions and the files."""

from __future__ import annotations

import numpy as np
import pytest
from comparison_samples import row

from benchmarks.report.headline import best_by_probe, standings
from benchmarks.report.terminal import closing, text_table
from benchmarks.summaries.costs import Cost
from benchmarks.summaries.verdict import summarise

ROWS = ("random", "supervised", "hog", "kmeans", "context_encoder", "context_encoder:adversarial", "simclr")
PROBES = ("linear", "knn", "fine_tune", "detection", "segmentation", "retrieval")


def comparison(means, probes=PROBES, seeds=3, **fields):
    rng = np.random.default_rng(0)
    return summarise(
        row(name, rng.normal(mean, 10, 200), probe=probe, seed=seed, **fields)
        for name, mean in means.items()
        for probe in probes
        for seed in range(seeds)
    )


def spent(seconds):
    return Cost(images_seen=80_000, wall_s=2 * seconds, peak_mem_bytes=1e9, flops=3e12, cpu_s=seconds)


@pytest.mark.parametrize("width", [40, 80, 120, 300])
def test_no_line_is_longer_than_the_terminal_and_no_number_is_lost(width):
    summaries = comparison(dict.fromkeys(ROWS, 40))
    text = text_table(summaries, {"simclr": spent(47)}, width=width)
    assert max(map(len, text.splitlines())) <= max(width, 44)
    words = text.split()
    for summary in summaries:
        assert f"{summary.mean:.1f}" in words
    assert text.count("SimCLR") == text.count("HOG") == text.count("K-means filters")
    assert (text.count("SimCLR") == 1) == (width == 300)


def test_rows_that_differ_late_in_their_settings_keep_their_names():
    base = "context_encoder?mask=random_region&decoder_width=0.25"
    rows = {base: 40, f"{base}&flip=0.5": 41, "x" * 70: 30}
    text = text_table(comparison(rows, probes=("linear",)), {}, width=80)
    _, _, _, *lines = text.splitlines()
    names = "\n".join(line[:32].rstrip() for line in lines)
    assert "Context encoder\n  (mask=random_region,\n  decoder_width=0.25)\nContext" in names
    assert "Context encoder\n  (mask=random_region,\n  decoder_width=0.25, flip=0.5)\n" in names
    assert "".join(line.split()[0] for line in lines if "xxx" in line) == "x" * 70
    assert len([line for line in lines if "±" in line]) == len(rows) + 1  # a line of numbers each, and the legend
    assert max(map(len, lines)) <= 80


def test_references_are_ruled_off_and_a_missing_cost_is_no_column():
    text = text_table(comparison(dict.fromkeys(ROWS, 40)), {}, width=300)
    lines = text.splitlines()
    names = [line.split("  ")[0].strip("─ ") for line in lines[3:14]]
    assert names == [
        "Random weights", "Supervised", "", "HOG", "K-means filters", "",
        "Context encoder", "Context encoder + adversary", "SimCLR", "", "No learning",
    ]  # fmt: skip
    assert "processor" not in text


def test_the_detectable_difference_is_the_last_line_of_the_table():
    summaries = comparison({"random": 30, "x": 30, "supervised": 80}, probes=("linear", "knn", "svm"))
    (line,) = [line for line in text_table(summaries, {}, width=100).splitlines() if line.startswith("detectable at")]
    linear = next(s.detectable for s in summaries if s.probe == "linear")
    assert line.split()[5] == f"{linear:.1f}"
    assert "detectable at" not in text_table(summarise([row("x", [1, 2])]), {}, width=100)


def test_the_best_answer_without_learning_is_a_line_of_its_own():
    chances = {("linear", 0): 9.0, ("linear", 1): 12.0, ("knn", 0): None, ("knn", 1): None}
    summaries = summarise(
        row(name, [30, 40], probe=probe, seed=seed, chance=chance)
        for name in ("random", "x")
        for (probe, seed), chance in chances.items()
    )
    (line,) = [line for line in text_table(summaries, {}, width=100).splitlines() if line.startswith("No learning")]
    assert line.split() == ["No", "learning", "10.5"]  # the mean over seeds; nothing for the probe without
    without = summarise(row(name, [30, 40], chance=None) for name in ("random", "x"))
    assert "No learning" not in text_table(without, {}, width=100)


def test_a_cost_that_is_not_known_is_a_dash():
    summaries = summarise([row("random", [1, 2]), row("timm:resnet18", [1, 3])])
    lines = text_table(summaries, {"random": spent(1)}, width=100).splitlines()
    (foreign,) = [line for line in lines if line.startswith("timm:")]
    assert foreign.split()[-4:] == ["–"] * 4


def test_the_end_names_the_best_row_the_caution_and_the_page(tmp_path):
    means = {"random": 30, "supervised": 80, "kmeans": 40, "context_encoder": 45, "simclr": 60, "hog": 20}
    summaries = comparison(means)
    page = tmp_path / "a folder" / "report.html"
    text = closing(
        summaries, {"simclr": spent(47), "context_encoder": spent(50)}, csv=tmp_path / "results.csv", page=page,
        synthetic=True,
    )  # fmt: skip
    first, by_probe, *lines = text.splitlines()
    assert lines[0].startswith("Best without labels over 6 probes: SimCLR. Mean rank 2.0 of 6 rows")
    by_name = {(s.pretext, s.probe): s for s in summaries}
    own, base, labels = (by_name[name, "linear"] for name in ("simclr", "random", "supervised"))
    assert f"Linear top-1 {own.mean:.1f}\N{NO-BREAK SPACE}%, {own.mean - base.mean:+.1f} points [" in lines[0]
    assert f"over random weights ({base.mean:.1f}; with labels {labels.mean:.1f})" in lines[0]
    assert "Better in 6 of 6 probes, after Holm's correction in 6." in lines[0]
    assert "Cost: 47 s of processor time." in lines[0]
    assert lines[1].startswith("Context encoder. Linear top-1 ")
    assert by_probe.startswith("Best without labels by probe: SimCLR in Linear, k-NN,")
    assert "Caution: Drawn pictures; results may not transfer to photographs. 30 comparisons" in text
    assert first.startswith("Mean rank over 6 probes: Supervised 1.0, SimCLR 2.0, ")
    assert lines[-1] == f"Open it in a browser: file://{tmp_path}/a%20folder/report.html"


def test_a_row_that_is_best_in_one_probe_only_is_said():
    summaries = [
        *comparison({"random": 30, "kmeans": 40, "simclr": 60}, probes=("linear",)),
        *comparison({"random": 30, "kmeans": 60, "simclr": 40}, probes=("knn",)),
    ]
    assert best_by_probe(summaries) == "Best without labels by probe: SimCLR in Linear; K-means filters in k-NN."
    assert [each.claim for each in standings(summaries, {})] == ["Best without labels in Linear: SimCLR."]


def test_worse_rows_and_losses_are_counted():
    summaries = comparison({"random": 60, "context_encoder": 30}, probes=("linear", "knn"))
    none, only = standings(summaries, {})
    assert none.text() == "In Linear, no row without labels is better than random weights."
    assert "Better in 0 of 2 probes; worse in 2." in only.numbers
    lower = comparison({"random": 60, "context_encoder": 30, "x": 50}, probes=("linear",), higher_is_better=False)
    assert [each.claim for each in standings(lower, {})] == ["Best without labels in Linear: Context encoder."]


def test_without_rows_beside_the_references_nothing_is_claimed():
    assert standings(comparison({"random": 30, "supervised": 60}), {}) == []
    assert text_table([], {}, width=80) == "no results yet"

"""What more labels and more pictures bring: the numbers against independent statistics, the row, the figure."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from comparison_samples import plan, row
from few_label_samples import COUNTS, METRICS, cells, photographs
from scipy.optimize import brentq
from scipy.stats import ttest_1samp

from benchmarks.did_it_help.answer import write_answer
from benchmarks.did_it_help.fewer import fewer_name, with_fewer_pictures
from benchmarks.did_it_help.more import NOT_MEASURED, _labels, more_labels, more_pictures
from benchmarks.records.results import read_measurements, write_cell, write_json
from benchmarks.report import FIGURE
from benchmarks.report.content import read_run
from benchmarks.report.few_labels import label_plots
from benchmarks.report.plotting import style
from benchmarks.summaries.label_curves import Worth, gains, label_counts, labels_worth
from benchmarks.summaries.verdict import summarise
from pretext.datasets import open_dataset
from pretext.training.config import TrainConfig

LINEAR = METRICS[:3]
TUNED = tuple(f"tuned {metric}" for metric in LINEAR)
CURVE = {10: 20.0, 100: 40.0, 1000: 60.0}


def noisy(mean, seed, *, deviation=1.0, seeds=6):
    """Return a table seeds × 1 with exactly this mean."""
    noise = np.random.default_rng(seed).normal(0, deviation, (seeds, 1))
    return mean + noise - noise.mean()


def differences(out, pretext, metrics):
    """Return each seed's difference of two metrics, over items."""
    values = {m.seed: {} for m in read_measurements(out)}
    for m in read_measurements(out):
        if m.pretext == pretext:
            values[m.seed][m.metric] = np.array(m.items)
    return [each[metrics[1]] - each[metrics[0]] for each in values.values()]


def test_a_score_is_worth_the_labels_at_which_the_other_curve_crosses_it():
    curve = {count: noisy(mean, count) for count, mean in CURVE.items()}
    assert labels_worth(noisy(50.0, 1), curve).labels == pytest.approx(10**2.5)  # halfway between 100 and 1,000
    assert labels_worth(noisy(25.0, 1), curve).labels == pytest.approx(10**1.25)  # a quarter of the way


def test_its_interval_ends_where_a_t_test_of_the_difference_is_just_not_significant():
    curve, reached = {count: noisy(mean, count) for count, mean in CURVE.items()}, noisy(50.0, 1)

    def excess(logarithm):
        part = logarithm - 2
        return ttest_1samp((reached - (1 - part) * curve[100] - part * curve[1000])[:, 0], 0.0).pvalue - 0.05

    found = labels_worth(reached, curve)
    ends = [brentq(excess, 2.0, 2.5), brentq(excess, 2.5, 3.0)]
    assert [math.log10(found.low), math.log10(found.high)] == pytest.approx(ends, abs=0.006)  # the grid's step is 0.005


@pytest.mark.parametrize(
    ("reached", "worth"),
    [
        (5.0, Worth(0.0, 0.0, 0.0)),
        (90.0, Worth(math.inf, math.inf, math.inf)),
        (20.2, Worth(pytest.approx(10.2, abs=0.1), 0.0, pytest.approx(12, abs=1.5))),
        (59.9, Worth(pytest.approx(990, abs=5), pytest.approx(800, abs=150), math.inf)),
    ],
)
def test_nothing_is_said_beyond_what_was_measured(reached, worth):
    curve = {count: noisy(mean, count) for count, mean in CURVE.items()}
    assert labels_worth(noisy(reached, 1), curve) == worth


def test_one_number_has_no_interval():
    curve = {count: np.array([[mean]]) for count, mean in CURVE.items()}
    assert labels_worth(np.array([[50.0]]), curve) == Worth(pytest.approx(10**2.5), None, None)


def test_what_more_labels_brought_is_paired_by_seed_and_picture(tmp_path):
    seeds = np.random.default_rng(0).normal(0, 3, 6)
    for seed in range(6):  # one item: then the interval is Student's of the seeds
        rows = [
            row("simclr", [40 + gain + seeds[seed] + 0.1 * seed * gain], probe="low_shot", seed=seed, metric=metric)
            for metric, gain in zip(LINEAR, (0, 2, 8), strict=True)
        ]
        write_cell(tmp_path, rows[0].cell, rows)
    found = gains(read_measurements(tmp_path), "low_shot", *LINEAR[1:])["simclr"]
    oracle = ttest_1samp([each.mean() for each in differences(tmp_path, "simclr", LINEAR[1:])], 0.0)
    assert found.mean == pytest.approx(np.mean(differences(tmp_path, "simclr", LINEAR[1:])))
    assert (found.low, found.high) == pytest.approx(tuple(oracle.confidence_interval(0.95)))


def test_shares_are_counted_as_the_probe_draws_them(tmp_path):
    data = open_dataset(photographs(tmp_path / "l", ("a", "b", "c")))
    counts = np.bincount([data[i][1]["label"] for i in range(len(data))])
    expected = {p: sum(max(1, math.floor(p / 100 * n + 0.5)) for n in counts) for p in (1.0, 10.0, 50.0, 100.0)}
    assert label_counts(data, [*expected], size=16) == expected
    assert expected[1.0] == 3 and expected[100.0] == len(data)


def test_the_sentences_on_labels_name_numbers_of_labels(tmp_path):
    metrics = (*LINEAR, *TUNED)
    cells(tmp_path, "random", (0, 20, 40, 0, 20, 40), metrics=metrics)
    cells(tmp_path, "simclr", (20, 30, 42, 10, 15, 41), metrics=metrics)
    cells(tmp_path, "context_encoder", (5, 25, 41, 0, 1, 2), metrics=metrics)
    said = more_labels(read_measurements(tmp_path), "top1", COUNTS, "random")
    gained = np.mean(differences(tmp_path, "random", LINEAR[1:]))
    assert said.startswith(f"1,000 labels instead of 100 brought random weights {gained:+.1f} points (95 % interval ")
    means = {(s.pretext, s.metric): s.mean for s in summarise(read_measurements(tmp_path))}
    for way, of_way in (("linear probe. With a linear probe", LINEAR), ("100; with fine-tuning", TUNED)):
        curve = [means["random", metric] for metric in of_way]
        need = 10 ** np.interp(means["simclr", of_way[1]], curve, [1, 2, 3])
        assert f"{way}, random weights need about {float(f'{need:.2g}'):.0f} labels (95 % interval " in said
    assert said.endswith(") for what SimCLR reaches with 100.")
    short = write_answer(tmp_path, COUNTS)
    assert said in short and "What more pictures would bring was not measured." in short


def test_given_weights_are_what_labels_are_counted_in(tmp_path):
    for name, gains_of in (("random", (0, 1, 2)), ("given", (0, 20, 30)), ("continued", (9, 50, 60))):
        cells(tmp_path, name, gains_of, metrics=LINEAR)
    said = more_labels(read_measurements(tmp_path), "top1", COUNTS, "given")
    need = "the given weights need more than all 1,000 labels (95 % interval the same)"
    assert f"With a linear probe, {need} for what continued reaches with 100." in said
    assert more_labels([], "top1", COUNTS, "random") == NOT_MEASURED
    alike = dict.fromkeys(COUNTS, 2)
    assert more_labels(read_measurements(tmp_path), "top1", alike, "given") == NOT_MEASURED


@pytest.mark.parametrize(
    ("gain", "meaning"),
    [
        (4, "More different pictures helped."),
        (-4, "Fewer pictures, shown more often, were better."),
        (0, "Not significant: no gain by more pictures is shown."),
    ],
)
def test_four_times_the_pictures_are_compared_at_a_tenth_of_the_labels(tmp_path, gain, meaning):
    fewer = fewer_name("context_encoder")
    cells(tmp_path, "random", (0, 0, 0, 5))
    cells(tmp_path, "context_encoder", (0, gain, 9, 9))
    cells(tmp_path, fewer, (0, 0, 0, 5))
    measured = [
        dataclasses.replace(m, pretrain_data="folder:u?limit=1080" if m.pretext == fewer else "folder:u")
        for m in read_measurements(tmp_path)
    ]
    about = [s for s in summarise(measured, baseline=fewer) if (s.pretext, s.metric) == ("context_encoder", LINEAR[1])]
    ends = f"(95 % interval {about[0].difference_low:+.1f} to {about[0].difference_high:+.1f})"
    assert more_pictures(measured, "top1", ()) == (
        "Four times the pictures, instead of 1,080, each shown a quarter as often, brought Context encoder "
        f"{about[0].difference:+.1f} points {ends} with 10 % of the labels and a linear probe. {meaning}"
    )


def test_a_row_on_a_quarter_differs_in_its_pictures_only(tmp_path):
    spec = photographs(tmp_path / "u", [str(number) for number in range(10)])
    rows, train = {"random": "random", "rotation": "rotation"}, TrainConfig(images=100, batch_size=4)
    before = plan(rows=rows, pretrain_data=spec, seeds=2, train=train)
    after = with_fewer_pictures(before, "rotation")
    assert [cell for cell in after.cells if cell.pretext != fewer_name("rotation")] == [*before.cells]
    kinds = [cell.protocol is None for cell in after.cells]
    assert kinds == sorted(kinds, reverse=True)  # encoders come before probes
    for seed in (0, 1):
        whole, part = (
            next(c for c in after.cells if (c.pretext, c.seed, c.probe) == (name, seed, ""))
            for name in ("rotation", fewer_name("rotation"))
        )
        ours, theirs = json.loads(whole.settings), json.loads(part.settings)
        assert {key for key in ours if ours[key] != theirs[key]} == {"pretrain_data"}
        all_of, some = (each.data.open().split("train") for each in (whole, part))
        assert (len(some), len(all_of)) == (21, 86)
        assert {some[i][0].numpy().tobytes() for i in range(21)} < {all_of[i][0].numpy().tobytes() for i in range(86)}
        judged = [(c.probe, c.seed, c.data, c.protocol) for c in after.cells if c.made_by == part.name]
        assert judged == [(c.probe, c.seed, c.data, c.protocol) for c in after.cells if c.made_by == whole.name]
    assert "learns from 21 of 86 pictures" in after.notes[-1]


def test_passes_over_all_pictures_become_the_same_number_of_steps(tmp_path):
    spec = photographs(tmp_path / "u", [str(number) for number in range(10)])
    before = plan(rows={"rotation": "rotation"}, pretrain_data=spec, train=TrainConfig(epochs=3.0, batch_size=8))
    after = with_fewer_pictures(before, "rotation")
    part = next(cell.train for cell in after.cells if cell.pretext == fewer_name("rotation"))
    assert (part.epochs, part.steps) == (None, round(3 * 86 / 8))


@pytest.mark.parametrize(
    ("train", "why"),
    [
        (TrainConfig(images=500, batch_size=64), "a quarter of 86 pictures is less than a batch of 64"),
        (
            TrainConfig(images=16, batch_size=8),
            "a budget of 16 pictures shows none of a quarter of 86 twice; raise --b",
        ),
    ],
)
def test_a_quarter_that_answers_nothing_is_left_out(tmp_path, train, why):
    spec = photographs(tmp_path / "u", [str(number) for number in range(10)])
    before = plan(rows={"rotation": "rotation"}, pretrain_data=spec, train=train)
    after = with_fewer_pictures(before, "rotation")
    assert after.cells == before.cells
    assert after.left_out[-1].startswith(f"row {fewer_name('rotation')} left out: {why}")
    sentence = f"row {fewer_name('context_encoder')} left out: {why}"
    assert more_pictures([], "top1", [sentence]) == f"What more pictures would bring was not measured: {why}."


def test_the_figure_has_a_line_of_each_row_over_the_number_of_labels(tmp_path):
    spec = photographs(tmp_path / "l", ("a", "b"))
    for name, gains_of in (("random", (0, 10, 20)), ("simclr", (5, 15, 25))):
        cells(tmp_path / "out", name, gains_of, metrics=LINEAR)
    write_json(tmp_path / "out" / "plan.json", {"cells": [], "data": spec, "image_size": 16})
    with style():
        (drawn,) = label_plots(read_run(tmp_path / "out"))
    (axes,) = drawn.figure.axes
    labelled = open_dataset(spec)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2", "2", str(len(labelled))]
    lines = {line.get_label(): line for line in axes.lines}
    found = {s.metric: s for s in read_run(tmp_path / "out").summaries if s.pretext == "simclr"}
    assert lines["SimCLR"].get_ydata() == pytest.approx([found[metric].mean for metric in LINEAR])
    bars = [tuple(line.get_ydata()) for line in axes.lines if len(line.get_ydata()) == 2]
    assert all((found[metric].low, found[metric].high) in bars for metric in LINEAR)
    assert axes.get_xscale() == "log" and FIGURE.fullmatch(f"{drawn.name}.svg")


def test_the_figure_has_percent_where_the_data_moved(tmp_path):
    cells(tmp_path, "random", (0, 10, 20), metrics=LINEAR)
    write_json(tmp_path / "plan.json", {"cells": [], "data": "folder:nowhere", "image_size": 16})
    with style():
        (drawn,) = label_plots(read_run(tmp_path))
    assert [text.get_text() for text in drawn.figure.axes[0].get_xticklabels()] == ["1 %", "10 %", "100 %"]
    cells(tmp_path / "one", "random", (0,), metrics=LINEAR[:1])
    assert label_plots(read_run(tmp_path / "one")) == []


@pytest.mark.parametrize("counts", [(4, 11, 109), (4, 11, 120), (7, 72, 720)])
def test_an_interval_that_reaches_all_labels_ends_there(counts):
    curve = {count: noisy(mean, count) for count, mean in zip(counts, (20.0, 40.0, 60.0), strict=True)}
    found = labels_worth(noisy(59.9, 1), curve)
    assert found.high == math.inf and found.low < found.labels <= counts[-1]
    assert "to more than all" in _labels(found, counts)
    assert f"about {counts[-1]:,} labels" in _labels(Worth(counts[-1] - 0.1, 1.0, math.inf), counts)

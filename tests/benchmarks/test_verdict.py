"""Tests which rows are compared and which marks they get; test_intervals.py tests the statistics themselves."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from comparison_samples import row
from interval_samples import smyth
from scipy import stats

from benchmarks.summaries.verdict import ranking, summarise, tables, write_summaries
from benchmarks.words.wording import value_text


def by_row(measurements, **options):
    return {(s.pretext, s.metric): s for s in summarise(measurements, **options)}


def test_the_paired_difference_of_known_normals_has_the_right_mean_and_width():
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 20, 2000)  # shared by both rows: cancels in the pairs
    measurements = [row("random", 50 + hard), row("rotation", 51 + hard + rng.normal(0, 2, 2000))]
    found = by_row(measurements)["rotation", "top1"]
    assert found.difference == pytest.approx(1, abs=0.15)
    width = found.difference_high - found.difference_low
    assert width == pytest.approx(2 * 1.961 * 2 / math.sqrt(2000), rel=0.05)
    assert found.distinguishable is True
    assert found.better is True
    # the row's own interval is ten times as wide: unpaired, the difference would not be significant
    assert found.high - found.low > 9 * width


def test_identical_rows_have_a_difference_of_exactly_zero():
    measurements = [row(name, [0, 100, 100], seed=seed) for name in ("random", "rotation") for seed in range(3)]
    found = by_row(measurements)["rotation", "top1"]
    assert (found.difference, found.difference_low, found.difference_high) == (0.0, 0.0, 0.0)
    assert found.distinguishable is False
    assert found.better is None


def test_a_lower_loss_is_better():
    measurements = [
        row(name, items, higher_is_better=False, metric="L1")
        for name, items in (("random", [1.0, 2.0, 3.0]), ("rotation", [0.1, 0.9, 2.0]))
    ]
    found = by_row(measurements)["rotation", "L1"]
    assert found.difference == pytest.approx(-1)
    assert found.better is True


def test_noise_is_not_distinguishable():
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(200):
        measurements = [row(name, rng.normal(50, 10, 50), seed=seed) for name in ("random", "x") for seed in (0, 1)]
        wrong += bool(by_row(measurements)["x", "top1"].distinguishable)
    assert wrong / 200 < 0.08


def test_without_random_or_with_a_single_number_there_is_no_interval():
    alone = by_row([row("rotation", [1, 2, 3])])["rotation", "top1"]
    assert (alone.difference, alone.distinguishable) == (None, None)
    one_seed = by_row([row("random", value=1.0), row("rotation", value=5.0)])["rotation", "top1"]
    assert (one_seed.difference, one_seed.distinguishable) == (4.0, None)
    assert (one_seed.p, one_seed.survives_holm, one_seed.detectable) == (None, None, None)


def test_only_common_seeds_are_paired():
    measurements = [row("random", [0, 0, 0]), row("x", [1, 1, 1]), row("x", [9, 9, 9], seed=1)]
    found = by_row(measurements)["x", "top1"]
    assert (found.mean, found.seeds, found.difference) == (5.0, 2, 1.0)


def test_other_metrics_are_read_at_the_headline_s_stage():
    measurements = [
        row("random", value=30.0, stage="conv1", headline=False),
        row("random", value=20.0, stage="conv2"),  # chosen on val, though conv1 is better on test
        row("random", value=3.0, stage="conv1", metric="top5", headline=False),
        row("random", value=2.0, stage="conv2", metric="top5", headline=False),
        row("random", value=9.0, stage="conv3", metric="top5", headline=False),
    ]
    found = by_row(measurements)
    assert found["random", "top1"].mean == 20.0
    assert found["random", "top5"].mean == 2.0


def test_the_latest_of_two_measurements_of_one_seed_counts():
    measurements = [
        row("random", value=1.0, started_at="2026-01-02T00:00:00+00:00", cell="b"),
        row("random", value=9.0, started_at="2026-01-01T00:00:00+00:00", cell="a"),
    ]
    assert by_row(measurements)["random", "top1"].mean == 1.0


def test_another_baseline_can_be_chosen():
    measurements = [row(name, value=value) for name, value in (("random", 1.0), ("x", 5.0), ("y", 7.0))]
    assert by_row(measurements, baseline="x")["y", "top1"].difference == 2.0


def test_summaries_are_in_the_fixed_order_with_headlines_first():
    measurements = [
        row("simclr", value=4.0),
        row("zebra", value=5.0),
        row("random", value=1.0),
        row("supervised", value=2.0),
        row("random", value=9.0, probe="knn"),
        row("random", value=7.0, probe="linear", metric="top5", headline=False),
    ]
    assert [(s.pretext, s.probe, s.metric, s.mean) for s in summarise(measurements)] == [
        ("random", "linear", "top1", 1.0),
        ("random", "linear", "top5", 7.0),
        ("random", "knn", "top1", 9.0),
        ("supervised", "linear", "top1", 2.0),
        ("simclr", "linear", "top1", 4.0),
        ("zebra", "linear", "top1", 5.0),
    ]


def test_unequal_numbers_of_items_fall_back_to_the_seeds():
    ragged = {0: row("x", [1, 1, 1]), 1: row("x", [3], seed=1)}
    (found,) = tables(ragged)
    assert found.tolist() == [[1.0], [3.0]]


def test_tables_hold_the_common_seeds_in_the_same_order():
    first = {seed: row("x", [seed, seed], seed=seed) for seed in (2, 0, 1)}
    second = {seed: row("y", [10 * seed, 0], seed=seed) for seed in (1, 2)}
    found = tables(first, second)
    assert found[0].tolist() == [[2.0, 2.0], [1.0, 1.0]]
    assert found[1].tolist() == [[20.0, 0.0], [10.0, 0.0]]


def noise(rng, mean, count=400):
    return list(rng.normal(mean, 10, count))


def many(rng, means, probes=("linear", "knn", "svm"), seeds=1, **fields):
    return [
        row(name, noise(rng, mean), probe=probe, seed=seed, **fields)
        for name, mean in means.items()
        for probe in probes
        for seed in range(seeds)
    ]


def test_holm_keeps_large_differences_and_drops_chance_ones():
    rng = np.random.default_rng(3)
    equal = {f"row{i}": 50 for i in range(30)}
    probes = [f"probe{i}" for i in range(6)]
    found = [s for s in summarise(many(rng, {"random": 50, "x": 60, **equal}, probes)) if s.p is not None]
    assert len(found) == 31 * 6
    assert [s.pretext for s in found if s.survives_holm] == ["x"] * 6
    by_chance = [s for s in found if s.distinguishable and s.pretext != "x"]
    assert 0 < len(by_chance) < 30


def test_holm_is_over_headlines_alone():
    measurements = [
        row(name, noise(np.random.default_rng(seed), mean), metric=metric, headline=metric == "top1")
        for seed, (name, mean) in enumerate({"random": 50, "x": 60}.items())
        for metric in ("top1", "top5")
    ]
    found = by_row(measurements)
    assert found["x", "top1"].survives_holm is True
    assert found["x", "top5"].survives_holm is None
    assert found["x", "top5"].distinguishable is True
    assert found["random", "top1"].survives_holm is None


@pytest.mark.parametrize("sign", [1, -1])
def test_the_share_goes_from_random_to_supervised_for_scores_and_losses(sign):
    rng = np.random.default_rng(4)
    hard = rng.normal(0, 5, 2000)
    at = {"random": 20, "supervised": 60, "x": 30}
    measurements = [
        row(name, sign * (mean + hard + rng.normal(0, 3, 2000)), seed=seed, higher_is_better=sign > 0)
        for name, mean in at.items()
        for seed in range(3)
    ]
    found = by_row(measurements)
    x = found["x", "top1"]
    assert x.share == pytest.approx(0.25, abs=0.01)
    assert x.share_low < 0.25 < x.share_high
    assert x.share_high - x.share_low < 0.05
    assert found["random", "top1"].share is None
    assert found["supervised", "top1"].share is None
    # the gap starts at random weights whatever the baseline
    assert by_row(measurements, baseline="supervised")["x", "top1"].share == x.share


def test_a_gap_that_is_not_significant_has_no_share():
    rng = np.random.default_rng(5)
    unsure = by_row([row(name, noise(rng, 50)) for name in ("random", "supervised", "x")])["x", "top1"]
    same = by_row([row(name, value=1.0) for name in ("random", "supervised", "x")])["x", "top1"]
    for found in (unsure, same):
        assert (found.share, found.share_low, found.share_high) == (None, None, None)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_negative_gap_has_no_share(higher_is_better):
    rng, at = np.random.default_rng(6), {"random": 40, "supervised": 20, "x": 26}
    measurements = [
        row(name, noise(rng, mean if higher_is_better else -mean), seed=seed, higher_is_better=higher_is_better)
        for name, mean in at.items()
        for seed in range(3)
    ]
    found = by_row(measurements)
    assert found["supervised", "top1"].better is False  # significant, but in the wrong direction
    x = found["x", "top1"]
    assert (x.share, x.share_low, x.share_high) == (None, None, None)


def test_rows_of_a_probe_have_moderated_variances_but_the_references_have_not():
    rng, seeds = np.random.default_rng(7), 3
    tasks = ("a", "b", "c", "d", "e")
    values = {name: rng.normal(50, 2, seeds) for name in ("random", "supervised", *tasks)}
    found = by_row([row(name, value=v, seed=seed) for name, of in values.items() for seed, v in enumerate(of)])

    def halves(tables):
        """Yield half-widths by Smyth's formulas; noisier rows are shrunk less."""
        squares = {name: table.var(ddof=1) for name, table in tables.items()}
        variance, df = smyth(list(squares.values()), seeds - 1)
        for name, own in squares.items():
            prior_df = min(df, seeds - 1) * min(1, variance / own)
            moderated = ((seeds - 1) * own + prior_df * variance) / (seeds - 1 + prior_df)
            yield name, stats.t.ppf(0.975, seeds - 1 + prior_df) * math.sqrt(moderated / seeds)

    for name, half in halves({name: values[name] for name in tasks}):
        assert found[name, "top1"].high - found[name, "top1"].mean == pytest.approx(half, rel=1e-4)
    for name, half in halves({name: values[name] - values["random"] for name in tasks}):
        assert found[name, "top1"].difference_high - found[name, "top1"].difference == pytest.approx(half, rel=1e-4)
    for name in ("random", "supervised"):
        unmoderated = stats.t.ppf(0.975, 2) * values[name].std(ddof=1) / math.sqrt(3)
        assert found[name, "top1"].high - found[name, "top1"].mean == pytest.approx(unmoderated)
    half = (values["supervised"] - values["random"]).std(ddof=1) / math.sqrt(3) * stats.t.ppf(0.975, 2)
    supervised = found["supervised", "top1"]
    assert supervised.difference_high - supervised.difference == pytest.approx(half)


def test_the_plain_paired_t_stands_beside_ours(tmp_path):
    rng, seeds = np.random.default_rng(3), range(4)
    values = {name: [noise(rng, 50 + shift) for _ in seeds] for name, shift in (("random", 0), ("x", 2), ("y", 0))}
    summaries = summarise([row(name, items, seed=seed) for name, of in values.items() for seed, items in enumerate(of)])
    path = write_summaries(tmp_path, summaries)
    with path.open(newline="") as file:
        lines = {line["pretext"]: line for line in csv.DictReader(file)}
    assert lines.keys() == values.keys() and lines["random"]["plain_p"] == ""
    for name in ("x", "y"):
        means = ([np.mean(items) for items in values[each]] for each in (name, "random"))
        assert float(lines[name]["plain_p"]) == pytest.approx(stats.ttest_rel(*means).pvalue)
        assert float(lines[name]["p"]) != pytest.approx(float(lines[name]["plain_p"]))
    one_seed = summarise([row("random", [1.0, 2.0]), row("x", [3.0, 5.0])])
    assert [summary.plain_p for summary in one_seed] == [None, None]


@pytest.mark.parametrize(("seeds", "own"), [(5, False), (6, True)])
def test_from_six_seeds_on_an_interval_does_not_depend_on_the_other_rows(seeds, own):
    rng = np.random.default_rng(9)
    values = {name: rng.normal(50, 2, seeds) for name in ("random", "a", "b", "c", "d", "e")}

    def ends(noise):
        rows = values | {name: 50 + noise * (values[name] - 50) for name in "bcde"}
        found = by_row([row(name, value=v, seed=seed) for name, of in rows.items() for seed, v in enumerate(of)])
        one = found["a", "top1"]
        return one.high, one.difference_high

    half = stats.t.ppf(0.975, seeds - 1) * (values["a"] - values["random"]).std(ddof=1) / math.sqrt(seeds)
    difference = (values["a"] - values["random"]).mean()
    assert (ends(0.2) == pytest.approx(ends(1.0))) == own
    assert (ends(0.2)[1] == pytest.approx(difference + half)) == own


def test_rows_with_other_numbers_of_seeds_are_not_moderated_together():
    rng = np.random.default_rng(8)
    usual = [row(name, value=rng.normal(50, 2), seed=seed) for name in ("a", "b", "c") for seed in range(3)]
    shorter = [row("d", value=value, seed=seed) for seed, value in enumerate((50.0, 51.0))]
    found = by_row(usual + shorter)["d", "top1"]
    assert found.high - found.mean == pytest.approx(12.7062 * 0.5, rel=1e-5)


def test_the_detectable_difference_is_one_per_probe_and_falls_with_items_and_seeds():
    rng = np.random.default_rng(6)
    means = {"random": 50, "x": 50, "y": 50, "supervised": 70}

    def smallest(seeds, items):
        measurements = [
            row(name, noise(rng, mean + shift, items), seed=seed)
            for name, mean in means.items()
            for seed, shift in enumerate(rng.normal(0, 0.5, seeds))
        ]
        found = {s.detectable for s in summarise(measurements)}
        assert len(found) == 1
        return found.pop()

    assert smallest(2, 100) > smallest(3, 100) > smallest(3, 2000)
    # one seed, by hand: (1.96 + 0.84) · sd of a difference / sqrt(n)
    assert smallest(1, 2000) == pytest.approx(2.80 * 10 * math.sqrt(2 / 2000), rel=0.05)


def test_mean_ranks_are_over_the_probes_of_random_weights_and_rows_that_have_all_of_them():
    rng = np.random.default_rng(7)
    measurements = many(rng, {"random": 30, "x": 50, "supervised": 80})
    measurements += [row("x", value=9.0, probe="inpainting", metric="PSNR")]  # random weights have no decoder
    measurements += [row("y", value=99.0, probe="linear")]  # one probe of three
    found = ranking(summarise(measurements))
    assert found.ranks == {"supervised": 1.0, "x": 2.0, "random": 3.0}
    assert found.probes == ("linear", "knn", "svm")


def test_the_lowest_loss_ranks_first_and_two_probes_give_no_ranking():
    rng = np.random.default_rng(8)
    losses = many(rng, {"random": 30, "x": 50}, higher_is_better=False)
    assert list(ranking(summarise(losses)).ranks) == ["random", "x"]
    assert ranking(summarise(many(rng, {"random": 30, "x": 50}, probes=("linear", "knn")))) is None
    assert ranking(summarise(many(rng, {"x": 50, "y": 50}))) is None


def test_small_numbers_have_the_digits_of_their_intervals(tmp_path):
    rng = np.random.default_rng(0)
    errors = {"random": 0.05, "rotation": 0.04}
    found = summarise(
        row(name, mean + rng.normal(0, 0.01, 50), metric="mse", unit="", seed=seed, higher_is_better=False)
        for name, mean in errors.items()
        for seed in range(2)
    )
    widest = max((s.high - s.low) / 2 for s in found)
    assert {s.digits for s in found} == {1 - math.floor(math.log10(widest))} and found[0].digits >= 3
    assert value_text(found[1]).startswith(f"{found[1].mean:.{found[1].digits}f} ±0.0")
    assert "digits" not in write_summaries(tmp_path, found).read_text()
    wide = summarise(row(name, mean + rng.normal(0, 9, 50)) for name, mean in (("random", 50), ("rotation", 0)))
    assert {s.digits for s in wide} == {1}

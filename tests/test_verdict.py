"""Means, intervals and differences against normals that are known, and a small simulation of coverage."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from benchmarks.results import SCHEMA_VERSION, Measurement
from benchmarks.verdict import interval, summarise, table

BLANK = Measurement(
    schema_version=SCHEMA_VERSION,
    cell="random.linear.s0.00000000",
    pretext="random",
    encoder="alexnet",
    pretrain_data="",
    images_seen=0,
    probe="linear",
    stage="conv3",
    data="scenes",
    data_fingerprint="f",
    split="test",
    metric="top1",
    value=0.0,
    unit="%",
    higher_is_better=True,
    chance=10.0,
    n=3,
    headline=True,
    seed=0,
    wall_s=1.0,
    peak_mem_bytes=1,
    device="cpu",
    config_json="{}",
    encoder_sha256="",
    git_sha="",
    git_dirty=False,
    torch_version="",
    started_at="2026-01-01T00:00:00+00:00",
)


def row(pretext, items=None, *, seed=0, value=None, **fields):
    items = None if items is None else [float(item) for item in items]
    value = float(np.mean(items)) if value is None else value
    cell = fields.pop("cell", f"{pretext}.{fields.get('probe', 'linear')}.s{seed}.00000000")
    return dataclasses.replace(
        BLANK,
        pretext=pretext,
        items=items,
        value=value,
        seed=seed,
        cell=cell,
        n=len(items or "123"),
        **fields,
    )


def by_row(measurements, **options):
    return {(s.pretext, s.metric): s for s in summarise(measurements, **options)}


def test_one_seed_gives_the_classic_t_interval_of_the_items():
    items = [1.0, 2.0, 3.0, 4.0]
    found = interval([2.5], [items])
    # t(0.975, 3) = 3.182446 from printed tables; sd = sqrt(5/3)
    half = 3.182446 * math.sqrt(5 / 3) / 2
    assert found.mean == 2.5
    assert found.high - found.mean == pytest.approx(half, rel=1e-6)
    assert found.mean - found.low == pytest.approx(half, rel=1e-6)


def test_without_items_the_seeds_alone_make_the_interval():
    found = interval([10.0, 12.0], [None, None])
    # sd = sqrt(2), / sqrt(2) = 1; t(0.975, 1) = 12.7062
    assert found.high == pytest.approx(11 + 12.7062, abs=1e-4)


def test_one_number_has_no_interval():
    found = interval([10.0], [None])
    assert (found.low, found.high) == (None, None)


def test_ragged_items_fall_back_to_the_seeds():
    assert interval([1.0, 3.0], [[1.0, 1.0], [3.0]]) == interval([1.0, 3.0], [None, None])


@pytest.mark.parametrize(("seeds", "seed_sd", "item_sd"), [(3, 2.0, 10.0), (3, 0.0, 10.0), (1, 0.0, 10.0)])
def test_intervals_cover_the_truth_nineteen_times_in_twenty(seeds, seed_sd, item_sd):
    rng, n, trials = np.random.default_rng(0), 60, 600
    covered = 0
    for _ in range(trials):
        table_ = 50 + rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, item_sd, (1, n)) + rng.normal(0, 5, (seeds, n))
        found = interval(list(table_.mean(axis=1)), [list(each) for each in table_])
        covered += found.low <= 50 <= found.high
    assert covered / trials > 0.93


def test_the_paired_difference_of_known_normals_is_found_and_its_width_is_right():
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 20, 2000)  # what both rows share: it cancels in the pairs
    measurements = [row("random", 50 + hard), row("rotation", 51 + hard + rng.normal(0, 2, 2000))]
    found = by_row(measurements)["rotation", "top1"]
    assert found.difference == pytest.approx(1, abs=0.15)
    width = found.difference_high - found.difference_low
    assert width == pytest.approx(2 * 1.961 * 2 / math.sqrt(2000), rel=0.05)
    assert found.distinguishable is True
    assert found.better is True
    # the row's own interval is ten times as wide: unpaired, nothing could be said
    assert found.high - found.low > 9 * width


def test_identical_rows_differ_by_exactly_nothing():
    measurements = [row(name, [0, 100, 100], seed=seed) for name in ("random", "rotation") for seed in range(3)]
    found = by_row(measurements)["rotation", "top1"]
    assert (found.difference, found.difference_low, found.difference_high) == (0.0, 0.0, 0.0)
    assert found.distinguishable is False
    assert found.better is None


def test_a_lower_loss_is_better():
    measurements = [
        row(name, [x + shift for x in (1.0, 2.0, 3.0)], higher_is_better=False, metric="L1")
        for name, shift in (("random", 0.0), ("rotation", -1.0))
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


def test_without_random_or_with_one_seed_of_a_non_mean_nothing_is_claimed():
    alone = by_row([row("rotation", [1, 2, 3])])["rotation", "top1"]
    assert (alone.difference, alone.distinguishable) == (None, None)
    one_seed = by_row([row("random", value=1.0), row("rotation", value=5.0)])["rotation", "top1"]
    assert (one_seed.difference, one_seed.distinguishable) == (4.0, None)


def test_only_common_seeds_are_paired():
    measurements = [row("random", [0, 0, 0]), row("x", [1, 1, 1]), row("x", [9, 9, 9], seed=1)]
    found = by_row(measurements)["x", "top1"]
    assert (found.mean, found.seeds, found.difference) == (5.0, 2, 1.0)


def test_the_headline_s_stage_is_read_for_other_metrics_too():
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


def test_the_table_has_headlines_in_the_fixed_order():
    measurements = [
        row("simclr", value=4.0),
        row("zebra", value=5.0),
        row("random", value=1.0),
        row("supervised", value=2.0),
        row("random", value=9.0, probe="knn"),
        row("random", value=7.0, probe="linear", metric="top5", headline=False),
    ]
    found = table(summarise(measurements))
    assert list(found.index) == ["random", "supervised", "simclr", "zebra"]
    assert list(found.columns) == ["linear", "knn"]
    assert found.loc["random"].tolist() == [1.0, 9.0]
    assert math.isnan(found.loc["simclr", "knn"])

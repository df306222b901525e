"""Tests each statistic against a printed table, a textbook formula, scipy, or a simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from interval_samples import smyth
from scipy import stats

from benchmarks.interval_simulation import simulation as coverage
from benchmarks.summaries.intervals import (
    NO_PRIOR,
    OWN_SEEDS,
    VariancePrior,
    detectable_difference,
    fit_variance_prior,
    gap_shares,
    half_width,
    holm,
    interval,
    mean_squares,
)
from benchmarks.summaries.ranks import rank


def test_one_seed_gives_the_classic_t_interval_of_the_items():
    found = interval(np.array([[1.0, 2.0, 3.0, 4.0]]))
    # t(0.975, 3) = 3.182446 from printed tables; sd = sqrt(5/3)
    half = 3.182446 * math.sqrt(5 / 3) / 2
    assert found.mean == 2.5
    assert found.high - found.mean == pytest.approx(half, rel=1e-6)
    assert found.mean - found.low == pytest.approx(half, rel=1e-6)
    assert found.p == pytest.approx(stats.ttest_1samp([1, 2, 3, 4], 0).pvalue)


def test_without_items_the_interval_comes_from_the_seeds():
    found = interval(np.array([[10.0], [12.0]]))
    # sd = sqrt(2), / sqrt(2) = 1; t(0.975, 1) = 12.7062
    assert found.high == pytest.approx(11 + 12.7062, abs=1e-4)
    assert found.p == pytest.approx(stats.ttest_1samp([10, 12], 0).pvalue)


@pytest.mark.parametrize("cells", [[[10.0]], [[0.0]], [[7.0, 7.0], [7.0, 7.0]]])
def test_a_single_number_or_equal_numbers_have_no_interval(cells):
    found = interval(np.array(cells))
    assert (found.low, found.high, found.p) == (None, None, None)


@pytest.mark.parametrize("pairs", [((0.3, 0.1), (0.4, 0.2), (0.5, 0.3)), ((500 / 7, 300 / 7), (300 / 7, 100 / 7))])
def test_rounding_is_no_variation(pairs):
    found = interval(np.array([[one - other] for one, other in pairs]))
    assert (found.low, found.high, found.p) == (None, None, None)
    tiny = interval(1e-12 * np.array([[1.0], [2.0], [4.0]]))  # small numbers vary all the same
    assert tiny.p == pytest.approx(interval(np.array([[1.0], [2.0], [4.0]])).p)


def test_zeros_have_an_empty_interval_at_zero():
    found = interval(np.zeros((2, 5)))
    assert (found.mean, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_mean_squares_by_hand():
    # seed means 2 and 4; item means 2, 3 and 4; grand mean 3
    cells = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]])
    assert mean_squares(cells).tolist() == [6.0, 2.0, 0.0]
    # one cell + 6: seed mean + 2, item mean + 3, grand mean + 1, residuals ±(1, 1, 2)
    cells[1, 2] += 6
    assert mean_squares(cells).tolist() == pytest.approx([24.0, 14.0, 6.0])


def test_a_batch_of_tables_gives_the_same_as_single_tables():
    many = np.random.default_rng(0).normal(3, 1, (4, 3, 7))
    halves = half_width(mean_squares(many), 3, 7)
    for cells, half in zip(many, halves, strict=True):
        found = interval(cells)
        assert found.high - found.mean == pytest.approx(half)


def quantile(df, alpha=0.05):
    return stats.t.ppf(1 - alpha / 2, df)


def test_each_mean_square_has_its_own_quantile_and_the_residual_is_subtracted_once():
    squares = np.array([10.0, 6.0, 4.0])
    for alpha in (0.5, 0.065):  # in full
        half = half_width(squares, 5, 100, alpha=alpha)
        expected = quantile(99, alpha) ** 2 * 6 + quantile(4, alpha) ** 2 * (10 - 4)
        assert half**2 * 500 == pytest.approx(expected)
    # for small alpha: the residual in both mean squares counts with the quantile of the items
    half = half_width(squares, 5, 100, alpha=1e-9)
    assert half**2 * 500 == pytest.approx(quantile(99, 1e-9) ** 2 * (6 - 4) + quantile(4, 1e-9) ** 2 * 10)
    # in between: interpolated on a logarithmic scale
    share = (quantile(99) / quantile(4)) ** (2 * (1 - 0.05 / 0.065))
    assert half_width(squares, 5, 100) ** 2 * 500 == pytest.approx(
        quantile(99) ** 2 * 6 + quantile(4) ** 2 * (10 - share * 4)
    )


def test_no_mean_square_counts_as_less_than_the_residual():
    items_only = quantile(99) ** 2 * 6
    assert half_width(np.array([0.1, 6.0, 4.0]), 5, 100) ** 2 * 500 == pytest.approx(items_only)
    assert half_width(np.array([0.1, 0.2, 6.0]), 5, 100) ** 2 * 500 == pytest.approx(items_only)
    half = half_width(np.array([9.0, 6.0, 4.0]), 9, 3)  # three items have a larger quantile than nine seeds
    assert half**2 * 27 == pytest.approx(quantile(2) ** 2 * 6 + quantile(8) ** 2 * (9 - 4))


@pytest.mark.parametrize("crossed", [True, False])
def test_the_sum_is_the_variance_of_the_mean_for_crossed_and_for_nested_items(crossed):
    rng, trials, seeds, items = np.random.default_rng(1), 2000, 40, 60
    cells = rng.normal(0, 1, (trials, seeds, 1)) + rng.normal(0, 2, (trials, seeds, items))
    cells += rng.normal(0, 3, (trials, 1 if crossed else seeds, items))
    truth = 1 / seeds + 9 / (items if crossed else items * seeds) + 4 / (seeds * items)
    assert cells.mean(axis=(1, 2)).var() == pytest.approx(truth, rel=0.1)
    half = half_width(mean_squares(cells), seeds, items, alpha=0.065)
    assert np.mean(half**2) / quantile(45, 0.065) ** 2 == pytest.approx(truth, rel=0.05)


def missed(seeds, between_items, ratio, alpha):
    """Return the miss rate over all draws of the mean square between seeds; residual 1, many items."""
    quantiles = (np.arange(4000) + 0.5) / 4000
    between_seeds = ratio * stats.chi2.ppf(quantiles, seeds - 1) / (seeds - 1)
    squares = np.stack([between_seeds, np.full(4000, 1 + between_items), np.ones(4000)])
    sd = math.sqrt((between_items + ratio) / (seeds * 10**6))
    return 2 * stats.norm.sf(half_width(squares, seeds, 10**6, alpha=alpha) / sd).mean()


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("between_items", [0.0, 0.3, 2.0])
def test_for_small_alpha_no_interval_undercovers_whatever_the_variance_between_seeds(seeds, between_items):
    for ratio in (1, 1.5, 3, 10, 30, 100, 1000):
        for alpha in (1e-3, 1e-4):
            assert missed(seeds, between_items, ratio, alpha) < 1.01 * alpha


@pytest.mark.parametrize(("seeds", "most"), [(3, 0.07), (4, 0.065), (5, 0.063), (10, 0.058)])
def test_without_moderation_about_five_percent_are_missed_whatever_the_variance_between_seeds(seeds, most):
    for between_items in (0.1, 0.3, 1.0, 2.0):
        for ratio in (1, 1.5, 3, 10, 30, 100, 1000):
            assert 0.024 < missed(seeds, between_items, ratio, 0.05) < most


def test_the_p_value_is_the_alpha_whose_interval_ends_at_zero():
    rng = np.random.default_rng(17)
    for shift in (0.02, 0.5, 1.0, 3.0):
        cells = rng.normal(shift, 1, (3, 200)) + rng.normal(0, 0.2, (3, 1))
        found, squares = interval(cells), mean_squares(cells)
        assert half_width(squares, 3, 200, alpha=found.p) == pytest.approx(abs(found.mean), rel=1e-6)
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    assert interval(rng.normal(1e9, 1, (1, 5000))).p == pytest.approx(1e-100)
    balanced = rng.normal(0, 1, (3, 200))
    assert interval(balanced - balanced.mean()).p == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("factor", [1.0, 50.0])
def test_the_variance_prior_is_smyth_s_estimate_with_bounded_degrees_of_freedom(seeds, factor):
    own = seeds - 1
    tables = np.random.default_rng(6).chisquare(own, (20, 7)) * ([1.0] * 4 + [factor] * 3)
    tables = tables[tables.min(axis=1) > np.median(tables, axis=1) / 1000]  # ties have their own test
    prior = fit_variance_prior(tables, seeds)
    oracle = [smyth(row, own) for row in tables]
    assert prior.variance[:, 0] == pytest.approx([variance for variance, _ in oracle], rel=1e-4)
    assert prior.df[:, 0] == pytest.approx([min(d0, own) for _, d0 in oracle])
    if factor > 1 and seeds == 5:
        assert (prior.df < own).mean() > 0.5  # unequal rows give a weaker prior


def test_the_variance_prior_recovers_the_parameters_of_simulated_rows():
    rng, own = np.random.default_rng(7), 4
    truth = 3 * 2.0 / rng.chisquare(3, 200_000)  # s0² = 2 with d0 = 3
    found = fit_variance_prior(truth * rng.chisquare(own, truth.size) / own, own + 1)
    assert found.variance.item() == pytest.approx(2, rel=0.03)
    assert found.df.item() == pytest.approx(3, rel=0.03)


def test_noisier_rows_are_shrunk_less_and_moderation_adds_degrees_of_freedom():
    prior = VariancePrior(np.array(10.0), np.array(2.0))
    squares = np.array([[4.0, 10.0, 40.0], [0.0] * 3, [0.0] * 3])
    half = half_width(squares, 3, 1, prior)
    # (2·4 + 2·10)/4, (2·10 + 2·10)/4 and, with 2·10/40 = 0.5 prior degrees of freedom, (2·40 + 0.5·10)/2.5
    assert 3 * half**2 == pytest.approx(np.array([7, 10, 34]) * quantile(np.array([4, 4, 2.5])) ** 2)
    # with items: as if there were five seeds
    squares = np.array([10.0, 6.0, 4.0])
    assert 3 * half_width(squares, 3, 100, prior) ** 2 == pytest.approx(5 * half_width(squares, 5, 100) ** 2)


def test_many_seeds_are_not_moderated_and_their_power_is_that_of_the_plain_t_test():
    squares = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert fit_variance_prior(squares, OWN_SEEDS).df.item() == 0 < fit_variance_prior(squares, OWN_SEEDS - 1).df.item()
    found = detectable_difference(np.array([6.0, 0.0, 0.0]), OWN_SEEDS, 1, rows=9)
    alone = stats.nct.sf(stats.t.ppf(0.975, OWN_SEEDS - 1), OWN_SEEDS - 1, found * math.sqrt(OWN_SEEDS / 6.0))
    assert alone == pytest.approx(0.8, abs=0.01)


def test_fewer_than_four_rows_are_not_moderated():
    squares = np.random.default_rng(8).chisquare(2, (3, 5, 3))
    prior = fit_variance_prior(squares[0], 4)
    assert prior.df.tolist() == [[0.0]] * 5
    assert half_width(squares, 4, 9, prior).tolist() == half_width(squares, 4, 9).tolist()


def test_one_seed_or_rows_without_variance_give_no_prior():
    assert fit_variance_prior(np.zeros((5, 6)), 1).df.tolist() == [[0.0]] * 5
    assert fit_variance_prior(np.zeros((5, 6)), 3).df.tolist() == [[0.0]] * 5
    assert fit_variance_prior(np.ones((5, 4)), 3).df.tolist() == [[2.0]] * 5


def test_tied_scores_do_not_shrink_the_prior_variance_to_zero():
    squares = np.array([0.0, 1.0, 2.0, 3.0, 1.5])
    tied, floored = fit_variance_prior(squares, 2), fit_variance_prior(np.maximum(squares, 0.0015), 2)
    assert (tied.variance, tied.df) == (floored.variance, floored.df)
    assert tied.variance > 0.01
    assert (half_width(np.stack([squares, np.zeros(5), np.zeros(5)]), 2, 1, tied) > 0).all()


def test_moderation_of_four_equal_rows_narrows_intervals_and_keeps_coverage():
    rng = np.random.default_rng(9)
    for seeds in (2, 3, 5):
        cells = rng.normal(0, 1, (4000, 4, seeds, 1))
        squares = mean_squares(cells)
        moderated = half_width(squares, seeds, 1, fit_variance_prior(squares[0], seeds))
        assert 0.94 < (abs(cells.mean(axis=(-1, -2))) <= moderated).mean() < 0.98
        assert moderated.mean() < 0.95 * half_width(squares, seeds, 1).mean()


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_share_of_the_gap_has_fieller_s_interval():
    rng = np.random.default_rng(2)
    gain, gap = rng.normal(2, 1, (6, 1)), rng.normal(10, 1, (6, 1))
    (found,) = gap_shares([gain], [gap])
    # Fieller's quadratic for means of pairs, t(0.975, 5)
    t2 = stats.t.ppf(0.975, 5) ** 2 / 6
    cov = np.cov(gain[:, 0], gap[:, 0])
    a = gap.mean() ** 2 - t2 * cov[1, 1]
    b = -2 * (gain.mean() * gap.mean() - t2 * cov[0, 1])
    c = gain.mean() ** 2 - t2 * cov[0, 0]
    assert [found.low, found.high] == pytest.approx(sorted(np.roots([a, b, c])))
    assert found.mean == pytest.approx(gain.mean() / gap.mean())


def test_an_interval_of_a_share_ends_where_the_difference_has_p_of_five_percent():
    rng = np.random.default_rng(3)
    gain, gap = rng.normal(3, 10, (3, 200)), rng.normal(20, 10, (3, 200))
    (found,) = gap_shares([gain], [gap])
    for end in (found.low, found.high):
        assert interval(gain - end * gap).p == pytest.approx(0.05, abs=1e-6)


def test_intervals_of_several_shares_end_where_the_moderated_difference_has_p_of_five_percent():
    rng = np.random.default_rng(3)
    gap, floor = rng.normal(20, 3, (3, 200)), rng.normal(0, 1, (3, 1))
    gains = [rng.normal(4 * i, 10, (3, 200)) + rng.normal(0, 2, (3, 1)) - floor for i in range(5)]
    together = gap_shares(gains, [gap] * 5)
    for i, found in enumerate(together):
        for end in (found.low, found.high):
            rest = [gain - end * gap for gain in gains]
            prior = fit_variance_prior(np.array([mean_squares(table)[0] for table in rest]), 3)
            assert interval(rest[i], prior).p == pytest.approx(0.05, abs=1e-6)
            assert interval(rest[i], NO_PRIOR).p != pytest.approx(0.05, abs=1e-3)


def test_a_gap_that_is_not_significant_or_negative_has_no_share():
    rng = np.random.default_rng(4)
    gain, unsure, down = rng.normal(1, 1, (3, 50)), rng.normal(0, 10, (3, 50)), rng.normal(-20, 1, (3, 50))
    found = gap_shares([gain] * 3, [unsure, down, -down])
    assert found[:2] == [None, None]
    assert found[2].low < gain.mean() / -down.mean() < found[2].high


def test_the_detectable_difference_of_seeds_alone_is_that_of_the_noncentral_t():
    found = detectable_difference(np.array([3.0, 0.0, 0.0]), 4, 1)
    critical = stats.t.ppf(0.975, 3)
    assert stats.nct.sf(critical, 3, found / math.sqrt(3 / 4)) == pytest.approx(0.8, abs=0.005)


def test_moderation_lowers_the_detectable_difference_and_keeps_its_power():
    squares, rng = np.array([3.0, 0.0, 0.0]), np.random.default_rng(10)
    for seeds in (2, 3, 5):
        difference = detectable_difference(squares, seeds, 1, 6)
        assert difference < 0.95 * detectable_difference(squares, seeds, 1)
        cells = rng.normal(difference, math.sqrt(3), (20_000, 6, seeds, 1))
        found = mean_squares(cells)
        halves = half_width(found, seeds, 1, fit_variance_prior(found[0], seeds))
        assert (cells.mean(axis=(-1, -2)) > halves).mean() == pytest.approx(0.8, abs=0.015)
    assert detectable_difference(squares, 3, 1, 3) == pytest.approx(detectable_difference(squares, 3, 1))


def test_the_detectable_difference_of_one_seed_is_that_of_the_normal():
    assert detectable_difference(np.array([0.0, 50.0, 0.0]), 1, 5000) == pytest.approx(
        (1.95996 + 0.84162) * 0.1, rel=1e-3
    )
    assert detectable_difference(np.zeros(3), 2, 10) is None


@pytest.mark.parametrize(
    ("rows", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031), (10, 3.164)]
)
def test_the_critical_difference_is_that_of_demsar_s_table(rows, q):
    scores = np.random.default_rng(0).normal(size=(14, rows))
    found = rank(scores, [str(i) for i in range(rows)], [str(i) for i in range(14)])
    assert found.critical_difference == pytest.approx(q * math.sqrt(rows * (rows + 1) / (6 * 14)), rel=1e-3)


def test_ties_share_ranks_and_the_p_value_is_friedman_s_with_iman_and_davenport_s_correction():
    scores = np.array([[9.0, 7, 7, 1], [8, 9, 3, 2], [7, 6, 5, 5], [9, 5, 6, 4], [4, 4, 4, 1]])
    found = rank(scores, list("abcd"), list("12345"))
    assert found.ranks == {"a": 1.4, "b": 2.1, "c": 2.6, "d": 3.9}  # by hand
    chi2 = stats.friedmanchisquare(*scores.T).statistic
    assert found.p == pytest.approx(stats.f.sf(4 * chi2 / (5 * 3 - chi2), 3, 12))
    assert found.ends("a") == (1.0, pytest.approx(1.4 + found.critical_difference / 2))
    assert rank(np.ones((3, 4)), list("abcd"), list("123")).p == 1.0
    assert rank(np.arange(8.0).reshape(2, 4), list("abcd"), list("12")).p == 0.0


def test_intervals_of_few_items_cover_the_truth():
    rng, trials = np.random.default_rng(5), 2000
    for seeds, sd in ((3, 2.0), (3, 0.0), (2, 1.0)):
        cells = 50 + rng.normal(0, sd, (trials, seeds, 1)) + rng.normal(0, 10, (trials, 1, 60))
        cells += rng.normal(0, 5, (trials, seeds, 60))
        covered = abs(cells.mean(axis=(1, 2)) - 50) <= half_width(mean_squares(cells), seeds, 60)
        assert covered.mean() > 0.93


@pytest.mark.slow
@pytest.mark.parametrize(("items", "sd"), [(1, 1.0), (500, 0.0), (500, 2.0), (2000, 1.0), (4000, 2.0)])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_coverage_and_false_positive_rate_of_equal_rows(seeds, items, sd):
    covered, marked = coverage.errors(np.random.default_rng(10), seeds, items, sd * coverage.EQUAL)
    assert 0.93 < covered[0].mean() < (0.985 if seeds == 2 else 0.972)
    assert 0.01 < marked[0].mean() < 0.07


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "sd"), [(3, 2.0), (5, 1.0), (5, 2.0)])
def test_with_variance_between_seeds_intervals_are_not_too_wide(seeds, sd):
    covered, marked = coverage.errors(np.random.default_rng(11), seeds, 4000, sd * coverage.EQUAL, trials=500)
    assert 0.93 < covered[0].mean() < 0.97
    assert 0.03 < marked[0].mean() < 0.07


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_a_row_five_times_as_noisy_has_more_false_positives_with_moderation(seeds):
    sds = 2.0 * coverage.UNEQUAL["one noisy"]
    _, marked = coverage.errors(np.random.default_rng(12), seeds, 500, sds, trials=2000)
    moderated, unmoderated = marked[:, -1]
    assert unmoderated < moderated < 0.12


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "sd"), [(2, 1.0), (3, 2.0), (5, 0.0)])
def test_the_detectable_difference_has_eighty_percent_power(seeds, sd):
    difference, power, unmoderated = coverage.power_at_detectable(np.random.default_rng(13), seeds, 500, sd)
    assert 0.75 < power < 0.85
    assert difference < 0.95 * unmoderated


@pytest.mark.slow
def test_coverage_of_shares():
    rng = np.random.default_rng(14)
    covered, defined = coverage.share_coverage(rng, 3, 500, 2.0, trials=500)
    assert covered > 0.93
    assert defined > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "sd"), [(2, 2.0), (3, 2.0), (5, 1.0)])
def test_a_table_without_differences_has_no_mark_after_holm(seeds, sd):
    uncorrected, corrected = coverage.holm_errors(
        np.random.default_rng(14), seeds, 4000, sd * coverage.EQUAL, trials=500
    )
    assert uncorrected > 0.3
    assert corrected < 0.05


@pytest.mark.slow
def test_false_positive_rates_of_the_rank_tests():
    overall, pairs = coverage.rank_errors(np.random.default_rng(15), trials=600)
    assert 0.02 < overall < 0.08
    assert pairs < 0.08

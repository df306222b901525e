"""Each statistic against a printed table, a textbook formula or scipy, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from interval_samples import smyth
from scipy import stats

from benchmarks.interval_simulation import simulation as coverage
from benchmarks.intervals import (
    ALONE,
    Loan,
    detectable,
    half_width,
    holm,
    interval,
    lend,
    mean_squares,
    rank,
    shares,
)


def test_one_seed_gives_the_classic_t_interval_of_the_items():
    found = interval(np.array([[1.0, 2.0, 3.0, 4.0]]))
    # t(0.975, 3) = 3.182446 from printed tables; sd = sqrt(5/3)
    half = 3.182446 * math.sqrt(5 / 3) / 2
    assert found.mean == 2.5
    assert found.high - found.mean == pytest.approx(half, rel=1e-6)
    assert found.mean - found.low == pytest.approx(half, rel=1e-6)
    assert found.p == pytest.approx(stats.ttest_1samp([1, 2, 3, 4], 0).pvalue)


def test_without_items_the_seeds_alone_make_the_interval():
    found = interval(np.array([[10.0], [12.0]]))
    # sd = sqrt(2), / sqrt(2) = 1; t(0.975, 1) = 12.7062
    assert found.high == pytest.approx(11 + 12.7062, abs=1e-4)
    assert found.p == pytest.approx(stats.ttest_1samp([10, 12], 0).pvalue)


@pytest.mark.parametrize("cells", [[[10.0]], [[0.0]], [[7.0, 7.0], [7.0, 7.0]]])
def test_one_number_or_many_that_are_the_same_have_no_interval(cells):
    found = interval(np.array(cells))
    assert (found.low, found.high, found.p) == (None, None, None)


def test_a_row_differs_from_itself_by_nothing():
    found = interval(np.zeros((2, 5)))
    assert (found.mean, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_mean_squares_by_hand():
    # means of seeds 2 and 4, of items 2, 3 and 4, of all 3
    cells = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]])
    assert mean_squares(cells).tolist() == [6.0, 2.0, 0.0]
    # one cell off by 6: it shifts its seed by 2, its item by 3, all by 1, and leaves ±(1, 1, 2) unexplained
    cells[1, 2] += 6
    assert mean_squares(cells).tolist() == pytest.approx([24.0, 14.0, 6.0])


def test_many_tables_at_once_give_what_each_gives():
    many = np.random.default_rng(0).normal(3, 1, (4, 3, 7))
    halves = half_width(mean_squares(many), 3, 7)
    for cells, half in zip(many, halves, strict=True):
        found = interval(cells)
        assert found.high - found.mean == pytest.approx(half)


def quantile(freedom, alpha=0.05):
    return stats.t.ppf(1 - alpha / 2, freedom)


def test_each_square_brings_its_own_quantile_and_the_noise_of_both_is_taken_off_one():
    squares = np.array([10.0, 6.0, 4.0])
    for alpha in (0.5, 0.065):  # all of it
        half = half_width(squares, 5, 100, alpha=alpha)
        expected = quantile(99, alpha) ** 2 * 6 + quantile(4, alpha) ** 2 * (10 - 4)
        assert half**2 * 500 == pytest.approx(expected)
    # so little, far out, that the quantile of the items would do for the noise in both
    half = half_width(squares, 5, 100, alpha=1e-9)
    assert half**2 * 500 == pytest.approx(quantile(99, 1e-9) ** 2 * (6 - 4) + quantile(4, 1e-9) ** 2 * 10)
    # in between, on a logarithmic scale
    share = (quantile(99) / quantile(4)) ** (2 * (1 - 0.05 / 0.065))
    assert half_width(squares, 5, 100) ** 2 * 500 == pytest.approx(
        quantile(99) ** 2 * 6 + quantile(4) ** 2 * (10 - share * 4)
    )


def test_neither_square_is_less_than_its_noise():
    alone = quantile(99) ** 2 * 6
    assert half_width(np.array([0.1, 6.0, 4.0]), 5, 100) ** 2 * 500 == pytest.approx(alone)
    assert half_width(np.array([0.1, 0.2, 6.0]), 5, 100) ** 2 * 500 == pytest.approx(alone)
    half = half_width(np.array([9.0, 6.0, 4.0]), 9, 3)  # three items: less sure than nine seeds
    assert half**2 * 27 == pytest.approx(quantile(2) ** 2 * 6 + quantile(8) ** 2 * (9 - 4))


@pytest.mark.parametrize("crossed", [True, False])
def test_what_is_summed_is_the_variance_of_the_mean_for_the_same_items_or_others_at_each_seed(crossed):
    rng, trials, seeds, items = np.random.default_rng(1), 2000, 40, 60
    cells = rng.normal(0, 1, (trials, seeds, 1)) + rng.normal(0, 2, (trials, seeds, items))
    cells += rng.normal(0, 3, (trials, 1 if crossed else seeds, items))
    truth = 1 / seeds + 9 / (items if crossed else items * seeds) + 4 / (seeds * items)
    assert cells.mean(axis=(1, 2)).var() == pytest.approx(truth, rel=0.1)
    half = half_width(mean_squares(cells), seeds, items, alpha=0.065)
    assert np.mean(half**2) / quantile(45, 0.065) ** 2 == pytest.approx(truth, rel=0.05)


def missed(seeds, between_items, ratio, alpha):
    """Return how often an interval misses, over all draws of the seeds' square; the noise is 1, items are many."""
    luck = (np.arange(4000) + 0.5) / 4000
    between_seeds = ratio * stats.chi2.ppf(luck, seeds - 1) / (seeds - 1)
    squares = np.stack([between_seeds, np.full(4000, 1 + between_items), np.ones(4000)])
    spread = math.sqrt((between_items + ratio) / (seeds * 10**6))
    return 2 * stats.norm.sf(half_width(squares, seeds, 10**6, alpha=alpha) / spread).mean()


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("between_items", [0.0, 0.3, 2.0])
def test_far_out_an_interval_is_never_too_narrow_however_far_seeds_lie_apart(seeds, between_items):
    for ratio in (1, 1.5, 3, 10, 30, 100, 1000):
        for alpha in (1e-3, 1e-4):
            assert missed(seeds, between_items, ratio, alpha) < 1.01 * alpha


@pytest.mark.parametrize(("seeds", "most"), [(3, 0.07), (4, 0.065), (5, 0.063), (10, 0.058)])
def test_a_row_alone_is_missed_about_one_time_in_twenty_however_far_seeds_lie_apart(seeds, most):
    for between_items in (0.1, 0.3, 1.0, 2.0):
        for ratio in (1, 1.5, 3, 10, 30, 100, 1000):
            assert 0.024 < missed(seeds, between_items, ratio, 0.05) < most


def test_a_p_value_is_where_the_interval_begins_to_leave_out_zero():
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
def test_a_loan_is_smyth_s_estimate_but_for_its_bound(seeds, factor):
    own = seeds - 1
    tables = np.random.default_rng(6).chisquare(own, (20, 7)) * ([1.0] * 4 + [factor] * 3)
    tables = tables[tables.min(axis=1) > np.median(tables, axis=1) / 1000]  # ties are another test's
    loans = lend(tables, seeds)
    oracle = [smyth(row, own) for row in tables]
    assert loans.square[:, 0] == pytest.approx([square for square, _ in oracle], rel=1e-4)
    assert loans.freedom[:, 0] == pytest.approx([min(d0, own) for _, d0 in oracle])
    if factor > 1 and seeds == 5:
        assert (loans.freedom < own).mean() > 0.5  # rows that differ lend less


def test_a_loan_finds_the_spread_that_squares_were_drawn_of():
    rng, own = np.random.default_rng(7), 4
    truth = 3 * 2.0 / rng.chisquare(3, 200_000)  # s0² = 2 with d0 = 3
    found = lend(truth * rng.chisquare(own, truth.size) / own, own + 1)
    assert found.square.item() == pytest.approx(2, rel=0.03)
    assert found.freedom.item() == pytest.approx(3, rel=0.03)


def test_a_row_takes_the_less_of_its_neighbours_the_noisier_it_is_and_gains_their_freedom():
    loan = Loan(np.array(10.0), np.array(2.0))
    squares = np.array([[4.0, 10.0, 40.0], [0.0] * 3, [0.0] * 3])
    half = half_width(squares, 3, 1, loan)
    # (2·4 + 2·10)/4, (2·10 + 2·10)/4 and, with 2·10/40 = 0.5 degrees lent, (2·40 + 0.5·10)/2.5
    assert 3 * half**2 == pytest.approx(np.array([7, 10, 34]) * quantile(np.array([4, 4, 2.5])) ** 2)
    # with items: as if there were five seeds
    squares = np.array([10.0, 6.0, 4.0])
    assert 3 * half_width(squares, 3, 100, loan) ** 2 == pytest.approx(5 * half_width(squares, 5, 100) ** 2)


def test_rows_without_three_neighbours_are_left_exactly_as_they_are_alone():
    squares = np.random.default_rng(8).chisquare(2, (3, 5, 3))
    loan = lend(squares[0], 4)
    assert loan.freedom.tolist() == [[0.0]] * 5
    assert half_width(squares, 4, 9, loan).tolist() == half_width(squares, 4, 9).tolist()


def test_neither_one_seed_nor_rows_without_any_spread_lend():
    assert lend(np.zeros((5, 6)), 1).freedom.tolist() == [[0.0]] * 5
    assert lend(np.zeros((5, 6)), 3).freedom.tolist() == [[0.0]] * 5
    assert lend(np.ones((5, 4)), 3).freedom.tolist() == [[2.0]] * 5


def test_scores_that_tie_do_not_make_their_neighbours_certain():
    squares = np.array([0.0, 1.0, 2.0, 3.0, 1.5])
    tied, small = lend(squares, 2), lend(np.maximum(squares, 0.0015), 2)
    assert (tied.square, tied.freedom) == (small.square, small.freedom)
    assert tied.square > 0.01
    assert (half_width(np.stack([squares, np.zeros(5), np.zeros(5)]), 2, 1, tied) > 0).all()


def test_four_rows_of_equal_spread_hold_their_means_with_narrower_intervals():
    rng = np.random.default_rng(9)
    for seeds in (2, 3, 5):
        cells = rng.normal(0, 1, (4000, 4, seeds, 1))
        squares = mean_squares(cells)
        lent = half_width(squares, seeds, 1, lend(squares[0], seeds))
        assert 0.94 < (abs(cells.mean(axis=(-1, -2))) <= lent).mean() < 0.98
        assert lent.mean() < 0.95 * half_width(squares, seeds, 1).mean()


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_share_has_fieller_s_interval():
    rng = np.random.default_rng(2)
    gain, span = rng.normal(2, 1, (6, 1)), rng.normal(10, 1, (6, 1))
    (found,) = shares([gain], [span])
    # Fieller's quadratic for means of pairs, t(0.975, 5)
    t2 = stats.t.ppf(0.975, 5) ** 2 / 6
    cov = np.cov(gain[:, 0], span[:, 0])
    a = span.mean() ** 2 - t2 * cov[1, 1]
    b = -2 * (gain.mean() * span.mean() - t2 * cov[0, 1])
    c = gain.mean() ** 2 - t2 * cov[0, 0]
    assert [found.low, found.high] == pytest.approx(sorted(np.roots([a, b, c])))
    assert found.mean == pytest.approx(gain.mean() / span.mean())


def test_a_share_of_rows_with_items_ends_where_the_difference_is_just_told_apart():
    rng = np.random.default_rng(3)
    gain, span = rng.normal(3, 10, (3, 200)), rng.normal(20, 10, (3, 200))
    (found,) = shares([gain], [span])
    for end in (found.low, found.high):
        assert interval(gain - end * span).p == pytest.approx(0.05, abs=1e-6)


def test_shares_of_neighbours_end_where_their_loans_just_tell_the_difference_apart():
    rng = np.random.default_rng(3)
    span, floor = rng.normal(20, 3, (3, 200)), rng.normal(0, 1, (3, 1))
    gains = [rng.normal(4 * i, 10, (3, 200)) + rng.normal(0, 2, (3, 1)) - floor for i in range(5)]
    together = shares(gains, [span] * 5)
    for i, found in enumerate(together):
        for end in (found.low, found.high):
            rest = [gain - end * span for gain in gains]
            loan = lend(np.array([mean_squares(table)[0] for table in rest]), 3)
            assert interval(rest[i], loan).p == pytest.approx(0.05, abs=1e-6)
            assert interval(rest[i], ALONE).p != pytest.approx(0.05, abs=1e-3)


def test_there_is_no_share_of_a_span_that_may_be_nothing_or_is_below_it():
    rng = np.random.default_rng(4)
    gain, unsure, down = rng.normal(1, 1, (3, 50)), rng.normal(0, 10, (3, 50)), rng.normal(-20, 1, (3, 50))
    found = shares([gain] * 3, [unsure, down, -down])
    assert found[:2] == [None, None]
    assert found[2].low < gain.mean() / -down.mean() < found[2].high


def test_the_smallest_difference_of_seeds_alone_is_the_noncentral_t_s():
    found = detectable(np.array([3.0, 0.0, 0.0]), 4, 1)
    critical = stats.t.ppf(0.975, 3)
    assert stats.nct.sf(critical, 3, found / math.sqrt(3 / 4)) == pytest.approx(0.8, abs=0.005)


def test_the_smallest_difference_falls_with_what_is_lent_and_is_still_seen_four_times_in_five():
    squares, rng = np.array([3.0, 0.0, 0.0]), np.random.default_rng(10)
    for seeds in (2, 3, 5):
        difference = detectable(squares, seeds, 1, 6)
        assert difference < 0.95 * detectable(squares, seeds, 1)
        cells = rng.normal(difference, math.sqrt(3), (20_000, 6, seeds, 1))
        found = mean_squares(cells)
        halves = half_width(found, seeds, 1, lend(found[0], seeds))
        assert (cells.mean(axis=(-1, -2)) > halves).mean() == pytest.approx(0.8, abs=0.015)
    assert detectable(squares, 3, 1, 3) == pytest.approx(detectable(squares, 3, 1))


def test_the_smallest_difference_of_one_seed_is_the_normal_s():
    assert detectable(np.array([0.0, 50.0, 0.0]), 1, 5000) == pytest.approx((1.95996 + 0.84162) * 0.1, rel=1e-3)
    assert detectable(np.zeros(3), 2, 10) is None


@pytest.mark.parametrize(
    ("rows", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031), (10, 3.164)]
)
def test_the_critical_difference_is_that_of_demsar_s_table(rows, q):
    scores = np.random.default_rng(0).normal(size=(14, rows))
    found = rank(scores, [str(i) for i in range(rows)], [str(i) for i in range(14)])
    assert found.critical_difference == pytest.approx(q * math.sqrt(rows * (rows + 1) / (6 * 14)), rel=1e-3)


def test_ranks_share_ties_and_the_test_is_friedman_s_as_iman_and_davenport_corrected_it():
    scores = np.array([[9.0, 7, 7, 1], [8, 9, 3, 2], [7, 6, 5, 5], [9, 5, 6, 4], [4, 4, 4, 1]])
    found = rank(scores, list("abcd"), list("12345"))
    assert found.ranks == {"a": 1.4, "b": 2.1, "c": 2.6, "d": 3.9}  # by hand
    chi2 = stats.friedmanchisquare(*scores.T).statistic
    assert found.p == pytest.approx(stats.f.sf(4 * chi2 / (5 * 3 - chi2), 3, 12))
    assert found.ends("a") == (1.0, pytest.approx(1.4 + found.critical_difference / 2))
    assert rank(np.ones((3, 4)), list("abcd"), list("123")).p == 1.0
    assert rank(np.arange(8.0).reshape(2, 4), list("abcd"), list("12")).p == 0.0


def test_intervals_of_a_few_items_hold_the_truth():
    rng, trials = np.random.default_rng(5), 2000
    for seeds, sd in ((3, 2.0), (3, 0.0), (2, 1.0)):
        cells = 50 + rng.normal(0, sd, (trials, seeds, 1)) + rng.normal(0, 10, (trials, 1, 60))
        cells += rng.normal(0, 5, (trials, seeds, 60))
        held = abs(cells.mean(axis=(1, 2)) - 50) <= half_width(mean_squares(cells), seeds, 60)
        assert held.mean() > 0.93


@pytest.mark.slow
@pytest.mark.parametrize(("items", "sd"), [(1, 1.0), (500, 0.0), (500, 2.0), (2000, 1.0), (4000, 2.0)])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_hold_the_truth_and_equal_rows_stay_unmarked(seeds, items, sd):
    held, marked = coverage.errors(np.random.default_rng(10), seeds, items, sd * coverage.EQUAL)
    assert 0.93 < held[0].mean() < (0.985 if seeds == 2 else 0.972)
    assert 0.01 < marked[0].mean() < 0.07


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "sd"), [(3, 2.0), (5, 1.0), (5, 2.0)])
def test_where_seeds_differ_the_intervals_are_no_wider_than_need_be(seeds, sd):
    held, marked = coverage.errors(np.random.default_rng(11), seeds, 4000, sd * coverage.EQUAL, trials=500)
    assert 0.93 < held[0].mean() < 0.97
    assert 0.03 < marked[0].mean() < 0.07


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_a_row_much_noisier_than_its_neighbours_is_marked_a_little_more_often_than_alone(seeds):
    sds = 2.0 * coverage.UNEQUAL["one noisy"]
    _, marked = coverage.errors(np.random.default_rng(12), seeds, 500, sds, trials=2000)
    lent, alone = marked[:, -1]
    assert alone < lent < 0.12


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "sd"), [(2, 1.0), (3, 2.0), (5, 0.0)])
def test_the_smallest_difference_is_seen_four_times_in_five(seeds, sd):
    difference, seen, alone = coverage.power_at_detectable(np.random.default_rng(13), seeds, 500, sd)
    assert 0.75 < seen < 0.85
    assert difference < 0.95 * alone


@pytest.mark.slow
def test_shares_are_held():
    rng = np.random.default_rng(14)
    held, told = coverage.share_coverage(rng, 3, 500, 2.0, trials=500)
    assert held > 0.93
    assert told > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "sd"), [(2, 2.0), (3, 2.0), (5, 1.0)])
def test_a_table_of_nothing_bears_no_mark_after_holm(seeds, sd):
    plain, corrected = coverage.holm_errors(np.random.default_rng(14), seeds, 4000, sd * coverage.EQUAL)
    assert plain > 0.3
    assert corrected < 0.05


@pytest.mark.slow
def test_rows_of_no_difference_are_ranked_apart_one_time_in_twenty():
    overall, pairs = coverage.rank_errors(np.random.default_rng(15), trials=600)
    assert 0.02 < overall < 0.08
    assert pairs < 0.08

"""Intervals, p-values and power on plain arrays; see docs/statistics.md for derivations and simulations.

Every statistic is computed from a table of S seeds × n test items (n = 1 where a metric is no mean over items). A
two-way analysis of variance gives three mean squares: between seeds, between items, and residual. Few seeds estimate
the mean square between seeds poorly, so it is moderated across the rows of one probe and metric (empirical Bayes).
All functions take batches of tables along leading axes: the simulations run the code that the report runs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, ndtr, polygamma, psi, stdtrit

LEVEL = 0.95
"""Confidence level of all intervals."""
POWER = 0.8
"""Power at which the smallest detectable difference is stated."""
FULL_SUBTRACTION_ALPHA = 0.065
"""For alpha at or above this, `half_width` subtracts the residual mean square once in full; below, a part of it."""
MAX_PRIOR_WEIGHT = 1
"""Largest prior degrees of freedom, as a multiple of a row's own S - 1."""
OWN_SEEDS = 6
"""From so many seeds on a row's interval is its own: it does not depend on the other rows of the table."""
ROUNDING = 1e-9
"""Differences below this share of the largest number are rounding, not variation."""
MIN_ROWS = 4
"""Fewest rows that a variance prior is fitted to; fewer rows are not moderated."""
P_VALUE_RANGE = 1e-100, 1 - 1e-6
"""p-values are searched for between these bounds."""
Table = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class VariancePrior:
    """Empirical-Bayes prior for the mean square between seeds, fitted to the rows of one probe and metric."""

    variance: Table
    """Prior mean square between seeds s0², above 0."""
    df: Table
    """Prior degrees of freedom d0; 0 means no moderation."""


NO_PRIOR = VariancePrior(np.ones(()), np.zeros(()))


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean, its 95 % interval, and the two-sided p-value of a zero mean; None where they cannot be estimated."""

    mean: float
    low: float | None
    high: float | None
    p: float | None = None


def mean_squares(cells: Table) -> Table:
    """Return the mean squares between seeds, between items and residual, 3 × …; 0 where S or n is 1.

    Args:
        cells: Tables … × S × n.
    """
    seeds, items = cells.shape[-2:]
    by_seed, by_item = cells.mean(axis=-1), cells.mean(axis=-2)
    found = np.zeros((3, *cells.shape[:-2]))
    if seeds > 1:
        found[0] = items * by_seed.var(axis=-1, ddof=1)
    if items > 1:
        found[1] = seeds * by_item.var(axis=-1, ddof=1)
    if seeds > 1 and items > 1:
        residual = cells - by_item[..., None, :]
        residual -= residual.mean(axis=-1, keepdims=True)
        found[2] = np.einsum("...ij,...ij->...", residual, residual) / ((seeds - 1) * (items - 1))
    return found


def fit_variance_prior(between_seeds: Table, seeds: int) -> VariancePrior:
    """Fit the prior of the mean square between seeds to the rows of one probe and metric.

    The rows' mean squares are modelled as s² ~ s0² F(S - 1, d0); s0² and d0 follow from the mean and the variance of
    log s². Deviations from the source: d0 is at most `MAX_PRIOR_WEIGHT` times S - 1, and s² is floored at a
    thousandth of the rows' median, because discrete scores can tie. The prior is empty (d0 = 0) for one seed,
    `OWN_SEEDS` or more, fewer than `MIN_ROWS` rows, or a median of 0.

    Args:
        between_seeds: Mean squares between seeds, … × rows.
        seeds: S.

    Returns:
        Arrays … × 1, which broadcast over the rows.

    Source:
        Smyth, Linear models and empirical Bayes methods for assessing differential expression in microarray
        experiments, Statistical Applications in Genetics and Molecular Biology 3(1), 2004, section 6.2.
    """
    own_df = seeds - 1
    median = np.median(between_seeds, axis=-1, keepdims=True)
    if seeds == 1 or seeds >= OWN_SEEDS or between_seeds.shape[-1] < MIN_ROWS:
        return VariancePrior(np.ones_like(median), np.zeros_like(median))
    known = median > 0
    floored = np.where(known, np.maximum(between_seeds, median / 1000), 1.0)
    logs = np.log(floored) - psi(own_df / 2) + np.log(own_df / 2)
    excess = logs.var(axis=-1, ddof=1, keepdims=True) - polygamma(1, own_df / 2)
    half_df = _inverse_trigamma(np.maximum(excess, 1e-6))  # no more spread than by chance: d0 is practically infinite
    variance = np.exp(logs.mean(axis=-1, keepdims=True) + psi(half_df) - np.log(half_df))
    return VariancePrior(variance, np.where(known, np.minimum(2 * half_df, MAX_PRIOR_WEIGHT * own_df), 0.0))


def half_width(
    squares: Table, seeds: int, items: int, prior: VariancePrior = NO_PRIOR, alpha: float = 1 - LEVEL
) -> Table:
    """Return half the width of the interval of a mean over seeds and items, both random.

    The squared half-width sums the mean squares between items and between seeds, each times the squared t quantile
    of its own degrees of freedom. Both contain the residual, so a share k of it is subtracted once. With k = (t of
    items / t of seeds)² the interval never undercovers, whatever the variance between seeds; with k = 1 the sum is
    unbiased. k rises from the first to the second as alpha rises to `FULL_SUBTRACTION_ALPHA`. Deviations from the
    source: the subtraction, and the moderated mean square between seeds.

    Args:
        squares: Mean squares 3 × …, from `mean_squares`.
        seeds: S.
        items: n.
        prior: Prior of the mean square between seeds. A row above the prior variance s0² gets fewer prior degrees of
            freedom, d0·s0²/s²: rows with larger variance are shrunk less.
        alpha: Allowed rate of intervals that miss the true mean, in (0, 1).

    Source:
        Banerjee, Approximate confidence interval for linear functions of means of k populations when the
        population variances are not equal, Sankhya 22, 1960.
    """
    between_seeds, between_items, residual = squares
    own_df = max(seeds - 1, 1)
    prior_df = prior.df * prior.variance / np.maximum(between_seeds, prior.variance)
    moderated = between_seeds + prior_df / (own_df + prior_df) * (prior.variance - between_seeds)
    t2_items = stdtrit(max(items - 1, 1), alpha / 2) ** 2
    t2_seeds = stdtrit(own_df + prior_df, alpha / 2) ** 2
    subtracted = np.minimum(1.0, t2_items / t2_seeds) ** (1 - min(1.0, alpha / FULL_SUBTRACTION_ALPHA))
    of_seeds = np.maximum(0.0, moderated - subtracted * residual)
    total = t2_items * np.maximum(between_items, residual) + t2_seeds * of_seeds
    return np.sqrt(total / (seeds * items))


def are_equal(numbers: Table) -> bool:
    """Return whether numbers differ by no more than rounding."""
    return bool(np.ptp(numbers) <= ROUNDING * np.abs(numbers).max())


def interval(cells: Table, prior: VariancePrior = NO_PRIOR) -> Interval:
    """Return the mean of one table S × n with its interval and p-value.

    Equal numbers, or a single one, have no interval; but zeros (a row minus itself) have [0, 0] and p = 1. Numbers
    that differ by less than `ROUNDING` of the largest are equal.
    """
    from scipy.optimize import brentq

    mean = float(cells.mean())
    if cells.size == 1:
        return Interval(mean, None, None)
    if are_equal(cells):
        return Interval(mean, 0.0, 0.0, 1.0) if mean == 0 else Interval(mean, None, None)
    (seeds, items), squares = cells.shape, mean_squares(cells)

    def overlap(log_alpha: float) -> float:
        """Return how far the interval extends beyond zero; it is 0 at the p-value."""
        return half_width(squares, seeds, items, prior, np.exp(log_alpha)).item() - abs(mean)

    log_p, highest = np.log(P_VALUE_RANGE)
    if overlap(highest) > 0:
        log_p = highest
    elif overlap(log_p) > 0:
        log_p = brentq(overlap, log_p, highest)
    half = half_width(squares, seeds, items, prior).item()
    return Interval(mean, mean - half, mean + half, float(np.exp(log_p)))


def gap_shares(gains: Sequence[Table], gaps: Sequence[Table]) -> list[Interval | None]:
    """Return each row's share of the gap, mean(gain) / mean(gap), with Fieller's interval.

    The interval holds the shares s for which gain - s·gap does not differ from zero. At each s, the variance prior
    is fitted anew to the rows' tables gain - s·gap.

    Args:
        gains: Each row minus the floor, S × n, all of one shape; more is better.
        gaps: The ceiling minus the floor, on each row's seeds and items.

    Returns:
        One interval per row; None where the ceiling is not significantly above the floor.
    """
    seeds, items = gains[0].shape
    means = [(float(gain.mean()), float(gap.mean())) for gain, gap in zip(gains, gaps, strict=True)]
    products = [(mean_squares(g + s) - mean_squares(g - s)) / 4 for g, s in zip(gains, gaps, strict=True)]
    of_gains, of_products, of_gaps = (
        np.stack(each, axis=-1) for each in (list(map(mean_squares, gains)), products, list(map(mean_squares, gaps)))
    )

    def excess(share: float, row: int) -> float:
        """Return how far zero lies outside the interval of gain - share·gap; negative inside."""
        squares = np.maximum(of_gains - 2 * share * of_products + share**2 * of_gaps, 0.0)
        halves = half_width(squares, seeds, items, fit_variance_prior(squares[0], seeds))
        gain, gap = means[row]
        return abs(gain - share * gap) - float(halves[row])

    found: list[Interval | None] = []
    for row, (gain, gap) in enumerate(means):
        whole = interval(gaps[row])
        if gap <= 0 or whole.p is None or whole.p >= 1 - LEVEL:
            found.append(None)
            continue
        ends = (_end(functools.partial(excess, row=row), gain / gap, step) for step in (-1.0, 1.0))
        found.append(Interval(gain / gap, *ends))
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's step-down procedure, in the order given."""
    count, adjusted, floor = len(p_values), [0.0] * len(p_values), 0.0
    for done, place in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        floor = max(floor, min(1.0, (count - done) * p_values[place]))
        adjusted[place] = floor
    return adjusted


def detectable_difference(squares: Table, seeds: int, items: int, rows: int = 1) -> float | None:
    """Return the smallest true difference whose interval excludes zero in 80 % of repetitions; None without variance.

    Args:
        squares: Three mean squares of a row's differences, ideally averaged over rows; taken as the true ones.
        seeds: S.
        items: n.
        rows: Rows with these mean squares that a variance prior is fitted to together.
    """
    from scipy.optimize import brentq

    between_seeds, between_items, residual = squares
    between_seeds = max(between_seeds, residual)
    sd = float(np.sqrt((between_items + between_seeds - residual) / (seeds * items)))
    if sd == 0:
        return None
    quantiles = np.tile((np.arange(500)[:, None] + 0.5) / 500, rows)  # evenly spaced in each row, then shuffled
    quantiles = np.random.default_rng(0).permuted(quantiles, axis=0)
    drawn = between_seeds * (chdtri(seeds - 1, quantiles) / (seeds - 1) if seeds > 1 else np.ones_like(quantiles))
    each = np.stack([drawn, np.full_like(quantiles, between_items), np.full_like(quantiles, residual)])
    halves = half_width(each, seeds, items, fit_variance_prior(drawn, seeds))

    def excess_power(difference: float) -> float:
        return float((ndtr((difference - halves) / sd) + ndtr((-difference - halves) / sd)).mean()) - POWER

    return float(brentq(excess_power, 0.0, halves.max() + 10 * sd))


def _inverse_trigamma(value: Table) -> Table:
    """Return the argument whose trigamma is `value` > 0, by Newton steps on 1/trigamma (Smyth, appendix)."""
    at = 0.5 + 1 / value
    for _ in range(8):
        trigamma = polygamma(1, at)
        at = at + trigamma * (1 - trigamma / value) / polygamma(2, at)
    return at


def _end(excess: Callable[[float], float], inside: float, step: float) -> float | None:
    """Return where `excess` turns positive, searching from `inside` in the direction of `step`; None if it does not."""
    from scipy.optimize import brentq

    outside = inside + step
    while excess(outside) <= 0:
        step *= 2
        outside = inside + step
        if abs(step) > 1e6:
            return None
    return float(brentq(excess, inside, outside))

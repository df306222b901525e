"""The statistics behind the verdict, on plain arrays; docs/statistics.md says why, and what was measured of them.

Every number comes of a table of S seeds × n test items (n is 1 where a metric is no mean over items). Its
three mean squares, of a two-way analysis of variance, are all that intervals, p-values and power need:
between seeds, between items, and what neither explains. Of the first a few seeds tell little, so that the rows
of one probe and metric lend each other some of what theirs tell. All functions take any number of tables at
once, along leading axes, so that what is simulated is what is used.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, fdtrc, ndtr, polygamma, psi, stdtrit

LEVEL = 0.95
POWER = 0.8
TRUSTED = 0.065
"""Chance of a miss from which on all the noise that two squares hold is taken off one; below, less and less."""
MOST_LENT = 1
"""Degrees of freedom between seeds that a row's neighbours can lend it, as a multiple of its own S - 1."""
FEWEST_NEIGHBOURS = 3
"""Fewer lend nothing."""
P_VALUES = 1e-100, 1 - 1e-6
"""Least and greatest that are told from their neighbours."""
Table = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Loan:
    """What the rows of one probe and metric, as a kind, lend each of them: a mean square between seeds."""

    square: Table
    """Usual mean square between seeds, above 0."""
    freedom: Table
    """Degrees of freedom that it counts for, 0 where nothing is lent."""


ALONE = Loan(np.ones(()), np.zeros(()))


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean, its 95 % interval, and the two-sided p-value of a mean of zero; None where nothing can be said."""

    mean: float
    low: float | None
    high: float | None
    p: float | None = None


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Mean ranks of k rows over N probes, 1 being best."""

    ranks: dict[str, float]
    """From the best to the worst."""
    probes: tuple[str, ...]
    critical_difference: float
    """Rows whose mean ranks lie further apart differ: 95 % for all pairs together."""
    p: float
    """Of no difference between any rows."""

    def ends(self, row: str) -> tuple[float, float]:
        """Return the ends of a row's bar, as far as there are ranks: rows whose bars do not overlap differ."""
        half = self.critical_difference / 2
        return max(1.0, self.ranks[row] - half), min(float(len(self.ranks)), self.ranks[row] + half)


def mean_squares(cells: Table) -> Table:
    """Return the mean squares between seeds, between items and of the rest; 0 where there is only one.

    Args:
        cells: … × S × n.

    Returns:
        3 × ….
    """
    seeds, items = cells.shape[-2:]
    by_seed, by_item = cells.mean(axis=-1), cells.mean(axis=-2)
    found = np.zeros((3, *cells.shape[:-2]))
    if seeds > 1:
        found[0] = items * by_seed.var(axis=-1, ddof=1)
    if items > 1:
        found[1] = seeds * by_item.var(axis=-1, ddof=1)
    if seeds > 1 and items > 1:
        rest = cells - by_item[..., None, :]
        rest -= rest.mean(axis=-1, keepdims=True)
        found[2] = np.einsum("...ij,...ij->...", rest, rest) / ((seeds - 1) * (items - 1))
    return found


def lend(between_seeds: Table, seeds: int) -> Loan:
    """Return what rows of one kind tell of each other's spread between seeds.

    Their mean squares are taken as draws s² ~ s0² F(S - 1, d0), whose s0² and d0 give the mean and the variance
    of log s². Unlike the source, d0 is at most `MOST_LENT` times S - 1 where it is lent, and log s² is cut at a
    thousandth of the rows' median: discrete scores can tie.

    Args:
        between_seeds: Mean squares between seeds, … × rows.
        seeds: S.

    Returns:
        Of leading axes and one, so that it can stand beside the rows.

    Source:
        Smyth, Linear models and empirical Bayes methods for assessing differential expression in microarray
        experiments, Statistical Applications in Genetics and Molecular Biology 3(1), 2004, section 6.2.
    """
    own = seeds - 1
    median = np.median(between_seeds, axis=-1, keepdims=True)
    if own == 0 or between_seeds.shape[-1] <= FEWEST_NEIGHBOURS:
        return Loan(np.ones_like(median), np.zeros_like(median))
    known = median > 0
    logs = np.log(np.where(known, np.maximum(between_seeds, median / 1000), 1.0)) - psi(own / 2) + np.log(own / 2)
    spread = logs.var(axis=-1, ddof=1, keepdims=True) - polygamma(1, own / 2)
    half = _inverse_trigamma(np.maximum(spread, 1e-6))  # of d0; rows no further apart than chance: as good as endless
    square = np.exp(logs.mean(axis=-1, keepdims=True) + psi(half) - np.log(half))
    return Loan(square, np.where(known, np.minimum(2 * half, MOST_LENT * own), 0.0))


def half_width(squares: Table, seeds: int, items: int, loan: Loan = ALONE, alpha: float = 1 - LEVEL) -> Table:
    """Return half of the width of the interval of a mean over seeds and items, both drawn at random.

    Squared, it is the sum of the two squares, each times the squared quantile of its own degrees of freedom, less
    noise that both hold. With the share (t of items / t of seeds)² of it taken off, the interval is never too narrow,
    however far seeds lie apart; with all of it, the sum is unbiased. `TRUSTED` leads from the one to the other.
    Unlike in the source, each square is known to hold the noise, and that of the seeds is mixed with what neighbours
    lend.

    Args:
        squares: As `mean_squares` returns them.
        seeds: S.
        items: n.
        loan: What is known of the spread between seeds besides. A row noisier than its neighbours takes the less
            of it, the noisier it is.
        alpha: Share of repetitions in which the interval may miss the true mean, in (0, 1).

    Source:
        Banerjee, Approximate confidence interval for linear functions of means of k populations when the
        population variances are not equal, Sankhya 22, 1960.
    """
    own_square, between_items, rest = squares
    own = max(seeds - 1, 1)
    lent = loan.freedom * loan.square / np.maximum(own_square, loan.square)
    between_seeds = own_square + lent / (own + lent) * (loan.square - own_square)
    of_items = stdtrit(max(items - 1, 1), alpha / 2) ** 2
    of_seeds = stdtrit(own + lent, alpha / 2) ** 2
    off = np.minimum(1.0, of_items / of_seeds) ** (1 - min(1.0, alpha / TRUSTED))
    both = of_items * np.maximum(between_items, rest) + of_seeds * np.maximum(0.0, between_seeds - off * rest)
    return np.sqrt(both / (seeds * items))


def interval(cells: Table, loan: Loan = ALONE) -> Interval:
    """Return what one table, S × n, says of its mean.

    A single number says nothing of its error, and neither do numbers that are all the same; only zeros
    throughout, as a row's differences from itself, are taken to be zero.
    """
    from scipy.optimize import brentq

    mean = float(cells.mean())
    if cells.size == 1:
        return Interval(mean, None, None)
    if np.ptp(cells) == 0:
        return Interval(mean, 0.0, 0.0, 1.0) if mean == 0 else Interval(mean, None, None)
    (seeds, items), squares = cells.shape, mean_squares(cells)

    def reach(log_alpha: float) -> float:
        """Return how far the interval reaches beyond zero; the p-value is where it does not."""
        return half_width(squares, seeds, items, loan, np.exp(log_alpha)).item() - abs(mean)

    log_p, most = np.log(P_VALUES)
    if reach(most) > 0:
        log_p = most
    elif reach(log_p) > 0:
        log_p = brentq(reach, log_p, most)
    half = half_width(squares, seeds, items, loan).item()
    return Interval(mean, mean - half, mean + half, float(np.exp(log_p)))


def shares(gains: Sequence[Table], spans: Sequence[Table]) -> list[Interval | None]:
    """Return mean(gain) / mean(span) of each row with Fieller's interval: the s for which gain - s·span may be zero.

    At each s, rows of one probe and metric lend each other of the spread of gain - s·span.

    Args:
        gains: How far each row is above the floor, S × n, all of one shape; more is better.
        spans: How far the ceiling is above the floor, on each row's seeds and items.

    Returns:
        None where the ceiling is not above the floor for certain, so that there is no way to go.
    """
    seeds, items = gains[0].shape
    middles = [(float(gain.mean()), float(span.mean())) for gain, span in zip(gains, spans, strict=True)]
    products = [(mean_squares(g + s) - mean_squares(g - s)) / 4 for g, s in zip(gains, spans, strict=True)]
    of_gains, of_products, of_spans = (
        np.stack(each, axis=-1) for each in (list(map(mean_squares, gains)), products, list(map(mean_squares, spans)))
    )

    def excess(at: float, row: int) -> float:
        """Return how far zero is outside the interval of gain - at·span; negative inside."""
        squares = np.maximum(of_gains - 2 * at * of_products + at**2 * of_spans, 0.0)
        halves = half_width(squares, seeds, items, lend(squares[0], seeds))
        gain, span = middles[row]
        return abs(gain - at * span) - float(halves[row])

    found: list[Interval | None] = []
    for row, (gain, span) in enumerate(middles):
        whole = interval(spans[row])
        if span <= 0 or whole.p is None or whole.p >= 1 - LEVEL:
            found.append(None)
            continue
        ends = (_edge(functools.partial(excess, row=row), gain / span, step) for step in (-1.0, 1.0))
        found.append(Interval(gain / span, *ends))
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down."""
    count, adjusted, floor = len(p_values), [0.0] * len(p_values), 0.0
    for done, place in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        floor = max(floor, min(1.0, (count - done) * p_values[place]))
        adjusted[place] = floor
    return adjusted


def detectable(squares: Table, seeds: int, items: int, rows: int = 1) -> float | None:
    """Return the smallest true difference whose interval excludes zero in 80 % of repetitions.

    Args:
        squares: Mean squares of differences, 3, best of several rows averaged; taken to be the true ones.
        seeds: S.
        items: n.
        rows: How many rows of this spread lend each other.
    """
    from scipy.optimize import brentq

    between_seeds, between_items, rest = squares
    between_seeds = max(between_seeds, rest)
    spread = float(np.sqrt((between_items + between_seeds - rest) / (seeds * items)))
    if spread == 0:
        return None
    luck = np.tile((np.arange(500)[:, None] + 0.5) / 500, rows)  # evenly spread in each row, shuffled between rows
    luck = np.random.default_rng(0).permuted(luck, axis=0)
    drawn = between_seeds * (chdtri(seeds - 1, luck) / (seeds - 1) if seeds > 1 else np.ones_like(luck))
    each = np.stack([drawn, np.full_like(luck, between_items), np.full_like(luck, rest)])
    halves = half_width(each, seeds, items, lend(drawn, seeds))

    def missing(difference: float) -> float:
        seen = ndtr((difference - halves) / spread) + ndtr((-difference - halves) / spread)
        return float(seen.mean()) - POWER

    return float(brentq(missing, 0.0, halves.max() + 10 * spread))


def rank(scores: Table, rows: Sequence[str], probes: Sequence[str]) -> Ranking:
    """Return mean ranks, with the test of Friedman as Iman and Davenport corrected it, and Nemenyi's difference.

    Args:
        scores: N probes × k rows, more being better; equal scores share their ranks' mean.
        rows: Names of the k rows, two at least.
        probes: Names of the N probes, two at least.
    """
    from scipy.stats import rankdata, studentized_range

    count, k = scores.shape
    ranks = np.asarray(rankdata(-scores, axis=1))
    means = ranks.mean(axis=0)
    between = count * float(((means - (k + 1) / 2) ** 2).sum())
    rest = float(((ranks - (k + 1) / 2) ** 2).sum()) - between
    p = float(fdtrc(k - 1, (k - 1) * (count - 1), (count - 1) * between / rest)) if rest > 1e-9 else float(between == 0)
    q = float(studentized_range.ppf(LEVEL, k, np.inf)) / np.sqrt(2)
    order = np.argsort(means, kind="stable")
    return Ranking(
        ranks={rows[i]: float(means[i]) for i in order},
        probes=tuple(probes),
        critical_difference=float(q * np.sqrt(k * (k + 1) / (6 * count))),
        p=p,
    )


def _inverse_trigamma(value: Table) -> Table:
    """Return where the trigamma function has a value above 0, by Newton's steps on its reciprocal (Smyth, appendix)."""
    at = 0.5 + 1 / value
    for _ in range(8):
        trigamma = polygamma(1, at)
        at = at + trigamma * (1 - trigamma / value) / polygamma(2, at)
    return at


def _edge(excess: Callable[[float], float], inside: float, step: float) -> float | None:
    """Return where `excess` turns positive, walking from `inside` in the direction of `step`; None if it never does."""
    from scipy.optimize import brentq

    outside = inside + step
    while excess(outside) <= 0:
        step *= 2
        outside = inside + step
        if abs(step) > 1e6:
            return None
    return float(brentq(excess, inside, outside))

"""The statistics behind the verdict, on plain arrays; docs/statistics.md says why, and what was measured of them.

Every number comes of a table of S seeds × n test items (n is 1 where a metric is no mean over items). Its
three mean squares, of a two-way analysis of variance, are all that intervals, p-values and power need:
between seeds, between items, and what neither explains. All functions take any number of tables at once,
along leading axes, so that what is simulated is what is used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, fdtrc, ndtr, stdtr, stdtrit

LEVEL = 0.95
POWER = 0.8
MOST_FREEDOM = 3
"""Degrees of freedom that a few seeds can give, as a multiple of S - 1."""
Table = NDArray[np.float64]


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


def standard_error(squares: Table, seeds: int, items: int) -> tuple[Table, Table]:
    """Return the standard error of the mean over seeds and items, both drawn at random, and its degrees of freedom.

    Args:
        squares: As `mean_squares` returns them.
        seeds: S.
        items: n.
    """
    between_seeds, between_items, rest = squares
    twice = (seeds - 2) / (seeds - 1) * rest if seeds > 1 else 0.0  # noise that both squares hold
    variance = (between_items + np.maximum(0.0, between_seeds - twice)) / (seeds * items)
    total = between_seeds + between_items
    loss = between_seeds / max(seeds - 1, 1) + between_items / max(items - 1, 1)
    freedom = np.divide(total, loss, out=np.ones_like(total), where=loss > 0)
    if seeds > 1:
        freedom = np.minimum(freedom, MOST_FREEDOM * (seeds - 1))
    return np.sqrt(variance), freedom


def half_width(squares: Table, seeds: int, items: int) -> Table:
    """Return half of the 95 % interval's width; arguments as those of `standard_error`."""
    error, freedom = standard_error(squares, seeds, items)
    return stdtrit(freedom, (1 + LEVEL) / 2) * error


def interval(cells: Table) -> Interval:
    """Return what one table says of its mean.

    A single number says nothing of its error, and neither do numbers that are all the same; only zeros
    throughout, as a row's differences from itself, are taken to be zero.
    """
    mean = float(cells.mean())
    if cells.size == 1:
        return Interval(mean, None, None)
    if np.ptp(cells) == 0:
        return Interval(mean, 0.0, 0.0, 1.0) if mean == 0 else Interval(mean, None, None)
    error, freedom = standard_error(mean_squares(cells), *cells.shape)
    half = float(stdtrit(freedom, (1 + LEVEL) / 2) * error)
    return Interval(mean, mean - half, mean + half, float(2 * stdtr(freedom, -abs(mean) / error)))


def share(gain: Table, span: Table) -> Interval:
    """Return mean(gain) / mean(span) with Fieller's interval: the shares s for which gain - s·span may be zero.

    Args:
        gain: How far a row is above the floor, S × n.
        span: How far the ceiling is above the floor, on the same seeds and items.

    Returns:
        Without an interval where the span cannot be told from zero, and the share could be anything.
    """
    middle = float(gain.mean() / span.mean())
    whole = interval(span)
    if whole.p is None or whole.p >= 1 - LEVEL:
        return Interval(middle, None, None)
    of_gain, of_span = mean_squares(gain), mean_squares(span)
    product = (mean_squares(gain + span) - mean_squares(gain - span)) / 4

    def excluded(at: float) -> bool:
        squares = np.maximum(of_gain - 2 * at * product + at**2 * of_span, 0.0)
        return bool(abs(gain.mean() - at * span.mean()) > half_width(squares, *gain.shape))

    return Interval(middle, _edge(excluded, middle, -1.0), _edge(excluded, middle, 1.0))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down."""
    count, adjusted, floor = len(p_values), [0.0] * len(p_values), 0.0
    for done, place in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        floor = max(floor, min(1.0, (count - done) * p_values[place]))
        adjusted[place] = floor
    return adjusted


def detectable(squares: Table, seeds: int, items: int) -> float | None:
    """Return the smallest true difference whose interval excludes zero in 80 % of repetitions.

    Args:
        squares: Mean squares of differences, 3, best of several rows averaged; taken to be the true ones.
        seeds: S.
        items: n.
    """
    from scipy.optimize import brentq

    between_seeds, between_items, rest = squares
    between_seeds = max(between_seeds, rest)
    spread = float(np.sqrt((between_items + between_seeds - rest) / (seeds * items)))
    if spread == 0:
        return None
    luck = (np.arange(200) + 0.5) / 200
    drawn = between_seeds * (chdtri(seeds - 1, luck) / (seeds - 1) if seeds > 1 else np.ones_like(luck))
    halves = half_width(np.stack([drawn, np.full_like(luck, between_items), np.full_like(luck, rest)]), seeds, items)

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


def _edge(excluded: Callable[[float], bool], inside: float, step: float) -> float | None:
    """Return where `excluded` begins, walking from `inside` in the direction of `step`; None if it never does."""
    outside = inside + step
    while not excluded(outside):
        step *= 2
        outside = inside + step
        if abs(step) > 1e6:
            return None
    for _ in range(50):
        middle = (inside + outside) / 2
        if excluded(middle):
            outside = middle
        else:
            inside = middle
    return (inside + outside) / 2

"""Coverage, false positive rate and power of every method in `benchmarks.summaries.intervals`, on known truth.

    python -m benchmarks.interval_simulation

prints the tables of docs/statistics-tables.md (some minutes). The draws imitate real results: random weights and rows
of one probe, with binary items, correct (100) or wrong (0). The difficulty of an item is shared by all seeds and rows,
and each seed shifts all items. A metric that is no mean over items is one normal number per seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from benchmarks.interval_simulation import TRIALS
from benchmarks.summaries.intervals import (
    LEVEL,
    NO_PRIOR,
    Table,
    detectable_difference,
    fit_variance_prior,
    half_width,
    mean_squares,
)
from benchmarks.summaries.ranks import rank

MEAN = 40.0
AGREEMENT = 0.45
"""Latent correlation of two seeds on an item; 0.3 between binary items, as in the linear probe on scenes."""
SHARED = 0.4
"""Latent correlation of two rows on an item."""
EQUAL = np.ones(7)
"""Standard deviations over seeds of random weights and six rows, relative to a typical row."""
UNEQUAL = {
    "mixed": np.array([1.0, 0.5, 0.5, 1.0, 1.0, 2.0, 2.0]),
    "one noisy": np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 5.0]),
    "random noisy": np.array([5.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
}
RATES = ("coverage %", "unmoderated", "false + %", "unmoderated")
"""Columns of coverage and false positive rate, each with moderated variances and without."""
MARKS = ("any mark of 36 %", "any after Holm %")
"""Columns of how often a table without true differences has a mark."""


def draws(
    rng: np.random.Generator, seeds: int, items: int, sds: Table, means: Sequence[float], trials: int = TRIALS
) -> Iterator[list[Table]]:
    """Yield lists of tables trials × seeds × items, one per row, in chunks that add up to `trials`.

    An item is correct if a sum of normals is below a threshold, so each row's true mean is known exactly.

    Args:
        rng: Random generator.
        seeds: S.
        items: n; 1 draws normal numbers instead.
        sds: Standard deviation over seeds of each row, in points.
        means: True mean of each row, in points.
        trials: Number of repetitions.
    """
    chunk = max(1, 50_000 // (seeds * items))
    for start in range(0, trials, chunk):
        count = min(chunk, trials - start)
        common = np.sqrt(SHARED) * _normal(rng, count, 1, items)
        rows = []
        for mean, sd in zip(means, sds, strict=True):
            if items == 1:
                rows.append(mean + sd * rng.standard_normal((count, seeds, 1)))
                continue
            threshold = ndtri(mean / 100)
            shift = sd / 100 * np.sqrt(2 * np.pi) * np.exp(threshold**2 / 2)
            latent = _normal(rng, count, seeds, items)
            latent *= np.sqrt(1 - AGREEMENT - shift**2)
            latent += common + np.sqrt(AGREEMENT - SHARED) * _normal(rng, count, 1, items)
            latent += shift * _normal(rng, count, seeds, 1)
            rows.append(100.0 * (latent < threshold))
        yield rows


def errors(rng: np.random.Generator, seeds: int, items: int, sds: Table, trials: int = TRIALS) -> tuple[Table, Table]:
    """Return the coverage of the rows' intervals, and the false positive rate when all true means are equal.

    Args:
        rng: Random generator.
        seeds: S.
        items: n.
        sds: Standard deviation over seeds of random weights and of each row, in points.
        trials: Number of repetitions.

    Returns:
        Each 2 × rows: with moderated variances, and without.
    """
    missed: list[Table] = []
    marked: list[Table] = []
    for base, *rows in draws(rng, seeds, items, sds, [MEAN] * len(sds), trials):
        gains = [row - base for row in rows]
        for tables, mean, found in ((rows, MEAN, missed), (gains, 0.0, marked)):
            squares, off = _squares(tables), abs(_means(tables) - mean)
            priors = fit_variance_prior(squares[0], seeds), NO_PRIOR
            found.append(np.stack([off > half_width(squares, seeds, items, prior) for prior in priors]))
    miss_rate, mark_rate = (np.concatenate(each, axis=1).mean(axis=1) for each in (missed, marked))
    return 1 - miss_rate, mark_rate


def power_at_detectable(
    rng: np.random.Generator, seeds: int, items: int, sd: float, trials: int = TRIALS // 4
) -> tuple[float, float, float]:
    """Return the detectable difference of equally noisy rows, its power, and the difference without moderation.

    Mean squares are averaged over trials.
    """
    squares = []
    for base, *rows in draws(rng, seeds, items, sd * EQUAL, [MEAN] * len(EQUAL), trials):
        squares.append(_squares([row - base for row in rows]))
    usual = np.concatenate(squares, axis=1).mean(axis=(1, 2))
    difference = detectable_difference(usual, seeds, items, len(EQUAL) - 1)
    unmoderated = detectable_difference(usual, seeds, items)
    assert difference is not None
    assert unmoderated is not None
    if MEAN + difference > 90 and items > 1:  # too close to 100 %
        return difference, float("nan"), unmoderated
    detected = []
    for base, *rows in draws(rng, seeds, items, sd * EQUAL, [MEAN] + [MEAN + difference] * (len(EQUAL) - 1), trials):
        gains = [row - base for row in rows]
        found = _squares(gains)
        detected.append(_means(gains) > half_width(found, seeds, items, fit_variance_prior(found[0], seeds)))
    return difference, float(np.concatenate(detected).mean()), unmoderated


def share_coverage(
    rng: np.random.Generator, seeds: int, items: int, sd: float, trials: int = TRIALS
) -> tuple[float, float]:
    """Return the coverage of the intervals of the shares 0, 0.2, … 1, and the fraction of tables that have shares."""
    truths = np.linspace(0, 1, 6)
    hits, defined = [], []
    means = [MEAN, 2 * MEAN, *(MEAN * (1 + truths))]
    for floor, ceiling, *rows in draws(rng, seeds, items, np.full(len(means), sd), means, trials):
        gap, gains = ceiling - floor, [row - floor for row in rows]
        defined.append(gap.mean(axis=(-1, -2)) > half_width(mean_squares(gap), seeds, items))
        for row, truth in enumerate(truths):
            rest = [gain - truth * gap for gain in gains]
            squares = _squares(rest)
            halves = half_width(squares, seeds, items, fit_variance_prior(squares[0], seeds))
            hits.append((abs(_means(rest)) <= halves)[defined[-1], row])
    return float(np.concatenate(hits).mean()), float(np.concatenate(defined).mean())


def holm_errors(
    rng: np.random.Generator, seeds: int, items: int, sds: Table, trials: int = TRIALS
) -> tuple[float, float]:
    """Return how often a table of rows × 6 probes without true differences has a mark: uncorrected, and after Holm.

    After Holm's step-down a mark is left if the smallest p-value times their number is below 5 %.

    Args:
        rng: Random generator.
        seeds: S.
        items: n.
        sds: Standard deviation over seeds of random weights and of each row, in points.
        trials: Number of repetitions.
    """
    probes, rows = 6, len(sds) - 1
    alphas = 1 - LEVEL, (1 - LEVEL) / (probes * rows)
    any_mark = []
    for _ in range(probes):
        of_probe = []
        for base, *others in draws(rng, seeds, items, sds, [MEAN] * len(sds), trials):
            gains = [row - base for row in others]
            squares, off = _squares(gains), abs(_means(gains))
            prior = fit_variance_prior(squares[0], seeds)
            marked = [off > half_width(squares, seeds, items, prior, alpha) for alpha in alphas]
            of_probe.append(np.any(marked, axis=-1))
        any_mark.append(np.concatenate(of_probe, axis=1))
    uncorrected, corrected = np.any(any_mark, axis=0).mean(axis=1)
    return float(uncorrected), float(corrected)


def rank_errors(rng: np.random.Generator, rows: int = 8, probes: int = 6, trials: int = TRIALS) -> tuple[float, float]:
    """Return the false positive rates of Friedman's test and of Nemenyi's over all pairs, without true differences."""
    overall, pairs = 0, 0
    names, probe_names = [str(i) for i in range(rows)], [str(i) for i in range(probes)]
    for scores in rng.standard_normal((trials, probes, rows)):
        found = rank(scores, names, probe_names)
        overall += found.p < 1 - LEVEL
        pairs += max(found.ranks.values()) - min(found.ranks.values()) >= found.critical_difference
    return overall / trials, pairs / trials


def _normal(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.standard_normal(shape, dtype=np.float32)


def _squares(tables: Sequence[Table]) -> Table:
    """Return mean squares, 3 × trials × rows."""
    return np.stack([mean_squares(table) for table in tables], axis=-1)


def _means(tables: Sequence[Table]) -> Table:
    """Return means, trials × rows."""
    return np.stack([table.mean(axis=(-1, -2)) for table in tables], axis=-1)


def _line(*cells: str | float) -> None:
    """Print one line of a table; rates in percent."""
    texts = (cell if isinstance(cell, str) else "–" if np.isnan(cell) else f"{100 * cell:.1f}" for cell in cells)
    print(f"| {' | '.join(texts)} |", flush=True)


def _head(*names: str) -> None:
    print(f"\n| {' | '.join(names)} |\n{'| --: ' * len(names)}|", flush=True)


def _print_equal(seeds: int, trials: int) -> None:
    """Print a line per number of items and standard deviation over seeds, equal for all rows."""
    settings = [(items, sd) for items in (500, 2000, 4000) for sd in (0.0, 0.5, 1.0, 2.0, 4.0)]
    for items, sd in [(1, 1.0), *settings]:
        rng = np.random.default_rng((seeds, items, round(10 * sd)))
        covered, marked = errors(rng, seeds, items, sd * EQUAL, trials)
        difference, power, unmoderated = power_at_detectable(rng, seeds, items, sd, max(1, trials // 4))
        rates = [*covered.mean(axis=1), *marked.mean(axis=1)]
        _line(str(seeds), _items(items), f"{sd}", *rates, f"{difference:.1f}", f"{unmoderated:.1f}", power)


def _print_unequal(seeds: int, trials: int) -> None:
    """Print a line per kind of table: its least noisy rows, then its noisiest."""
    for number, (kind, sds) in enumerate(UNEQUAL.items()):
        rows = sds[1:]
        for items, sd in [(1, 1.0), (500, 1.0), (500, 4.0), (4000, 1.0), (4000, 4.0)]:
            rng = np.random.default_rng((seeds, items, round(10 * sd), number))
            found = errors(rng, seeds, items, sd * sds, trials)
            ends = [rows == end for end in sorted({rows.min(), rows.max()})]
            rates = [rate for which in ends for each in found for rate in each[:, which].mean(axis=1)]
            _line(kind, str(seeds), _items(items), f"{sd}", *(rates + [np.nan] * 4)[:8])


def _items(items: int) -> str:
    return "none" if items == 1 else str(items)


def print_tables(seed_counts: Sequence[int], trials: int) -> None:
    """Print all tables as Markdown."""
    _head("seeds", "items", "seed sd", *RATES, "detectable", "unmoderated", "power %")
    for seeds in seed_counts:
        _print_equal(seeds, trials)
    _head("table", "seeds", "items", "seed sd", *(RATES * 2))
    for seeds in seed_counts:
        _print_unequal(seeds, trials)
    _head("seeds", "items", "seed sd", "share coverage %", "share defined %", *MARKS)
    for seeds in seed_counts:
        for items, sd in [(500, 0.0), (500, 1.0), (500, 2.0), (500, 4.0), (4000, 1.0), (4000, 2.0), (4000, 4.0)]:
            rng = np.random.default_rng((seeds, items, round(10 * sd)))
            covered, defined = share_coverage(rng, seeds, items, sd, trials)
            marks = holm_errors(rng, seeds, items, sd * EQUAL, trials)
            _line(str(seeds), str(items), f"{sd}", covered, defined, *marks)
    _head("table", "seeds", "items", "seed sd", *MARKS)
    for seeds in seed_counts:
        for kind, sds in UNEQUAL.items():
            marks = holm_errors(np.random.default_rng((seeds, 4000, 20)), seeds, 4000, 2.0 * sds, trials)
            _line(kind, str(seeds), "4000", "2.0", *marks)
    overall, pairs = rank_errors(np.random.default_rng(0), trials=trials)
    print(
        f"\nfalse positives for 8 equal rows and 6 probes: Friedman {100 * overall:.1f} %, "
        f"any pair (Nemenyi) {100 * pairs:.1f} %"
    )

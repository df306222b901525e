"""How often the intervals are right: every method of benchmarks/intervals.py on data whose truth is known.

    python -m benchmarks.interval_simulation

prints the tables of docs/statistics.md (some minutes). What is drawn is like what is measured: rows of one
probe beside random weights, of binary items, right (100) or wrong (0), that are hard or easy for every seed and
every row alike, and shifted by a seed. A metric that is no mean over items is a normal number a seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from benchmarks.intervals import (
    ALONE,
    LEVEL,
    Table,
    detectable,
    half_width,
    lend,
    mean_squares,
    rank,
)

TRIALS = 2000
MEAN = 40.0
AGREEMENT = 0.45
"""Latent correlation of two seeds on an item; 0.3 between right and wrong, as in the linear probe on scenes."""
SHARED = 0.4
"""Latent correlation of two rows on an item."""
EQUAL = np.ones(7)
"""Standard deviations over seeds of random weights and six rows, as multiples of a usual one."""
UNEQUAL = {
    "mixed": np.array([1.0, 0.5, 0.5, 1.0, 1.0, 2.0, 2.0]),
    "one noisy": np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 5.0]),
    "random noisy": np.array([5.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
}


def draws(
    rng: np.random.Generator, seeds: int, items: int, sds: Table, means: Sequence[float], trials: int = TRIALS
) -> Iterator[list[Table]]:
    """Yield tables trials × seeds × items, one a row, until there are `trials`.

    An item is right where a sum of normals lies below a threshold, so that each row's mean is known exactly.

    Args:
        rng: What is drawn from.
        seeds: S.
        items: n; 1 for normal numbers.
        sds: Of each row's mean over seeds, in points.
        means: Of each row, in points.
        trials: How many.
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
    """Return how often rows' intervals hold their means, and how often rows are told from random weights' equal mean.

    Args:
        rng: What is drawn from.
        seeds: S.
        items: n.
        sds: Of random weights and of each row, in points.
        trials: How many.

    Returns:
        Each 2 × rows: with what neighbours lend, and alone.
    """
    held: list[Table] = []
    marked: list[Table] = []
    for base, *rows in draws(rng, seeds, items, sds, [MEAN] * len(sds), trials):
        gains = [row - base for row in rows]
        for tables, mean, found in ((rows, MEAN, held), (gains, 0.0, marked)):
            squares, off = _squares(tables), abs(_means(tables) - mean)
            loans = lend(squares[0], seeds), ALONE
            found.append(np.stack([off > half_width(squares, seeds, items, loan) for loan in loans]))
    wrong, told = (np.concatenate(each, axis=1).mean(axis=1) for each in (held, marked))
    return 1 - wrong, told


def power_at_detectable(
    rng: np.random.Generator, seeds: int, items: int, sd: float, trials: int = TRIALS // 4
) -> tuple[float, float, float]:
    """Return the difference that `detectable` names of equally noisy rows, how often it is seen, and the one alone.

    Squares are averaged over trials.
    """
    squares = []
    for base, *rows in draws(rng, seeds, items, sd * EQUAL, [MEAN] * len(EQUAL), trials):
        squares.append(_squares([row - base for row in rows]))
    usual = np.concatenate(squares, axis=1).mean(axis=(1, 2))
    difference = detectable(usual, seeds, items, len(EQUAL) - 1)
    alone = detectable(usual, seeds, items)
    assert difference is not None
    assert alone is not None
    if MEAN + difference > 90 and items > 1:  # no row has so much
        return difference, float("nan"), alone
    seen = []
    for base, *rows in draws(rng, seeds, items, sd * EQUAL, [MEAN] + [MEAN + difference] * (len(EQUAL) - 1), trials):
        gains = [row - base for row in rows]
        found = _squares(gains)
        seen.append(_means(gains) > half_width(found, seeds, items, lend(found[0], seeds)))
    return difference, float(np.concatenate(seen).mean()), alone


def share_coverage(
    rng: np.random.Generator, seeds: int, items: int, sd: float, trials: int = TRIALS
) -> tuple[float, float]:
    """Return how often the intervals of the shares 0, 0.2, … 1 hold them, among how many tables that have any."""
    truths = np.linspace(0, 1, 6)
    hits, told = [], []
    means = [MEAN, 2 * MEAN, *(MEAN * (1 + truths))]
    for floor, ceiling, *rows in draws(rng, seeds, items, np.full(len(means), sd), means, trials):
        span, gains = ceiling - floor, [row - floor for row in rows]
        told.append(span.mean(axis=(-1, -2)) > half_width(mean_squares(span), seeds, items))
        for row, truth in enumerate(truths):
            rest = [gain - truth * span for gain in gains]
            squares = _squares(rest)
            halves = half_width(squares, seeds, items, lend(squares[0], seeds))
            hits.append((abs(_means(rest)) <= halves)[told[-1], row])
    return float(np.concatenate(hits).mean()), float(np.concatenate(told).mean())


def holm_errors(
    rng: np.random.Generator, seeds: int, items: int, sds: Table, trials: int = TRIALS
) -> tuple[float, float]:
    """Return how often a table of rows × 6 probes, all as random weights, has a mark: plain, and after Holm.

    Holm's step-down leaves a mark where the smallest p-value times their number is below 5 %. `sds` as in `errors`.
    """
    probes, rows = 6, len(sds) - 1
    alphas = 1 - LEVEL, (1 - LEVEL) / (probes * rows)
    told = []
    for _ in range(probes):
        of_probe = []
        for base, *others in draws(rng, seeds, items, sds, [MEAN] * len(sds), trials):
            gains = [row - base for row in others]
            squares, off = _squares(gains), abs(_means(gains))
            loan = lend(squares[0], seeds)
            marked = [off > half_width(squares, seeds, items, loan, alpha) for alpha in alphas]
            of_probe.append(np.any(marked, axis=-1))
        told.append(np.concatenate(of_probe, axis=1))
    plain, corrected = np.any(told, axis=0).mean(axis=1)
    return float(plain), float(corrected)


def rank_errors(rng: np.random.Generator, rows: int = 8, probes: int = 6, trials: int = TRIALS) -> tuple[float, float]:
    """Return how often rows of no difference are told apart: by the test of Friedman, by any pair's mean ranks."""
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
    """Return 3 × trials × rows."""
    return np.stack([mean_squares(table) for table in tables], axis=-1)


def _means(tables: Sequence[Table]) -> Table:
    """Return trials × rows."""
    return np.stack([table.mean(axis=(-1, -2)) for table in tables], axis=-1)


def _line(*cells: str | float) -> None:
    """Print a row of a table, rates as percent."""
    texts = (cell if isinstance(cell, str) else "–" if np.isnan(cell) else f"{100 * cell:.1f}" for cell in cells)
    print(f"| {' | '.join(texts)} |", flush=True)


def _head(*names: str) -> None:
    print(f"\n| {' | '.join(names)} |\n{'| --: ' * len(names)}|", flush=True)


def _print_equal(seeds: int, trials: int) -> None:
    """Print a line for each number of items and standard deviation over seeds, which all rows have."""
    settings = [(items, sd) for items in (500, 2000, 4000) for sd in (0.0, 0.5, 1.0, 2.0, 4.0)]
    for items, sd in [(1, 1.0), *settings]:
        rng = np.random.default_rng((seeds, items, round(10 * sd)))
        held, marked = errors(rng, seeds, items, sd * EQUAL, trials)
        difference, seen, alone = power_at_detectable(rng, seeds, items, sd, max(1, trials // 4))
        rates = [*held.mean(axis=1), *marked.mean(axis=1)]
        _line(str(seeds), _items(items), f"{sd}", *rates, f"{difference:.1f}", f"{alone:.1f}", seen)


def _print_unequal(seeds: int, trials: int) -> None:
    """Print a line for each kind of table: its quietest rows, then its noisiest."""
    for place, (kind, sds) in enumerate(UNEQUAL.items()):
        rows = sds[1:]
        for items, sd in [(1, 1.0), (500, 1.0), (500, 4.0), (4000, 1.0), (4000, 4.0)]:
            found = errors(np.random.default_rng((seeds, items, round(10 * sd), place)), seeds, items, sd * sds, trials)
            ends = [rows == end for end in sorted({rows.min(), rows.max()})]
            rates = [rate for which in ends for each in found for rate in each[:, which].mean(axis=1)]
            _line(kind, str(seeds), _items(items), f"{sd}", *(rates + [np.nan] * 4)[:8])


def _items(items: int) -> str:
    return "none" if items == 1 else str(items)


def main() -> None:
    """Print all tables as Markdown."""
    parser = argparse.ArgumentParser(description="Measure coverage and false positives by simulation.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 4, 5], help="numbers of seeds, 2 or more")
    parser.add_argument("--trials", type=int, default=TRIALS)
    options = parser.parse_args()
    if min(options.seeds) < 2 or options.trials < 1:
        parser.error("--seeds must be 2 or more, --trials 1 or more")
    _head("seeds", "items", "seed sd", "holds %", "alone", "false + %", "alone", "power at", "alone", "seen %")
    for seeds in options.seeds:
        _print_equal(seeds, options.trials)
    _head("table", "seeds", "items", "seed sd", *("holds %", "alone", "false + %", "alone") * 2)
    for seeds in options.seeds:
        _print_unequal(seeds, options.trials)
    _head("seeds", "items", "seed sd", "share held %", "has one %", "any plain mark of 36 %", "any after Holm %")
    for seeds in options.seeds:
        for items, sd in [(500, 0.0), (500, 1.0), (500, 2.0), (500, 4.0), (4000, 1.0), (4000, 2.0), (4000, 4.0)]:
            rng = np.random.default_rng((seeds, items, round(10 * sd)))
            held, has_one = share_coverage(rng, seeds, items, sd, options.trials)
            marks = holm_errors(rng, seeds, items, sd * EQUAL, options.trials)
            _line(str(seeds), str(items), f"{sd}", held, has_one, *marks)
    _head("table", "seeds", "items", "seed sd", "any plain mark of 36 %", "any after Holm %")
    for seeds in options.seeds:
        for kind, sds in UNEQUAL.items():
            marks = holm_errors(np.random.default_rng((seeds, 4000, 20)), seeds, 4000, 2.0 * sds, options.trials)
            _line(kind, str(seeds), "4000", "2.0", *marks)
    overall, pairs = rank_errors(np.random.default_rng(0), trials=options.trials)
    print(
        f"\n8 rows of no difference by 6 probes: Friedman {100 * overall:.1f} %, any pair (Nemenyi) {100 * pairs:.1f} %"
    )

"""How often the intervals are right: every method of benchmarks/intervals.py on data whose truth is known.

    python -m benchmarks.coverage

prints the tables of docs/statistics.md (some minutes). What is drawn is like what is measured: binary items,
right (100) or wrong (0), that are hard or easy for every seed and every row alike, and rows that a seed shifts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtrit

from benchmarks.intervals import (
    LEVEL,
    Table,
    detectable,
    half_width,
    holm,
    mean_squares,
    rank,
    share,
    standard_error,
)

TRIALS = 2000
MEAN = 40.0
AGREEMENT = 0.45
"""Latent correlation of two seeds on an item; 0.3 between right and wrong, as in the linear probe on scenes."""
SHARED = 0.4
"""Latent correlation of two rows on an item."""


def draws(
    rng: np.random.Generator, seeds: int, items: int, sd: float, *means: float, trials: int = TRIALS
) -> Iterator[list[Table]]:
    """Yield tables trials × seeds × items, one a row, until there are `trials`.

    An item is right where a sum of normals lies below a threshold, so that each row's mean is known exactly.

    Args:
        rng: What is drawn from.
        seeds: S.
        items: n.
        sd: Of a row's mean over seeds, in points.
        means: Of each row, in points.
        trials: How many.
    """
    chunk = max(1, 4_000_000 // (seeds * items * len(means)))
    for start in range(0, trials, chunk):
        count = min(chunk, trials - start)
        common = np.sqrt(SHARED) * _normal(rng, count, 1, items)
        rows = []
        for mean in means:
            threshold = ndtri(mean / 100)
            shift = sd / 100 * np.sqrt(2 * np.pi) * np.exp(threshold**2 / 2)
            rest = np.sqrt(1 - AGREEMENT - shift**2)
            latent = common + np.sqrt(AGREEMENT - SHARED) * _normal(rng, count, 1, items)
            latent = latent + shift * _normal(rng, count, seeds, 1) + rest * _normal(rng, count, seeds, items)
            rows.append(np.where(latent < threshold, 100.0, 0.0))
        yield rows


def coverage(rng: np.random.Generator, seeds: int, items: int, sd: float, trials: int = TRIALS) -> float:
    """Return how often a row's interval holds its mean."""
    hits = [
        abs(cells.mean(axis=(-1, -2)) - MEAN) <= half_width(mean_squares(cells), seeds, items)
        for (cells,) in draws(rng, seeds, items, sd, MEAN, trials=trials)
    ]
    return float(np.concatenate(hits).mean())


def false_positives(
    rng: np.random.Generator, seeds: int, items: int, sd: float, trials: int = TRIALS
) -> tuple[float, float]:
    """Return how often two rows of equal means are told apart: by the paired interval, and by Satterthwaite's own."""
    found = []
    for row, other in draws(rng, seeds, items, sd, MEAN, MEAN, trials=trials):
        mean, squares = (row - other).mean(axis=(-1, -2)), mean_squares(row - other)
        found.append([abs(mean) > half_width(squares, seeds, items), abs(mean) > _satterthwaite(squares, seeds, items)])
    ours, classic = np.concatenate(found, axis=1).mean(axis=1)
    return float(ours), float(classic)


def power_at_detectable(
    rng: np.random.Generator, seeds: int, items: int, sd: float, trials: int = TRIALS
) -> tuple[float, float]:
    """Return the difference that `detectable` names, from squares averaged over trials, and how often it is seen."""
    equal = draws(rng, seeds, items, sd, MEAN, MEAN, trials=trials)
    squares = np.concatenate([mean_squares(row - other) for row, other in equal], axis=-1)
    difference = detectable(squares.mean(axis=-1), seeds, items)
    assert difference is not None
    if MEAN + difference > 90:  # no row has so much
        return difference, float("nan")
    seen = []
    for row, other in draws(rng, seeds, items, sd, MEAN + difference, MEAN, trials=trials):
        gain = row - other
        seen.append(gain.mean(axis=(-1, -2)) > half_width(mean_squares(gain), seeds, items))
    return difference, float(np.concatenate(seen).mean())


def share_coverage(
    rng: np.random.Generator, seeds: int, items: int, sd: float, trials: int = TRIALS
) -> tuple[float, float]:
    """Return how often the interval of a share of 0.25 holds it, among how many that have one."""
    hits, count = 0, 0
    for tables in draws(rng, seeds, items, sd, 50.0, 40.0, 80.0, trials=trials):
        for row, floor, ceiling in zip(*tables, strict=True):
            found = share(row - floor, ceiling - floor)
            if found.low is not None and found.high is not None:
                hits, count = hits + (found.low <= 0.25 <= found.high), count + 1
    return hits / max(count, 1), count / trials


def holm_errors(
    rng: np.random.Generator, seeds: int, items: int, sd: float, trials: int = TRIALS
) -> tuple[float, float]:
    """Return how often a table of 7 rows × 6 probes, all as random weights, has a mark: plain, and after Holm."""
    p_values = []
    for _ in range(6):
        of_probe = []
        for base, *rows in draws(rng, seeds, items, sd, *[MEAN] * 8, trials=trials):
            gains = np.stack([row - base for row in rows], axis=1)
            error, freedom = standard_error(mean_squares(gains), seeds, items)
            of_probe.append(_p_values(gains.mean(axis=(-1, -2)), error, freedom))
        p_values.append(np.concatenate(of_probe))
    table = np.concatenate(p_values, axis=1)
    plain = (table < 1 - LEVEL).any(axis=1).mean()
    return float(plain), float(np.mean([min(holm(list(row))) < 1 - LEVEL for row in table]))


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


def _p_values(mean: Table, error: Table, freedom: Table) -> Table:
    return 2 * stdtr(freedom, -abs(mean) / error)


def _satterthwaite(squares: Table, seeds: int, items: int) -> Table:
    """Return the half width that sums both squares, with the freedom of Satterthwaite's approximation."""
    between_seeds, between_items, _ = squares
    total = between_seeds + between_items
    freedom = total**2 / (between_seeds**2 / (seeds - 1) + between_items**2 / (items - 1))
    return stdtrit(freedom, (1 + LEVEL) / 2) * np.sqrt(total / (seeds * items))


def main() -> None:
    """Print all tables as Markdown."""
    parser = argparse.ArgumentParser(description="Measure coverage and false positives by simulation.")
    parser.add_argument("--trials", type=int, default=TRIALS)
    trials = parser.parse_args().trials
    rng = np.random.default_rng(0)
    deviations = (0.0, 0.5, 1.0, 2.0, 4.0)
    print(
        "| seeds | items | seed sd | holds the mean % | false + % | false + %, Satterthwaite | 80 % power at | seen % |"
    )
    print("| --: " * 8 + "|")
    for seeds in (2, 3, 5):
        for items in (500, 2000, 4000):
            for sd in deviations:
                held = coverage(rng, seeds, items, sd, trials)
                ours, classic = false_positives(rng, seeds, items, sd, trials)
                difference, seen = power_at_detectable(rng, seeds, items, sd, trials)
                cells = [f"{100 * x:.1f}" for x in (held, ours, classic)] + [f"{difference:.1f}", f"{100 * seen:.0f}"]
                line = " | ".join(cells).replace("nan", "–")
                print(f"| {seeds} | {items} | {sd} | {line} |", flush=True)
    print("\n| seeds | seed sd | share held % | with an interval % | any of 42 marks % | any after Holm % |")
    print("| --: " * 6 + "|")
    for seeds in (2, 3, 5):
        for sd in (0.0, 1.0, 2.0):
            numbers = [*share_coverage(rng, seeds, 500, sd, trials), *holm_errors(rng, seeds, 500, sd, trials)]
            print(f"| {seeds} | {sd} | {' | '.join(f'{100 * x:.1f}' for x in numbers)} |", flush=True)
    overall, pairs = rank_errors(rng, trials=trials)
    print(
        f"\n8 rows of no difference by 6 probes: Friedman {100 * overall:.1f} %, any pair (Nemenyi) {100 * pairs:.1f} %"
    )


if __name__ == "__main__":
    main()

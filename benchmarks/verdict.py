"""What the numbers say: means over seeds with intervals, differences from random weights, and which are real.

Rows are compared item by item and seed by seed; where the items of two rows do not match in number, seed by
seed. `distinguishable` means that the difference's own 95 % interval excludes 0, `survives_holm` that it
still does so when all headline comparisons of the table are held to 95 % together. The statistics themselves
are in benchmarks/intervals.py, their reasons and measured error rates in docs/statistics.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.intervals import (
    ALONE,
    LEVEL,
    Interval,
    Loan,
    Ranking,
    Table,
    detectable,
    holm,
    interval,
    lend,
    mean_squares,
    rank,
    shares,
)
from benchmarks.ordering import probe_key, row_key
from benchmarks.results import Measurement

if TYPE_CHECKING:
    import pandas as pd

BASELINE = "random"
CEILING = "supervised"
REFERENCES = (BASELINE, CEILING)
"""Rows that neither borrow of others' spread between seeds nor lend of theirs."""
Place = tuple[str, str, str]
"""A row, a probe and a metric."""
FEWEST_PROBES = 3
"""Fewer say nothing of a mean rank."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """What is known of one metric of one row, over its seeds."""

    pretext: str
    probe: str
    metric: str
    unit: str
    higher_is_better: bool
    chance: float | None
    headline: bool
    stage: str
    """The stage that was read; where seeds differ, the one most often chosen."""
    seeds: int
    n: int
    """Test items a seed."""
    mean: float
    low: float | None
    """Lower end of the 95 % interval; None where nothing can be said."""
    high: float | None
    difference: float | None
    """Mean difference from `random`, in the metric's unit; None for `random` itself or without it."""
    difference_low: float | None
    difference_high: float | None
    distinguishable: bool | None
    """Whether the difference's interval excludes 0; None where it cannot be said."""
    p: float | None
    """Of no difference, two-sided; None where it cannot be said."""
    survives_holm: bool | None = None
    """Whether it holds among all headline comparisons of the table together; None where it is not of them."""
    share: float | None = None
    """How far from `random` to `supervised`, 1 being all the way; None where supervised is not better for certain."""
    share_low: float | None = None
    share_high: float | None = None
    detectable: float | None = None
    """Smallest difference that these seeds and test items show in 80 % of repetitions, for rows of this probe."""

    @property
    def better(self) -> bool | None:
        """Whether the row is better than random for certain (True), worse for certain (False), or neither."""
        if not self.distinguishable or self.difference is None:
            return None
        return (self.difference > 0) == self.higher_is_better


def summarise(measurements: Iterable[Measurement], *, baseline: str = BASELINE) -> list[Summary]:
    """Return one summary per row, probe and metric, in the fixed order of rows and columns.

    Where a metric was read at several stages, the headline's is taken, which was chosen on val.

    Args:
        measurements: Rows of any cells; the latest counts where one row, probe and seed was measured twice.
        baseline: The row that the others are compared with.
    """
    chosen = one_per_seed(measurements)
    cells = {place: tables(by_seed)[0] for place, by_seed in chosen.items()}
    differences = {}
    for (pretext, probe, metric), by_seed in chosen.items():
        other = chosen.get((baseline, probe, metric), {}) if pretext != baseline else {}
        if by_seed.keys() & other.keys():
            row, base = tables(by_seed, other)
            differences[pretext, probe, metric] = row - base
    loans, loans_of_differences, parts = loans_among(cells), loans_among(differences), _shares(chosen)
    summaries = []
    for place, by_seed in chosen.items():
        pretext, probe, metric = place
        rows = list(by_seed.values())
        own = interval(cells[place], loans.get(place, ALONE))
        difference, part = Interval(math.nan, None, None), parts.get(place)
        if place in differences:
            difference = interval(differences[place], loans_of_differences.get(place, ALONE))
        summaries.append(
            Summary(
                pretext=pretext,
                probe=probe,
                metric=metric,
                unit=rows[0].unit,
                higher_is_better=rows[0].higher_is_better,
                chance=rows[0].chance,
                headline=any(row.headline for row in rows),
                stage=Counter(row.stage for row in rows).most_common(1)[0][0],
                seeds=len(rows),
                n=rows[0].n,
                mean=own.mean,
                low=own.low,
                high=own.high,
                difference=None if math.isnan(difference.mean) else difference.mean,
                difference_low=difference.low,
                difference_high=difference.high,
                distinguishable=None if difference.p is None else difference.p < 1 - LEVEL,
                p=difference.p,
                share=part.mean if part else None,
                share_low=part.low if part else None,
                share_high=part.high if part else None,
            )
        )
    summaries = _over_the_table(summaries, differences)
    return sorted(summaries, key=lambda s: (row_key(s.pretext), probe_key(s.probe), not s.headline, s.metric))


def table(summaries: Sequence[Summary]) -> pd.DataFrame:
    """Return the headline means: rows by pretext task, columns by probe, NaN where there is none."""
    import pandas as pd

    headlines = [summary for summary in summaries if summary.headline]
    rows = sorted({summary.pretext for summary in headlines}, key=row_key)
    columns = sorted({summary.probe for summary in headlines}, key=probe_key)
    frame = pd.DataFrame(math.nan, index=pd.Index(rows, name="pretext"), columns=pd.Index(columns, name="probe"))
    for summary in headlines:
        frame.loc[summary.pretext, summary.probe] = summary.mean
    return frame


def ranking(summaries: Sequence[Summary]) -> Ranking | None:
    """Return the rows' mean ranks over the probes that random weights were read by; rows that lack one are left out.

    Returns:
        None of fewer than three probes or two rows.
    """
    means = {(s.pretext, s.probe): s.mean * (1 if s.higher_is_better else -1) for s in summaries if s.headline}
    probes = sorted({probe for row, probe in means if row == BASELINE}, key=probe_key)
    rows = sorted({row for row, _ in means if all((row, probe) in means for probe in probes)}, key=row_key)
    if len(probes) < FEWEST_PROBES or len(rows) < 2:
        return None
    return rank(np.array([[means[row, probe] for row in rows] for probe in probes]), rows, probes)


def smallest_seen(column: Iterable[Summary]) -> float | None:
    """Return the smallest difference that a probe's rows are likely to show; None where none of them can say."""
    return next((s.detectable for s in column if s.detectable is not None), None)


def tables(*rows: Mapping[int, Measurement]) -> list[Table]:
    """Return each row's results as seeds × items: of the seeds that all have, in the same order.

    Where a seed of any row lacks items, or has another number of them, the seeds' values alone: seeds × 1.
    """
    seeds = [seed for seed in rows[0] if all(seed in row for row in rows)]
    readings = [[row[seed] for seed in seeds] for row in rows]
    counts = {len(reading.items or ()) for row in readings for reading in row}
    whole = len(counts) == 1 and counts != {0}
    return [np.array([r.items if whole else [r.value] for r in row], dtype=np.float64) for row in readings]


def _over_the_table(summaries: Sequence[Summary], differences: Mapping[Place, Table]) -> list[Summary]:
    """Add what only the whole table tells: Holm's correction, and each probe's power."""
    family = [s for s in summaries if s.headline and s.p is not None]
    adjusted = holm([s.p for s in family if s.p is not None])
    survives = {id(s): p < 1 - LEVEL for s, p in zip(family, adjusted, strict=True)}
    power = {
        (probe, metric): _power([(row, t) for (row, *where), t in differences.items() if where == [probe, metric]])
        for probe, metric in {(s.probe, s.metric) for s in summaries}
    }
    return [
        dataclasses.replace(s, survives_holm=survives.get(id(s)), detectable=power[s.probe, s.metric])
        for s in summaries
    ]


def _power(differences: Sequence[tuple[str, Table]]) -> float | None:
    """Return what a row could have shown, from the rows' mean squares averaged: one row's own few seeds tell little."""
    usual = [table for row, table in differences if row != CEILING] or [table for _, table in differences]
    if not usual:
        return None
    (seeds, items), _ = Counter(table.shape for table in usual).most_common(1)[0]
    squares = np.stack([mean_squares(table) for table in usual if table.shape == (seeds, items)], axis=-1)
    return detectable(squares.mean(axis=-1), seeds, items, squares.shape[-1])


def _neighbours(cells: Mapping[Place, Table]) -> list[list[Place]]:
    """Return the rows that lend each other: of one probe and metric, with tables of one shape, and no references."""
    found: dict[tuple[object, ...], list[Place]] = {}
    for (pretext, probe, metric), table in cells.items():
        if pretext not in REFERENCES:
            found.setdefault((probe, metric, table.shape), []).append((pretext, probe, metric))
    return list(found.values())


def loans_among(cells: Mapping[Place, Table]) -> dict[Place, Loan]:
    """Return what each row's neighbours lend it; rows that have none are left out."""
    found: dict[Place, Loan] = {}
    for places in _neighbours(cells):
        squares = np.array([mean_squares(cells[place])[0] for place in places])
        found |= dict.fromkeys(places, lend(squares, cells[places[0]].shape[0]))
    return found


def _shares(chosen: Mapping[Place, Mapping[int, Measurement]]) -> dict[Place, Interval]:
    """Return how far each row is on the way from random weights to labels, where there is a way."""
    gains, spans = {}, {}
    for (pretext, probe, metric), by_seed in chosen.items():
        ends = [chosen.get((name, probe, metric), {}) for name in REFERENCES]
        if pretext not in REFERENCES and by_seed.keys() & ends[0].keys() & ends[1].keys():
            row, floor, ceiling = tables(by_seed, *ends)
            sign = 1 if next(iter(by_seed.values())).higher_is_better else -1
            gains[pretext, probe, metric], spans[pretext, probe, metric] = (
                sign * (row - floor),
                sign * (ceiling - floor),
            )
    found: dict[Place, Interval] = {}
    for places in _neighbours(gains):
        parts = shares([gains[place] for place in places], [spans[place] for place in places])
        found |= {place: part for place, part in zip(places, parts, strict=True) if part is not None}
    return found


def one_per_seed(
    measurements: Iterable[Measurement],
) -> dict[Place, dict[int, Measurement]]:
    """Return rows by (pretext, probe, metric) and seed: the latest cell's, at the stage that counts."""
    cells: dict[tuple[str, str, int], dict[str, list[Measurement]]] = {}
    for row in measurements:
        cells.setdefault((row.pretext, row.probe, row.seed), {}).setdefault(row.cell, []).append(row)
    chosen: dict[Place, dict[int, Measurement]] = {}
    for (pretext, probe, seed), versions in sorted(cells.items()):
        rows = max(versions.values(), key=lambda version: version[0].started_at)
        stages = {row.stage for row in rows if row.headline}
        for metric in dict.fromkeys(row.metric for row in rows):
            readings = [row for row in rows if row.metric == metric]
            best = next((row for row in readings if row.headline), None)
            best = best or next((row for row in readings if row.stage in stages), readings[-1])
            chosen.setdefault((pretext, probe, metric), {})[seed] = best
    return chosen

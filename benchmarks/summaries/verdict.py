"""Summarise measurements: means over seeds with intervals, and differences from random weights with significance.

Rows are paired by seed and test item, or by seed alone where their numbers of items differ. `distinguishable` means
that the difference's own 95 % interval excludes 0; `survives_holm`, that it is significant after Holm's correction
for all headline comparisons of the table. The statistics are in `intervals`; docs/statistics.md gives the reasons and
simulated error rates.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.records.results import Measurement
from benchmarks.summaries.intervals import (
    LEVEL,
    NO_PRIOR,
    Interval,
    Table,
    VariancePrior,
    are_equal,
    detectable_difference,
    fit_variance_prior,
    gap_shares,
    holm,
    interval,
    mean_squares,
)
from benchmarks.summaries.ranks import Ranking, rank
from benchmarks.words.columns import probe_of
from benchmarks.words.naming import Row, named_rows
from benchmarks.words.ordering import UNRANKED, column_order, row_key
from pretext.system.checkpoint import atomic_write

BASELINE = "random"
CEILING = "supervised"
REFERENCES = (BASELINE, CEILING)
"""Rows whose variance is not moderated, and to which no variance prior is fitted."""
MetricKey = tuple[str, str, str]
"""Row, probe and metric."""
MIN_PROBES = 3
"""Fewest probes that rows are ranked over."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """One metric of one row, summarised over its seeds."""

    pretext: str
    """Name of the row in results.csv; `row.title` is the one that people read."""
    row: Row
    probe: str
    metric: str
    unit: str
    higher_is_better: bool
    chance: float | None
    """Score of the best answer without learning: the mean over seeds; None where there is none."""
    headline: bool
    stage: str
    """Stage that was read; where seeds differ, the most frequent one."""
    seeds: int
    n: int
    """Test items per seed."""
    mean: float
    low: float | None
    """Lower end of the 95 % interval; None where it cannot be estimated."""
    high: float | None
    difference: float | None
    """Mean difference from the baseline, in the metric's unit; None for the baseline itself or without it."""
    difference_low: float | None
    difference_high: float | None
    distinguishable: bool | None
    """Whether the difference's interval excludes 0; None where it cannot be estimated."""
    p: float | None
    """Two-sided p-value of no difference; None where it cannot be estimated."""
    plain_p: float | None = None
    """That of the paired t-test of the seeds' means, for comparison: it takes the test pictures as given."""
    survives_holm: bool | None = None
    """Whether it is significant after Holm's correction; None for what is not a headline comparison."""
    share: float | None = None
    """Share of the gap from `random` to `supervised`; None where `supervised` is not significantly better."""
    share_low: float | None = None
    share_high: float | None = None
    detectable: float | None = None
    """Smallest difference that is detected in 80 % of repetitions, for an average row of this probe."""
    digits: int = 1
    """Decimals that the numbers of its column have in tables and sentences; not in `summary.csv`."""

    def text(self, value: float, sign: str = "") -> str:
        """Return a number of its column as people read it; with the format's sign, as `+`."""
        return f"{value:{sign}.{self.digits}f}"

    @property
    def half_width(self) -> float | None:
        """Half of the width of the mean's interval; None without one."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def better(self) -> bool | None:
        """True if the row is significantly better than the baseline, False if significantly worse, else None."""
        if not self.distinguishable or self.difference is None:
            return None
        return (self.difference > 0) == self.higher_is_better


def summarise(measurements: Iterable[Measurement], *, baseline: str = BASELINE) -> list[Summary]:
    """Return one summary per row, probe and metric, in the fixed order of rows and columns; data sets as given.

    Where a metric was read at several stages, the headline's stage is taken, which was chosen on val.

    Args:
        measurements: Measurements of any cells; the latest cell of each row, probe and seed counts.
        baseline: Row that the others are compared with.
    """
    measurements = [*measurements]
    chosen = one_per_seed(measurements)
    cells = {key: tables(by_seed)[0] for key, by_seed in chosen.items()}
    differences = {}
    for (pretext, probe, metric), by_seed in chosen.items():
        other = chosen.get((baseline, probe, metric), {}) if pretext != baseline else {}
        if by_seed.keys() & other.keys():
            differences[pretext, probe, metric] = np.subtract(*tables(by_seed, other))
    priors, difference_priors = variance_priors(cells), variance_priors(differences)
    shares = _gap_shares(chosen)
    named = named_rows({m.pretext: m.config_json for m in measurements})
    summaries = []
    for key, by_seed in chosen.items():
        pretext, probe, metric = key
        rows = list(by_seed.values())
        own = interval(cells[key], priors.get(key, NO_PRIOR))
        difference, share = Interval(math.nan, None, None), shares.get(key)
        if key in differences:
            difference = interval(differences[key], difference_priors.get(key, NO_PRIOR))
        summaries.append(
            Summary(
                pretext=pretext,
                row=named[pretext],
                probe=probe,
                metric=metric,
                unit=rows[0].unit,
                higher_is_better=rows[0].higher_is_better,
                chance=mean_chance(rows),
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
                plain_p=_paired_t(differences[key]) if key in differences else None,
                share=share.mean if share else None,
                share_low=share.low if share else None,
                share_high=share.high if share else None,
            )
        )
    summaries = _with_digits(_with_holm_and_power(summaries, differences))
    place = {column: at for at, column in enumerate(column_order(m.probe for m in measurements))}
    return sorted(summaries, key=lambda s: (row_key(s.pretext), place[s.probe], not s.headline, s.metric))


def mean_chance(measurements: Sequence[Measurement]) -> float | None:
    """Return the mean score of the best answer without learning; None if no measurement has one."""
    known = [m.chance for m in measurements if m.chance is not None]
    return sum(known) / len(known) if known else None


def without_learning(summaries: Iterable[Summary]) -> dict[str, str]:
    """Return the score of the best answer without learning, by column, for those headline numbers that have one."""
    return {s.probe: s.text(s.chance) for s in summaries if s.headline and s.chance is not None}


def write_summaries(out: Path, summaries: Sequence[Summary]) -> Path:
    """Write `summary.csv`, one line per row, probe and metric with the numbers of `Summary`; return its path."""
    path = out / "summary.csv"
    names = [each.name for each in dataclasses.fields(Summary) if each.name not in ("row", "digits")]
    with atomic_write(path) as beside, beside.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(vars(summary) for summary in summaries)
    return path


def _with_digits(summaries: Sequence[Summary]) -> list[Summary]:
    """Return the summaries with one decimal, or as many as show two digits of a column's widest half interval."""
    widest: dict[tuple[str, str], float] = {}
    for s in summaries:
        width = abs(s.mean) if s.half_width is None else s.half_width
        widest[s.probe, s.metric] = max(width, widest.get((s.probe, s.metric), 0.0))
    digits = {key: 1 if not 0 < width < 0.1 else 1 - math.floor(math.log10(width)) for key, width in widest.items()}
    return [dataclasses.replace(s, digits=digits[s.probe, s.metric]) for s in summaries]


def _paired_t(difference: Table) -> float | None:
    """Return the two-sided p-value of Student's paired t-test on the means of the seeds; None if they do not vary."""
    means = difference.mean(axis=1)
    if len(means) < 2 or are_equal(means):
        return None
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(means, 0.0).pvalue)


def ranking(summaries: Sequence[Summary]) -> Ranking | None:
    """Return the rows' mean ranks over the probes of the `random` row; rows that lack one of them are left out.

    Probes in `UNRANKED` do not count. None with fewer than `MIN_PROBES` others, or fewer than two rows.
    """
    means = {(s.pretext, s.probe): s.mean * (1 if s.higher_is_better else -1) for s in summaries if s.headline}
    probes = column_order(probe for row, probe in means if row == BASELINE and probe_of(probe) not in UNRANKED)
    rows = sorted({row for row, _ in means if all((row, probe) in means for probe in probes)}, key=row_key)
    if len(probes) < MIN_PROBES or len(rows) < 2:
        return None
    return rank(np.array([[means[row, probe] for row in rows] for probe in probes]), rows, probes)


def smallest_detectable(column: Iterable[Summary]) -> float | None:
    """Return a probe's smallest detectable difference; None where it cannot be estimated."""
    return next((s.detectable for s in column if s.detectable is not None), None)


def tables(*rows: Mapping[int, Measurement]) -> list[Table]:
    """Return each row's results as seeds × items, for the seeds that all rows have, in the same order.

    If any result lacks items, or their numbers differ, return the seeds' values, seeds × 1.
    """
    seeds = [seed for seed in rows[0] if all(seed in row for row in rows)]
    readings = [[row[seed] for seed in seeds] for row in rows]
    counts = {len(reading.items or ()) for row in readings for reading in row}
    whole = len(counts) == 1 and counts != {0}
    return [np.array([r.items if whole else [r.value] for r in row], dtype=np.float64) for row in readings]


def _with_holm_and_power(summaries: Sequence[Summary], differences: Mapping[MetricKey, Table]) -> list[Summary]:
    """Add Holm's correction over all headline comparisons, and each probe's smallest detectable difference."""
    family = [s for s in summaries if s.headline and s.p is not None]
    adjusted = holm([s.p for s in family if s.p is not None])
    survives = {id(s): p < 1 - LEVEL for s, p in zip(family, adjusted, strict=True)}
    detectable = {
        (probe, metric): _detectable([(row, t) for (row, *of), t in differences.items() if of == [probe, metric]])
        for probe, metric in {(s.probe, s.metric) for s in summaries}
    }
    return [
        dataclasses.replace(s, survives_holm=survives.get(id(s)), detectable=detectable[s.probe, s.metric])
        for s in summaries
    ]


def _detectable(differences: Sequence[tuple[str, Table]]) -> float | None:
    """Return the smallest detectable difference for the rows' average mean squares: one row has too few seeds."""
    usual = [table for row, table in differences if row != CEILING] or [table for _, table in differences]
    if not usual:
        return None
    (seeds, items), _ = Counter(table.shape for table in usual).most_common(1)[0]
    squares = np.stack([mean_squares(table) for table in usual if table.shape == (seeds, items)], axis=-1)
    return detectable_difference(squares.mean(axis=-1), seeds, items, squares.shape[-1])


def _moderation_groups(cells: Mapping[MetricKey, Table]) -> list[list[MetricKey]]:
    """Group rows that share a variance prior: one probe and metric, tables of one shape, no reference rows."""
    found: dict[tuple[object, ...], list[MetricKey]] = {}
    for (pretext, probe, metric), table in cells.items():
        if pretext not in REFERENCES:
            found.setdefault((probe, metric, table.shape), []).append((pretext, probe, metric))
    return list(found.values())


def variance_priors(cells: Mapping[MetricKey, Table]) -> dict[MetricKey, VariancePrior]:
    """Return each row's variance prior, fitted to its group; reference rows have none."""
    found: dict[MetricKey, VariancePrior] = {}
    for keys in _moderation_groups(cells):
        squares = np.array([mean_squares(cells[key])[0] for key in keys])
        found |= dict.fromkeys(keys, fit_variance_prior(squares, cells[keys[0]].shape[0]))
    return found


def _gap_shares(chosen: Mapping[MetricKey, Mapping[int, Measurement]]) -> dict[MetricKey, Interval]:
    """Return each row's share of the gap from random weights to labels, where that gap is significant."""
    gains, gaps = {}, {}
    for (pretext, probe, metric), by_seed in chosen.items():
        ends = [chosen.get((name, probe, metric), {}) for name in REFERENCES]
        if pretext not in REFERENCES and by_seed.keys() & ends[0].keys() & ends[1].keys():
            key = (pretext, probe, metric)
            row, floor, ceiling = tables(by_seed, *ends)
            sign = 1 if next(iter(by_seed.values())).higher_is_better else -1
            gains[key], gaps[key] = sign * (row - floor), sign * (ceiling - floor)
    found: dict[MetricKey, Interval] = {}
    for keys in _moderation_groups(gains):
        shares = gap_shares([gains[key] for key in keys], [gaps[key] for key in keys])
        found |= {key: share for key, share in zip(keys, shares, strict=True) if share is not None}
    return found


def one_per_seed(measurements: Iterable[Measurement]) -> dict[MetricKey, dict[int, Measurement]]:
    """Return one measurement by row, probe, metric and seed: from the latest cell, at the headline's stage."""
    cells: dict[tuple[str, str, int], dict[str, list[Measurement]]] = {}
    for row in measurements:
        cells.setdefault((row.pretext, row.probe, row.seed), {}).setdefault(row.cell, []).append(row)
    chosen: dict[MetricKey, dict[int, Measurement]] = {}
    for (pretext, probe, seed), versions in sorted(cells.items()):
        rows = max(versions.values(), key=lambda version: version[0].started_at)
        stages = {row.stage for row in rows if row.headline}
        for metric in dict.fromkeys(row.metric for row in rows):
            readings = [row for row in rows if row.metric == metric]
            best = next((row for row in readings if row.headline), None)
            best = best or next((row for row in readings if row.stage in stages), readings[-1])
            chosen.setdefault((pretext, probe, metric), {})[seed] = best
    return chosen

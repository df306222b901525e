"""What the numbers say: means over seeds with intervals, differences from random weights, and which are real.

**Interval.** A score's per-item results form a table of S seeds × n test items. The variance of its grand
mean is estimated as (variance of the seeds' means) / S + (variance of the items' means) / n. Each term is
what a bootstrap, over seeds or over test items, converges to, times S / (S - 1) and n / (n - 1): the
bootstrap variance of a mean has this closed form, so nothing needs to be drawn. Adding them treats seeds and
items as crossed random effects, as the pigeonhole bootstrap does (Owen, Annals of Applied Statistics 1,
2007), and like it errs to the safe side: the noise of a single item at a single seed is counted in both
terms. The interval is mean ± t·√variance, Student's t at 95 % with the degrees of freedom of Satterthwaite
(Biometrics Bulletin 2, 1946): with two or three seeds the percentiles of a bootstrap are far too narrow. One
seed: the items alone, so that the interval says nothing of another seed's result. A metric that is no mean
over items (mAP, mIoU): the seeds alone, and with one seed no interval at all.

**Difference from random.** Item by item and seed by seed: the same estimate on the table of differences.
Where the items of two rows do not match in number, seed by seed. `distinguishable` means that its interval
excludes 0; each comparison stands at 95 % by itself, so that among twenty of nothing one is expected to be
wrong.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import Measurement

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
BASELINE = "random"
ROW_ORDER = (
    "random",
    "supervised",
    "autoencoder",
    "denoising_autoencoder",
    "context_encoder",
    "context_encoder:adversarial",
    "rotation",
    "simclr",
)
"""Rows of a table, from the top; others follow by name."""
PROBE_ORDER = (
    "linear",
    "knn",
    "svm",
    "low_shot",
    "fine_tune",
    "detection",
    "segmentation",
    "retrieval",
    "inpainting",
)
"""Columns of a table, from the left; others follow by name."""


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

    @property
    def better(self) -> bool | None:
        """Whether the row is better than random for certain (True), worse for certain (False), or neither."""
        if not self.distinguishable or self.difference is None:
            return None
        return (self.difference > 0) == self.higher_is_better


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float | None
    high: float | None


def summarise(measurements: Iterable[Measurement], *, baseline: str = BASELINE) -> list[Summary]:
    """Return one summary per row, probe and metric, in the fixed order of rows and columns.

    Where a metric was read at several stages, the headline's is taken, which was chosen on val.

    Args:
        measurements: Rows of any cells; the latest counts where one row, probe and seed was measured twice.
        baseline: The row that the others are compared with.
    """
    chosen = _one_per_seed(measurements)
    summaries = []
    for (pretext, probe, metric), by_seed in chosen.items():
        rows = list(by_seed.values())
        own = interval([row.value for row in rows], [row.items for row in rows])
        other = chosen.get((baseline, probe, metric), {}) if pretext != baseline else {}
        pairs = [(row, other[seed]) for seed, row in by_seed.items() if seed in other]
        difference = _difference(pairs)
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
                difference=difference.mean if difference else None,
                difference_low=difference.low if difference else None,
                difference_high=difference.high if difference else None,
                distinguishable=_excludes_zero(difference),
            )
        )
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


def interval(values: Sequence[float], items: Sequence[Sequence[float] | None]) -> Interval:
    """Return the mean over seeds and its 95 % interval.

    Args:
        values: One a seed.
        items: Per-item results of each seed; used where all have them, in the same number.

    Source: see the module.
    """
    mean = float(np.mean(values))
    terms: list[tuple[float, int]] = []  # variance of the mean, and its degrees of freedom
    if len(values) > 1:
        terms.append((float(np.var(values, ddof=1)) / len(values), len(values) - 1))
    cells = _rectangle(items)
    if cells is not None and cells.shape[1] > 1:
        terms.append((float(np.var(cells.mean(axis=0), ddof=1)) / cells.shape[1], cells.shape[1] - 1))
    if not terms:
        return Interval(mean, None, None)
    variance = sum(term for term, _ in terms)
    if variance == 0:
        return Interval(mean, mean, mean)
    freedom = variance**2 / sum(term**2 / degrees for term, degrees in terms)
    half = _student(freedom) * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half)


def row_key(pretext: str) -> tuple[int, str]:
    """Return what rows are sorted by."""
    return (ROW_ORDER.index(pretext) if pretext in ROW_ORDER else len(ROW_ORDER), pretext)


def probe_key(probe: str) -> tuple[int, str]:
    """Return what columns are sorted by."""
    return (PROBE_ORDER.index(probe) if probe in PROBE_ORDER else len(PROBE_ORDER), probe)


def _difference(pairs: list[tuple[Measurement, Measurement]]) -> Interval | None:
    if not pairs:
        return None
    items: list[list[float] | None] = []
    for row, other in pairs:
        match = row.items is not None and other.items is not None and len(row.items) == len(other.items)
        items.append(list(np.subtract(row.items, other.items)) if match else None)  # type: ignore[arg-type]
    return interval([row.value - other.value for row, other in pairs], items)


def _excludes_zero(difference: Interval | None) -> bool | None:
    if difference is None or difference.low is None or difference.high is None:
        return None
    return not difference.low <= 0 <= difference.high


def _one_per_seed(
    measurements: Iterable[Measurement],
) -> dict[tuple[str, str, str], dict[int, Measurement]]:
    """Return rows by (pretext, probe, metric) and seed: the latest cell's, at the stage that counts."""
    cells: dict[tuple[str, str, int], dict[str, list[Measurement]]] = {}
    for row in measurements:
        cells.setdefault((row.pretext, row.probe, row.seed), {}).setdefault(row.cell, []).append(row)
    chosen: dict[tuple[str, str, str], dict[int, Measurement]] = {}
    for (pretext, probe, seed), versions in sorted(cells.items()):
        rows = max(versions.values(), key=lambda version: version[0].started_at)
        stages = {row.stage for row in rows if row.headline}
        for metric in dict.fromkeys(row.metric for row in rows):
            readings = [row for row in rows if row.metric == metric]
            best = next((row for row in readings if row.headline), None)
            best = best or next((row for row in readings if row.stage in stages), readings[-1])
            chosen.setdefault((pretext, probe, metric), {})[seed] = best
    return chosen


def _rectangle(items: Sequence[Sequence[float] | None]) -> NDArray[np.float64] | None:
    """Return items as seeds × n; None where a seed lacks them or they differ in number."""
    given = [row for row in items if row is not None]
    if not given or len(given) < len(items) or len({len(row) for row in given}) > 1:
        return None
    return np.array(given, dtype=np.float64)


def _student(freedom: float) -> float:
    """Return the two-sided critical value of Student's t."""
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, freedom))

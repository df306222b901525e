"""Mean ranks of rows over probes, and by how much two must differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.special import fdtrc

from benchmarks.summaries.intervals import LEVEL, Table


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Mean ranks of k rows over N probes; 1 is best."""

    ranks: dict[str, float]
    """Mean rank by row, best first."""
    probes: tuple[str, ...]
    critical_difference: float
    """Two rows differ if their mean ranks differ by at least this; 95 % for all pairs together."""
    p: float
    """p-value of no difference between any rows."""

    def ends(self, row: str) -> tuple[float, float]:
        """Return the ends of a row's bar, clipped to possible ranks: rows whose bars do not overlap differ."""
        half = self.critical_difference / 2
        return max(1.0, self.ranks[row] - half), min(float(len(self.ranks)), self.ranks[row] + half)


def rank(scores: Table, rows: Sequence[str], probes: Sequence[str]) -> Ranking:
    """Return mean ranks, the p-value of Friedman's test and Nemenyi's critical difference.

    Args:
        scores: N probes × k rows; more is better. Equal scores share the mean of their ranks.
        rows: Names of the k rows, at least two.
        probes: Names of the N probes, at least two.

    Source:
        Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006, section 3.2.2: Friedman's
        test as corrected by Iman and Davenport (1980), and the test of Nemenyi (1963).
    """
    from scipy.stats import rankdata, studentized_range

    count, k = scores.shape
    ranks = np.asarray(rankdata(-scores, axis=1))
    means = ranks.mean(axis=0)
    between = count * float(((means - (k + 1) / 2) ** 2).sum())
    residual = float(((ranks - (k + 1) / 2) ** 2).sum()) - between
    p = float(between == 0)
    if residual > 1e-9:
        p = float(fdtrc(k - 1, (k - 1) * (count - 1), (count - 1) * between / residual))
    q = float(studentized_range.ppf(LEVEL, k, np.inf)) / np.sqrt(2)
    order = np.argsort(means, kind="stable")
    return Ranking(
        ranks={rows[i]: float(means[i]) for i in order},
        probes=tuple(probes),
        critical_difference=float(q * np.sqrt(k * (k + 1) / (6 * count))),
        p=p,
    )

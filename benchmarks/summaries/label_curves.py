"""Scores against the number of labels: how many labels a share is, what more bring, what a row is worth in labels.

A probe that trains on shares of the labels gives each row a curve. Between measured budgets a curve is a straight line
over the logarithm of the number of labels; outside them nothing is said.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.records.results import Measurement
from benchmarks.summaries.intervals import NO_PRIOR, Interval, Table, half_width, interval, mean_squares
from benchmarks.summaries.verdict import MetricKey, one_per_seed, tables, variance_priors
from pretext.datasets.base import ImageDataset

GRID = 200
"""Numbers of labels between two budgets at which `labels_worth` tests for a difference."""


class Worth(NamedTuple):
    """With how many labels one row reaches the score of another, and the ends of the 95 % interval.

    0 stands for fewer than were measured, infinity for more; ends are None where they cannot be estimated.
    """

    labels: float
    low: float | None
    high: float | None


def label_counts(data: ImageDataset, percents: Sequence[float], *, size: int) -> dict[float, int]:
    """Return how many training pictures each share of the labels is, as the probe `low_shot` draws them.

    Args:
        data: Any split of the data set.
        percents: Shares in percent.
        size: Image side in pixels; pictures that cannot be decoded at it do not count.
    """
    from downstream.label_sampling import share_of_each
    from pretext.datasets import at_size
    from pretext.datasets.classification import class_targets

    known = class_targets(at_size(data.split("train"), size, bad_images="skip", fit="crop"))
    return {percent: len(share_of_each(known, percent / 100, sample=0)) for percent in percents}


def gains(measurements: Sequence[Measurement], probe: str, fewer: str, more: str) -> dict[str, Interval]:
    """Return how much better each row is in one metric of a probe than in another, paired by seed and test item.

    Args:
        measurements: Measurements of any cells.
        probe: Column of the probe.
        fewer: Metric on fewer labels.
        more: The same on more labels.
    """
    chosen = one_per_seed(measurements)
    differences: dict[MetricKey, Table] = {}
    for (row, column, metric), by_seed in chosen.items():
        other = chosen.get((row, probe, fewer), {})
        if (column, metric) == (probe, more) and by_seed.keys() & other.keys():
            one, two = tables(by_seed, other)
            differences[row, probe, f"{more} minus {fewer}"] = one - two
    priors = variance_priors(differences)
    return {key[0]: interval(table, priors.get(key, NO_PRIOR)) for key, table in differences.items()}


def labels_worth(reached: Table, curve: Mapping[int, Table]) -> Worth:
    """Return with how many labels a curve reaches a score, with the numbers of labels that are not told apart from it.

    The interval holds the numbers of labels at which the curve does not differ from the score significantly.

    Args:
        reached: Results of a row with some budget, S × n; more is better.
        curve: Results of the other row by number of labels, on the same seeds and items; two or more budgets.
    """
    counts = sorted(curve)
    target, means = float(reached.mean()), [float(curve[count].mean()) for count in counts]
    labels = math.inf
    if means[0] >= target:
        labels = counts[0] if means[0] == target else 0.0
    else:
        for (few, below), (many, above) in itertools.pairwise(zip(counts, means, strict=True)):
            if below < target <= above:
                labels = few * (many / few) ** ((target - below) / (above - below))
                break
    if reached.size == 1:
        return Worth(labels, None, None)
    alike = []
    for few, many in itertools.pairwise(counts):
        for part in np.linspace(0.0, 1.0, GRID + 1):
            difference = reached - (1 - part) * curve[few] - part * curve[many]
            if abs(difference.mean()) <= half_width(mean_squares(difference), *difference.shape):
                alike.append(float(many) if part == 1 else few * (many / few) ** float(part))  # exact at the end
    if 0 < labels < math.inf:
        alike.append(labels)
    if not alike:
        return Worth(labels, labels, labels)
    low, high = min(alike), max(alike)
    return Worth(labels, 0.0 if low == counts[0] else low, math.inf if high >= counts[-1] else high)

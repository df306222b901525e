"""The fixed order of rows and columns in every table, plot and report, and the groups of rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from benchmarks.words.columns import by_set, probe_of

Group = Literal["reference", "plain", "task"]
REFERENCE_ROWS = ("random", "random:untouched", "supervised")
"""Rows that the others are compared with: they come first, ruled off."""
PLAIN_ROWS = ("hog", "pixels", "kmeans", "data_dependent")
"""Rows without training by gradients; they follow the references."""
TASK_ROWS = (
    "autoencoder",
    "denoising_autoencoder",
    "context_encoder",
    "context_encoder:adversarial",
    "rotation",
    "simclr",
)
"""The first rows of the tasks; other rows follow by name."""
ROW_ORDER = (*REFERENCE_ROWS, *PLAIN_ROWS, *TASK_ROWS)
"""Rows of a table from top to bottom; other rows follow by name."""
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
"""Columns of a table from left to right; other probes follow by name."""
UNRANKED = ("label_free",)
"""Probes of which a higher value does not show better features."""
WITHOUT_LABELS = ("label_free", "nearest_fill", "inpainting")
"""Probes that need no labels."""


def row_key(pretext: str) -> tuple[int, str]:
    """Return the sort key of a row."""
    return (ROW_ORDER.index(pretext) if pretext in ROW_ORDER else len(ROW_ORDER), pretext)


def probe_key(column: str) -> tuple[int, str]:
    """Return the sort key of a column within its data set."""
    probe = probe_of(column)
    return (PROBE_ORDER.index(probe) if probe in PROBE_ORDER else len(PROBE_ORDER), column)


def column_order(columns: Iterable[str]) -> list[str]:
    """Return each column once: data sets in the order in which they first occur, the probes of each in fixed order."""
    return [each for of_set in by_set(columns).values() for each in sorted({*of_set}, key=probe_key)]


def needs_labels(column: str) -> bool:
    """Return whether the probe of a column reads labels."""
    return probe_of(column) not in WITHOUT_LABELS


def group_of(pretext: str) -> Group:
    """Return the group of a row: a reference, plain (without training by gradients), or a task."""
    return "reference" if pretext in REFERENCE_ROWS else "plain" if pretext in PLAIN_ROWS else "task"

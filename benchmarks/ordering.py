"""The fixed order of rows and columns in every table, plot and report."""

from __future__ import annotations

ROW_ORDER = (
    "random",
    "random:untouched",
    "hog",
    "pixels",
    "kmeans",
    "supervised",
    "autoencoder",
    "denoising_autoencoder",
    "context_encoder",
    "context_encoder:adversarial",
    "rotation",
    "simclr",
)
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


def row_key(pretext: str) -> tuple[int, str]:
    """Return the sort key of a row."""
    return (ROW_ORDER.index(pretext) if pretext in ROW_ORDER else len(ROW_ORDER), pretext)


def probe_key(probe: str) -> tuple[int, str]:
    """Return the sort key of a column."""
    return (PROBE_ORDER.index(probe) if probe in PROBE_ORDER else len(PROBE_ORDER), probe)

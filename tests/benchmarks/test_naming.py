"""The names that people read, and the order and groups of rows."""

from __future__ import annotations

import pytest

from benchmarks.naming import encoder_title, metric_title, probe_title, row_title
from benchmarks.ordering import group_of, row_key
from benchmarks.probes import probe_names
from benchmarks.recipes import PLAIN, PROFILES


@pytest.mark.parametrize(
    ("row", "title"),
    [
        ("random", "Random weights"),
        ("random:untouched", "Random weights (uncalibrated)"),
        ("supervised", "Supervised"),
        ("hog", "HOG"),
        ("kmeans", "K-means filters"),
        ("simclr", "SimCLR"),
        ("simclr:small", "SimCLR (small)"),
        ("byol:small?momentum=0.9", "BYOL (small, momentum=0.9)"),
        ("context_encoder", "Context encoder"),
        ("context_encoder:adversarial", "Context encoder + adversary"),
        ("context_encoder?mask=central&flip=0", "Context encoder (mask=central, flip=0)"),
        ("my_task?x=1", "my_task?x=1"),  # a user's own row keeps its name
        ("context_encoder:mine", "context_encoder:mine"),
        ("timm:resnet18", "timm:resnet18"),
    ],
)
def test_a_row_has_the_name_that_its_task_declares(row, title):
    assert row_title(row) == title


def test_rows_and_probes_of_every_profile_have_names_of_their_own():
    rows = {row for profile in PROFILES.values() for row in profile().rows} | {*PLAIN}
    assert len({row_title(row) for row in rows}) == len(rows)
    assert not [row for row in rows if row_title(row) == row or "_" in row_title(row)]
    assert len({probe_title(name) for name in probe_names()}) == len(probe_names())
    assert not [name for name in probe_names() if probe_title(name) == name]


def test_probes_metrics_and_encoders_are_named():
    assert [probe_title(name) for name in ("knn", "fine_tune", "detection", "mine?x=1")] == [
        "k-NN", "Fine-tuning", "Detection", "mine?x=1",
    ]  # fmt: skip
    assert (metric_title("top1"), metric_title("mIoU")) == ("top-1", "mIoU")
    assert encoder_title("alexnet?width=0.25&stem_stride=2") == "AlexNet (width 0.25, stem stride 2)"
    assert encoder_title("timm:resnet18") == "resnet18"


def test_references_come_first_then_rows_without_training_by_gradients():
    rows = ["zebra", "simclr", "kmeans", "supervised", "pixels", "hog", "random:untouched", "autoencoder", "random"]
    ordered = sorted(rows, key=row_key)
    assert ordered == [
        "random", "random:untouched", "supervised", "hog", "pixels", "kmeans", "autoencoder", "simclr", "zebra",
    ]  # fmt: skip
    assert [group_of(row) for row in ordered] == ["reference"] * 3 + ["plain"] * 3 + ["task"] * 3

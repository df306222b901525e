"""The names that people read, and the order and groups of rows."""

from __future__ import annotations

import json

import pytest
from comparison_samples import LOW, row

from benchmarks.planning.probes import probe_names
from benchmarks.planning.recipes import PROFILES
from benchmarks.planning.rows import PLAIN
from benchmarks.records.results import read_measurements, write_cell
from benchmarks.summaries.verdict import summarise
from benchmarks.words.naming import encoder_title, metric_title, named_rows, probe_title, row_title
from benchmarks.words.ordering import group_of, row_key


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
        ("mine_v2", "mine_v2"),  # a user's own encoder keeps its name
        ("context_encoder:mine", "context_encoder:mine"),
        ("timm:resnet18", "timm:resnet18"),
    ],
)
def test_a_row_has_the_name_that_its_task_declares(row, title):
    assert row_title(row) == title


TASK = """
from pretext.tasks import Task

class Mine(Task):
    class Config:
        x: int = 1
    variants = {"large": Config()}
    titles = {"": "Mean colour", "large": "Mean colour of all"}
"""


def titles(specs):
    """Return the titles of the rows of a comparison, from their task specs; None for an encoder from elsewhere."""
    settings = {row: {"foreign": "file"} if spec is None else {"spec": spec} for row, spec in specs.items()}
    return {row: each.title for row, each in named_rows({row: json.dumps(settings[row]) for row in specs}).items()}


def test_a_task_in_a_file_is_called_as_it_says(tmp_path):
    named, plain = tmp_path / "my_task.py", tmp_path / "my_other_task.py"
    named.write_text(TASK)
    plain.write_text(TASK[: TASK.index("    titles")])
    assert titles(
        {
            "my_task": f"{named}",
            "my_task:large?x=2": f"{named}:large?x=2",
            "my_other_task": f"{plain}",
            "my_other_task:large?x=2": f"{plain}:large?x=2",
            "lost_task": f"{tmp_path}/lost_task.py",  # removed since
            "my_encoder": None,
        }
    ) == {
        "my_task": "Mean colour",
        "my_task:large?x=2": "Mean colour of all (x=2)",
        "my_other_task": "My other task",
        "my_other_task:large?x=2": "My other task (large, x=2)",
        "lost_task": "Lost task",
        "my_encoder": "my_encoder",
    }


def test_an_encoder_called_like_a_task_is_told_apart():
    assert titles({"simclr": "simclr:small", "SimCLR": None, "hog": None, "mine": None}) == {
        "simclr": "SimCLR", "SimCLR": "SimCLR (encoder file)", "hog": "HOG", "mine": "mine",
    }  # fmt: skip


def test_one_comparison_does_not_name_the_rows_of_another(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(TASK.replace("Mean colour", name.capitalize()))
    one, other = (
        summarise([row("mine", LOW, config_json=json.dumps({"spec": str(tmp_path / name / "mine.py")}))])
        for name in ("one", "other")
    )
    assert (one[0].row.title, other[0].row.title) == ("One", "Other")


def test_results_have_the_names_of_their_settings(tmp_path):
    about = {"simclr": {"spec": "simclr"}, "SimCLR": {"spec": "a", "foreign": "b"}, "own_task": {"spec": "own_task.py"}}
    for number, (name, settings) in enumerate(about.items()):
        measured = row(name, LOW, cell=f"row{number}", config_json=json.dumps(settings))
        write_cell(tmp_path, measured.cell, [measured])
    assert {s.pretext: s.row.title for s in summarise(read_measurements(tmp_path))} == {
        "simclr": "SimCLR", "SimCLR": "SimCLR (encoder file)", "own_task": "Own task",
    }  # fmt: skip


def test_rows_and_probes_of_every_profile_have_names_of_their_own():
    rows = {row.name for profile in PROFILES.values() for row in (*profile().rows, *PLAIN)}
    assert len({row_title(row) for row in rows}) == len(rows)
    assert not [row for row in rows if row_title(row) == row or "_" in row_title(row)]
    assert len({probe_title(name) for name in probe_names()}) == len(probe_names())
    assert not [name for name in probe_names() if probe_title(name) == name]


def test_probes_metrics_and_encoders_are_named():
    assert [probe_title(name) for name in ("knn", "fine_tune", "detection", "mine?x=1")] == [
        "k-NN", "Fine-tuning", "Detection", "mine?x=1",
    ]  # fmt: skip
    assert (metric_title("top1"), metric_title("mIoU")) == ("top-1", "mIoU")
    assert (metric_title("top1", "%"), metric_title("RankMe", "")) == ("top-1 %", "RankMe")
    assert encoder_title("alexnet?width=0.25&stem_stride=2") == "AlexNet (width 0.25, stem stride 2)"
    assert encoder_title("timm:resnet18") == "resnet18"


def test_references_come_first_then_rows_without_training_by_gradients():
    rows = ["zebra", "simclr", "kmeans", "supervised", "pixels", "hog", "random:untouched", "autoencoder", "random"]
    ordered = sorted(rows, key=row_key)
    assert ordered == [
        "random", "random:untouched", "supervised", "hog", "pixels", "kmeans", "autoencoder", "simclr", "zebra",
    ]  # fmt: skip
    assert [group_of(row) for row in ordered] == ["reference"] * 3 + ["plain"] * 3 + ["task"] * 3


@pytest.mark.parametrize(
    ("metric", "title"),
    [
        ("top1@1%", "top-1 %, 1 % of the labels"),
        ("top1@0.5%", "top-1 %, 0.5 % of the labels"),
        ("tuned top1@100%", "fine-tuned top-1 %, 100 % of the labels"),
        ("mAP@10%", "mAP %, 10 % of the labels"),
        ("top1@k=1", "top-1 %, 1 label of each class"),
        ("tuned mean class accuracy@k=16", "fine-tuned mean class accuracy %, 16 labels of each class"),
        ("top1@10% sd", "top-1 %, 10 % of the labels, deviation of samples"),
        ("precision@10", "precision@10 %"),
    ],
)
def test_scores_on_few_labels_say_on_how_many(metric, title):
    assert metric_title(metric, "%") == title

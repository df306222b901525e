"""The sentences on the best rows: what may be called best without labels, and what is level with it."""

from __future__ import annotations

import json

import numpy as np
from comparison_samples import row

from benchmarks.report.headline import best_by_probe, best_of_probe, bold_legend, standings
from benchmarks.summaries.verdict import ranking, summarise

FILE = '''"""Mine: a task that reads labels."""
from pretext.tasks.base import Task


class Mine(Task):
    needs_labels = True

    class Config:
        pass
'''


FOREIGN, STARTED = {"foreign": "a file"}, {"spec": "simclr", "init": "a file"}
"""Settings of a row's cells."""


def summaries_of(means, probes=("linear", "knn", "svm"), *, settings=None):
    """Rows of seeds around these means, one of them per probe if a row has several; settings of their cells by row."""
    rng = np.random.default_rng(0)
    about = {name: json.dumps((settings or {}).get(name, {})) for name in means}
    return summarise(
        row(
            name,
            rng.normal(0, 0.01, 50) + np.broadcast_to(of_row, len(probes))[at],
            probe=probe,
            seed=seed,
            config_json=about[name],
        )
        for name, of_row in means.items()
        for at, probe in enumerate(probes)
        for seed in range(3)
    )


def claims(summaries):
    return [each.claim for each in standings(summaries, {})]


def test_a_row_that_reads_labels_is_never_best_without_them(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    settings = {"mine": {"spec": str(tmp_path / "mine.py")}, "strong": {"spec": "supervised?learning_rate=0.001"}}
    found = summaries_of({"random": 40, "strong": 90, "supervised": 95, "mine": 80, "simclr": 50}, settings=settings)
    assert {s.pretext: s.row.uses_labels for s in found} == {
        "random": False, "strong": True, "supervised": True, "mine": True, "simclr": False,
    }  # fmt: skip
    assert claims(found)[0] == "Best without labels over 3 probes: SimCLR."
    assert best_by_probe(found) == "Best without labels by probe: SimCLR in Linear, k-NN and SVM."
    assert best_of_probe([s for s in found if s.probe == "linear"]) == ["simclr"]
    assert claims(summaries_of({"random": 40, "mine": 80}, settings=settings)) == []


def test_of_an_encoder_from_elsewhere_it_is_not_said_that_it_saw_no_labels():
    settings = {"theirs": FOREIGN, "hog": FOREIGN}
    every = summaries_of({"theirs": 1, "hog": 1, "simclr": 1}, settings=settings)
    assert {s.pretext: s.row.is_given for s in every} == {"theirs": True, "hog": False, "simclr": False}
    found = summaries_of({"random": 40, "theirs": 80, "simclr": 50}, settings=settings)
    assert claims(found)[0] == "Best over 3 probes: theirs."
    assert best_by_probe(found).startswith("Best by probe: theirs in Linear")
    below = summaries_of({"random": 40, "theirs": 45, "simclr": 50}, settings=settings)
    assert claims(below)[0].startswith("Best without labels over")


def test_random_weights_that_are_level_with_the_best_row_are_named():
    near = standings(summaries_of({"random": [40, 40, 60], "simclr": [50, 50, 50], "moco": [30, 30, 30]}), {})[0]
    assert "not distinguishable from 1 other and random weights." in near.numbers
    many = ("linear", "knn", "svm", "low_shot", "fine_tune", "detection", "segmentation", "retrieval")
    far = standings(summaries_of({"random": 30, "simclr": 50, "moco": 40}, many), {})[0]
    assert "and random weights" not in far.numbers


def test_untouched_weights_above_random_weights_do_not_hide_a_row_that_is_above_them_too():
    found = summaries_of({"random": 40, "random:untouched": 60, "simclr": 50}, ("linear",))
    assert claims(found) == ["Best without labels in Linear: SimCLR."]
    below = summaries_of({"random": 40, "random:untouched": 20, "simclr": 30}, ("linear",))
    assert claims(below) == ["In Linear, no row without labels is better than random weights."]


def test_rows_that_are_equal_are_all_best():
    rows = {"random": 40, "simclr": 48, "moco": 48}
    found = summarise(
        row(name, value=value, probe=probe) for name, value in rows.items() for probe in ("linear", "knn")
    )
    assert best_by_probe(found) == "Best without labels by probe: SimCLR in Linear and k-NN; MoCo in Linear and k-NN."


def test_a_measure_that_needs_no_labels_ranks_no_row():
    probes = ("linear", "knn", "svm", "label_free")
    found = summaries_of({"random": [40, 40, 40, 90], "simclr": [50, 50, 50, 10]}, probes)
    assert ranking(found).probes == ("linear", "knn", "svm")
    assert ranking(found).ranks == {"simclr": 1.0, "random": 2.0}


def test_numbers_under_a_claim_on_several_rows_say_whose_they_are():
    rows = {"random": 40, "simclr": 48, "moco": 48}
    found = summarise(row(name, [value] * 4) for name, value in rows.items())
    (one,) = standings(found, {})
    assert one.claim == "Best without labels in Linear: SimCLR and MoCo." and one.numbers.startswith("SimCLR: ")


def test_a_rank_of_features_has_no_best_row():
    found = summaries_of({"random": 40, "simclr": 50}, ("label_free",))
    assert standings(found, {}) == [] and best_of_probe(found) == []
    assert bold_legend(found) == "best without labels in bold"


def test_a_row_that_begins_with_given_weights_is_not_said_to_know_no_labels():
    rows = {"random": 40, "continued": 80, "simclr": 50}
    found = summaries_of(rows, settings={"continued": STARTED})
    assert claims(found)[0] == "Best over 3 probes: continued." and bold_legend(found) == "best in bold"
    another = summaries_of(rows, settings={"continued": {"spec": "simclr"}})
    assert claims(another)[0].startswith("Best without labels")

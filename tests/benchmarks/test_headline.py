"""The sentences on the best rows: what may be called best without labels, and what is level with it."""

from __future__ import annotations

import numpy as np
import pytest
from comparison_samples import row

from benchmarks.report.headline import best_by_probe, best_of_probe, bold_legend, standings
from benchmarks.summaries.verdict import ranking, summarise
from benchmarks.words import naming
from benchmarks.words.naming import is_given, name_rows, uses_labels

FILE = '''"""Mine: a task that reads labels."""
from pretext.tasks.base import Task


class Mine(Task):
    needs_labels = True

    class Config:
        pass
'''


@pytest.fixture(autouse=True)
def no_rows_of_other_tests(monkeypatch):
    monkeypatch.setattr(naming, "_specs", {})
    monkeypatch.setattr(naming, "_own", {})
    monkeypatch.setattr(naming, "_started", set())


def summaries_of(means, probes=("linear", "knn", "svm"), **fields):
    """Rows of seeds around these means, one of them per probe if a row has several."""
    rng = np.random.default_rng(0)
    return summarise(
        row(name, rng.normal(0, 0.01, 50) + np.broadcast_to(of_row, len(probes))[at], probe=probe, seed=seed, **fields)
        for name, of_row in means.items()
        for at, probe in enumerate(probes)
        for seed in range(3)
    )


def claims(summaries):
    return [each.claim for each in standings(summaries, {})]


def test_a_row_that_reads_labels_is_never_best_without_them(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    name_rows({"mine": str(tmp_path / "mine.py"), "supervised?learning_rate=0.001": "supervised"})
    assert [uses_labels(name) for name in ("mine", "supervised?learning_rate=0.001", "supervised", "simclr:small")] == [
        True, True, True, False,
    ]  # fmt: skip
    found = summaries_of({"random": 40, "supervised?learning_rate=0.001": 90, "mine": 80, "simclr": 50})
    assert claims(found)[0] == "Best without labels over 3 probes: SimCLR."
    assert best_by_probe(found) == "Best without labels by probe: SimCLR in Linear, k-NN and SVM."
    assert best_of_probe([s for s in found if s.probe == "linear"]) == ["simclr"]
    assert claims(summaries_of({"random": 40, "mine": 80})) == []


def test_of_an_encoder_from_elsewhere_it_is_not_said_that_it_saw_no_labels():
    name_rows({"theirs": None, "hog": None, "simclr": "simclr"})
    assert [is_given(name) for name in ("theirs", "hog", "simclr", "unknown")] == [True, False, False, False]
    found = summaries_of({"random": 40, "theirs": 80, "simclr": 50})
    assert claims(found)[0] == "Best over 3 probes: theirs."
    assert best_by_probe(found).startswith("Best by probe: theirs in Linear")
    assert claims(summaries_of({"random": 40, "theirs": 45, "simclr": 50}))[0].startswith("Best without labels over")


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
    name_rows({"continued": "simclr", "simclr": "simclr"}, started=["continued"])
    found = summaries_of({"random": 40, "continued": 80, "simclr": 50})
    assert claims(found)[0] == "Best over 3 probes: continued." and bold_legend(found) == "best in bold"
    name_rows({"continued": "simclr"})  # another comparison
    assert claims(found)[0].startswith("Best without labels")

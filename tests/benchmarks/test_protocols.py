"""What the page says that a probe had: its settings, and no more labels than the data has."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from comparison_samples import plan, row

from benchmarks.records.results import read_plan
from benchmarks.report.content import _precision
from benchmarks.report.protocols import protocol


@pytest.mark.parametrize(
    ("asked", "there", "said"),
    [
        (400, 72, "72 labels"),
        (400, 1000, "400 labels"),
        (0, 1000, "1,000 labels"),
        (400, None, "400 labels"),
        (0, None, "all labels"),
    ],
)
def test_a_probe_has_no_more_labels_than_there_are(asked, there, said):
    settings = {"probe_config": {"train_images": asked, "steps": 5}}
    made = row("random", [1.0, 0.0], headline=True, data="photos", config_json=json.dumps(settings))
    run = SimpleNamespace(measurements=[made], plan={} if there is None else {"train_pictures": {"photos": there}})
    assert protocol(run, "linear") == [said, "5 steps", "2 test"]


def test_a_precision_that_was_asked_for_is_said():
    given = {"bfloat16": {"precision": "bfloat16"}, "": {}}
    for said, settings in given.items():
        made = row(
            "random", [1.0, 0.0], headline=True, data="photos", config_json=json.dumps({"probe_config": settings})
        )
        run = SimpleNamespace(measurements=[made], plan={})
        assert protocol(run, "linear") == [*filter(None, [said]), "2 test"]
        assert _precision(made) == said
    trained = row("random", [1.0], config_json=json.dumps({"train": {"precision": "bfloat16"}}))
    assert _precision(trained) == "bfloat16"


def test_the_plan_knows_how_many_training_pictures_a_set_has(tmp_path):
    planned = plan()
    planned.write(tmp_path, [])
    assert read_plan(tmp_path)["train_pictures"] == {planned.sets[0]: 8}


@pytest.mark.parametrize(
    ("there", "said"), [(3000, "2,000 searched"), (256, "up to 2,000 searched"), (None, "2,000 searched")]
)
def test_no_more_is_searched_than_there_may_be(there, said):
    settings = json.dumps({"probe_config": {"database": 2000}})
    made = row("random", [1.0, 0.0], headline=True, data="photos", config_json=settings)
    run = SimpleNamespace(measurements=[made], plan={} if there is None else {"train_pictures": {"photos": there}})
    assert protocol(run, "linear") == [said, "2 test"]

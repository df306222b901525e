"""The contract of every probe, in downstream and retrieval; new probes are found automatically."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import shutil

import numpy as np
import pytest
import torch
from probe_samples import colours, small_encoder, small_scenes

import downstream.probes
import retrieval.probes
from downstream.classification import quality
from pretext.datasets.splitting import Subset
from pretext.judging import Probe, probes_in
from pretext.system.cache import cache_folder
from pretext.system.errors import UserError

PROBES = probes_in(downstream.probes) | probes_in(retrieval.probes)
QUICK = {
    "images": 12,
    "train_images": 24,
    "val_images": 10,
    "test_images": 12,
    "steps": 3,
    "epochs": 0,
    "batch_size": 4,
    "iterations": 5,
    "penalties": (1.0, 0.1),
    "features": 64,
    "cells": 2,
    "database": 30,
    "queries": 10,
    "k": 3,
    "costs": (0.1, 10.0),
    "shots": (1, 2),
    "samples": 2,
    "percents": (10.0,),
}
NEED_NOTHING = {name for name, probe in PROBES.items() if frozenset() in probe.needs}
TAKE_LONG = {"low_shot", "robustness", "detection", "segmentation", "fine_tune"}
every_probe = pytest.mark.parametrize("name", PROBES)
every_probe_in_time = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in TAKE_LONG else name for name in PROBES]
)


def quick(name, **settings):
    fields = {field.name for field in dataclasses.fields(PROBES[name])}
    return PROBES[name](**{key: value for key, value in QUICK.items() if key in fields} | settings)


@pytest.fixture(scope="module")
def encoder():
    return small_encoder()


def plain(scores):
    return [
        {**dataclasses.asdict(score), "items": None if score.items is None else score.items.tolist()}
        for score in scores
    ]


def test_the_promised_probes_are_there():
    assert {"linear", "knn", "fine_tune", "detection", "segmentation", "retrieval", "label_free", "robustness"} <= set(
        PROBES
    )
    assert all(issubclass(probe, Probe) and probe.needs and probe.__doc__ for probe in PROBES.values())


@every_probe
def test_scores_are_whole_and_one_of_them_is_the_headline(name, encoder, tmp_path):
    scores = list(quick(name).evaluate(encoder, small_scenes(), tmp_path / "out"))
    assert sum(score.headline for score in scores) == 1
    stages = {"", *(stage.name for stage in encoder.stages)}
    for score in scores:
        assert np.isfinite(score.value) and score.n > 0 and score.metric and score.stage in stages
        if name in NEED_NOTHING:  # no chance level without a task
            assert score.chance is None
        else:
            relative = "relative to" in score.metric  # a ratio, which may be above 100
            assert score.unit == "%" and score.value >= 0 and (relative or score.value <= 100)
            assert relative or score.metric.endswith(" sd") if score.chance is None else 0 <= score.chance <= 100
        if score.items is not None:
            assert score.items.shape == (score.n,) and score.items.dtype == np.float64
            assert score.items.mean() == pytest.approx(score.value)
    assert len({(score.metric, score.stage) for score in scores}) == len(scores)


@every_probe_in_time
def test_same_seed_same_numbers_and_torchs_own_generator_is_left_alone(name, encoder):
    first = plain(quick(name, seed=3).evaluate(encoder, small_scenes()))
    torch.rand(5)
    shutil.rmtree(cache_folder("features"))  # otherwise the second run reads the cache of the first
    state = torch.get_rng_state()
    assert plain(quick(name, seed=3).evaluate(encoder, small_scenes())) == first
    assert torch.equal(torch.get_rng_state(), state)


@every_probe
@pytest.mark.parametrize("training", [True, False])
def test_the_encoder_is_left_as_it_was(name, training):
    encoder = small_encoder().train(training)
    before = copy.deepcopy(encoder.state_dict())
    list(quick(name).evaluate(encoder, small_scenes()))
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert all(module.training == training for module in encoder.modules())
    assert all(p.requires_grad and p.grad is None for p in encoder.parameters())


@pytest.mark.slow
@every_probe_in_time
def test_test_labels_do_not_affect_fitting_or_selection(name, encoder, tmp_path, monkeypatch):
    module = importlib.import_module(PROBES[name].__module__)
    predicted = []
    if hasattr(module, "classification_scores"):
        judge = module.classification_scores

        def listening(scores, *args, **named):
            predicted[-1].append(scores.clone())
            return judge(scores, *args, **named)

        monkeypatch.setattr(module, "classification_scores", listening)
    chosen, values = [], []
    for shuffled in (False, True):
        predicted.append([])
        out = tmp_path / str(shuffled)
        scores = list(quick(name).evaluate(encoder, small_scenes(shuffle_test=shuffled), out))
        curve = json.loads((out / "curve.json").read_text()) if (out / "curve.json").exists() else None
        chosen.append((next(score.stage for score in scores if score.headline), curve))
        values.append([score.value for score in scores])
    assert chosen[0] == chosen[1]
    if name in NEED_NOTHING:
        assert values[0] == values[1]
        return
    assert values[0] != values[1]  # otherwise shuffling proves nothing
    assert len(predicted[0]) == len(predicted[1])
    assert all(torch.equal(a, b) for a, b in zip(*predicted, strict=True))


@every_probe
def test_what_the_data_lacks_is_named(name, encoder):
    data = small_scenes(only=())
    if name in NEED_NOTHING:
        assert quick(name).can_judge(data)
        assert plain(quick(name).evaluate(encoder, data)) == plain(quick(name).evaluate(encoder, small_scenes()))
        return
    assert not quick(name).can_judge(data)
    with pytest.raises(UserError, match=r"this needs .*, and the data set annotates nothing"):
        list(quick(name).evaluate(encoder, data))


@every_probe
def test_very_little_data_is_judged_or_refused_in_one_line(name, encoder):
    for train, val, test in ((1, 1, 1), (3, 1, 2)):
        try:
            scores = list(quick(name).evaluate(encoder, small_scenes(train=train, val=val, test=test)))
        except UserError as error:
            assert "\n" not in str(error) and "scenes" in str(error)
        else:
            assert all(np.isfinite(score.value) for score in scores)


@pytest.mark.slow
@every_probe_in_time
def test_images_that_cannot_be_decoded_are_skipped(name, encoder, monkeypatch):
    monkeypatch.setenv("PRETEXT_PACK_GB", "0")
    data = small_scenes(unreadable=(1, 4, 5))
    scores = list(quick(name, **_all_pictures(name)).evaluate(encoder, data))
    assert all(np.isfinite(score.value) for score in scores)


def _all_pictures(name):
    fields = {field.name for field in dataclasses.fields(PROBES[name])}
    return {key: 0 for key in ("images", "train_images", "test_images") if key in fields}


@every_probe
def test_weights_that_are_not_finite_are_refused(name):
    encoder = small_encoder()
    with torch.no_grad():
        next(encoder.parameters()).fill_(float("nan"))
    with pytest.raises(UserError):
        list(quick(name).evaluate(encoder, small_scenes()))


@every_probe
def test_settings_below_their_range_are_named(name):
    for field in dataclasses.fields(PROBES[name]):
        if isinstance(field.default, int) and not isinstance(field.default, bool) and field.name != "seed":
            with pytest.raises(ValueError, match=field.name):
                PROBES[name](**{field.name: -1})


@pytest.mark.parametrize("name", ["linear", "knn", "fine_tune", "svm", "low_shot"])
def test_several_classes_a_picture_are_judged_by_map(name, encoder):
    scores = list(quick(name, **_all_pictures(name)).evaluate(encoder, small_scenes(only={"labels", "boxes"})))
    assert all("mAP" in score.metric and score.items is None for score in scores)
    assert all(0 < score.chance < 100 for score in scores if not score.metric.endswith(" sd"))


@pytest.mark.parametrize("name", [name for name, probe in PROBES.items() if hasattr(probe, "val_images")])
def test_selection_sees_all_classes_though_val_is_sorted(name, encoder, monkeypatch):
    data = colours()
    val = data.splits["val"]
    labels = [int(val[i][1]["label"]) for i in range(len(val))]
    data.splits["val"] = Subset(val, np.argsort(labels, kind="stable"))
    chosen_by = []

    def listening(scores, targets):
        chosen_by.append(set(targets.tolist()))
        return quality(scores, targets)

    for module in ("knn", "linear", "svm"):
        monkeypatch.setattr(f"downstream.probes.{module}.quality", listening)
    list(quick(name, val_images=6).evaluate(encoder, data))
    assert chosen_by and all(classes == {0, 1, 2} for classes in chosen_by)


CLASSIFYING = [name for name, probe in PROBES.items() if frozenset({"label"}) in probe.needs and name != "retrieval"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFYING)
def test_random_labels_score_chance(name, encoder):
    settings = _all_pictures(name) | {"val_images": 0}
    fields = {field.name for field in dataclasses.fields(PROBES[name])}
    probe = quick(name, **{key: value for key, value in settings.items() if key in fields})
    for score in probe.evaluate(encoder, colours(learnable=False, train=60, test=150)):
        if score.chance is not None:
            assert abs(score.value - score.chance) < 4.5 * 100 * (2 / 9 / 150) ** 0.5, score.metric


@pytest.mark.slow
@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("name", CLASSIFYING)
def test_a_class_missing_in_train_is_evaluated(name, multi, encoder):
    scores = list(quick(name).evaluate(encoder, colours(classes=4, without=[1], train=60, multi=multi)))
    assert scores and all(np.isfinite(score.value) for score in scores)

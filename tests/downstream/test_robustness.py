from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from probe_samples import colours, small_encoder

import downstream.features
from downstream.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from downstream.features import labelled_features, pooled
from downstream.probes.linear import Linear
from downstream.probes.robustness import Robustness
from pretext.datasets import at_size, open_dataset
from pretext.encoders import build_encoder

pytestmark = pytest.mark.usefixtures("own_cache")

QUICK = {"train_images": 30, "penalties": (0.1,), "iterations": 20, "features": 64}
HARD = "scenes?size=32&train=40&val=20&test=40"
"""Images on which every encoder makes errors."""


def by_metric(probe, data, out=None):
    return {score.metric: score for score in probe.evaluate(small_encoder(), data, out)}


@pytest.mark.slow
def test_every_error_is_the_linear_probes_own_on_corrupted_pictures():
    data, encoder = colours(), small_encoder().eval()
    found = by_metric(Robustness(**QUICK, test_images=0), data)
    linear = Linear(**QUICK)
    train, val, _ = labelled_features(encoder, data, train_images=30, most=64, seed=0)
    classifiers, stage = linear.classifiers(train, val, 3)
    place = [each.name for each in encoder.stages].index(stage)
    part = at_size(data.split("test"), 32, bad_images="skip")
    order = np.random.default_rng(0).permutation(40)
    images = torch.stack([part[i][0] for i in order])
    labels = np.array([int(part[i][1]["label"]) for i in order])

    def error(pictures):
        with torch.no_grad():
            logits = classifiers[stage](pooled(encoder(pictures)[place], 64))
        return 100 * (logits.argmax(1).numpy() != labels).mean()

    expected = {
        name: [error(corrupted(images, name, s, torch.Generator().manual_seed(0))) for s in SEVERITIES]
        for name in CORRUPTIONS
    }
    assert found["clean error"].value == pytest.approx(error(images))
    for name, errors in expected.items():
        assert found[f"{name.replace('_', ' ')} error"].value == pytest.approx(np.mean(errors))
    assert found["mCE"].value == pytest.approx(np.mean([*expected.values()]))
    assert found["mCE"].value > found["clean error"].value
    assert all(score.stage == stage and not score.higher_is_better for score in found.values())
    assert [name for name, score in found.items() if score.headline] == ["mCE"]


def test_the_clean_error_is_what_the_linear_probe_leaves():
    data = colours(learnable=True)
    clean = by_metric(Robustness(**QUICK, test_images=0), data)["clean error"]
    top1 = next(score for score in Linear(**QUICK).evaluate(small_encoder(), data) if score.headline)
    assert clean.value == pytest.approx(100 - top1.value) and clean.stage == top1.stage
    assert clean.chance == pytest.approx(100 - top1.chance)


def test_the_test_split_is_encoded_only_where_it_is_tested(monkeypatch):
    """Features of train and val are read once for the encoder and once for random weights, and no others."""
    read = []
    pooled_features = downstream.features.pooled_features

    def noted(encoder, data, split, **given):
        read.append(split)
        return pooled_features(encoder, data, split, **given)

    monkeypatch.setattr(downstream.features, "pooled_features", noted)
    by_metric(Robustness(**QUICK, test_images=4), colours())
    assert sorted(read) == ["train", "train", "val", "val"]


def test_several_classes_a_picture_are_judged_by_map():
    found = by_metric(Robustness(**QUICK | {"train_images": 0}, test_images=20), colours(multi=True, train=80))
    assert len(found) == 2 + len(CORRUPTIONS)
    assert all(score.items is None and 0 <= score.value <= 100 and score.n == 20 for score in found.values())
    assert found["clean error"].value < found["clean error"].chance - 20


def test_random_weights_relative_to_themselves_are_a_hundred_percent():
    probe = Robustness(**QUICK, seed=3, test_images=0)
    itself = build_encoder("alexnet?width=0.1&stem_stride=2", input_size=32, seed=3)
    found = {score.metric: score.value for score in probe.evaluate(itself, open_dataset(HARD))}
    assert found["mCE relative to random"] == pytest.approx(100)


@pytest.mark.slow
def test_each_corruption_is_divided_by_random_weights_error_before_the_mean():
    data, probe = open_dataset(HARD), Robustness(**QUICK, test_images=0)
    encoder = build_encoder("alexnet?width=0.1&stem_stride=2", input_size=32, seed=5)
    found = {score.metric: score.value for score in probe.evaluate(encoder, data)}
    random = build_encoder(encoder.spec, input_size=32, seed=0)
    baseline = {score.metric: score.value for score in probe.evaluate(random, data)}
    shares = [found[f"{n.replace('_', ' ')} error"] / baseline[f"{n.replace('_', ' ')} error"] for n in CORRUPTIONS]
    assert found["mCE relative to random"] == pytest.approx(100 * np.mean(shares))
    assert found["mCE relative to random"] != pytest.approx(100 * found["mCE"] / baseline["mCE"], abs=1e-3)


def test_no_relative_error_if_random_weights_have_none():
    assert "mCE relative to random" not in by_metric(Robustness(**QUICK, test_images=0), colours(learnable=True))


def test_the_sheet_shows_every_severity(tmp_path):
    by_metric(Robustness(**QUICK, test_images=4), colours(), tmp_path)
    with Image.open(tmp_path / "corruptions.png") as sheet:
        width, height = sheet.size
    assert width > 6 * 200 and height > len(CORRUPTIONS) * 200


@pytest.mark.parametrize("settings", [{"test_images": -1}, {"features": 0}, {"penalties": (float("nan"),)}])
def test_settings_out_of_range_are_named(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Robustness(**settings)

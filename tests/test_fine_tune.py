from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from probe_samples import SIZE, colours, small_encoder

from downstream.probes.fine_tune import FineTune, classification_loss, ten_crops
from pretext.datasets import at_size

QUICK = FineTune(train_images=24, steps=4, batch_size=8)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRETEXT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def encoder():
    return small_encoder()


def test_it_learns_several_classes_a_picture(encoder, tmp_path):
    probe = FineTune(train_images=0, steps=60, batch_size=16)
    (score,) = probe.evaluate(encoder, colours(multi=True), tmp_path / "out")
    assert score.metric == "mAP" and score.headline and score.value > score.chance + 30
    curve = json.loads((tmp_path / "out" / "curve.json").read_text())["loss"]
    assert len(curve) == 60 and np.mean(curve[-10:]) < 0.7 * np.mean(curve[:10])


@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_a_factor_of_0_leaves_the_trained_copy_alone_too(encoder, factor):
    inside = copy.deepcopy(encoder)
    probe = dataclasses.replace(QUICK, encoder_learning_rate_factor=factor)
    probe._train(inside, at_size(colours(), SIZE, bad_images="stop"))
    pairs = zip(inside.state_dict().values(), encoder.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs) == (factor == 0)


def test_encoders_of_any_scale_start_alike(encoder):
    loud = copy.deepcopy(encoder)
    last = [m for m in loud.modules() if isinstance(m, torch.nn.BatchNorm2d)][-1]
    with torch.no_grad():
        last.weight.mul_(1000)
        last.bias.mul_(1000)
    probe = dataclasses.replace(QUICK, encoder_learning_rate_factor=0.0)
    sized = at_size(colours(), SIZE, bad_images="stop")
    quiet_curve, loud_curve = probe._train(encoder, sized)[1], probe._train(loud, sized)[1]
    np.testing.assert_allclose(loud_curve, quiet_curve, rtol=0.05)


def test_unknown_classes_have_no_gradient():
    logits = torch.randn(4, 3, requires_grad=True, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 0, -1], [-1, -1, -1], [0, 1, 1], [1, -1, 0]])
    classification_loss(logits, targets).backward()
    assert torch.equal(logits.grad == 0, targets == -1)
    assert classification_loss(logits, torch.full((4, 3), -1)).item() == 0


def test_ten_crops_make_a_picture_and_its_mirror_image_one(encoder):
    data = colours(told=False)
    sized = at_size(data, SIZE, bad_images="stop")
    probe = dataclasses.replace(QUICK, ten_crops=True)
    trained = copy.deepcopy(encoder)
    head, _ = probe._train(trained, sized)
    as_they_are = probe._classify(trained, head, sized, np.arange(6))
    sized.images = sized.images.flip(-1)
    torch.testing.assert_close(probe._classify(trained, head, sized, np.arange(6)), as_they_are)
    assert {view.shape[-1] for view in ten_crops(sized.images[:1])} == {SIZE * 7 // 8}


def test_ten_crops_change_the_score_and_not_the_training(encoder, tmp_path):
    logits = []
    for crops in (False, True):
        probe = dataclasses.replace(QUICK, ten_crops=crops)
        list(probe.evaluate(encoder, colours(), tmp_path / str(crops)))
        logits.append((tmp_path / str(crops) / "curve.json").read_text())
    assert logits[0] == logits[1]


def test_batches_of_one_are_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match="batch_size is 1"):
        FineTune(batch_size=1)


def test_the_first_test_pictures_are_judged(encoder):
    score = next(iter(dataclasses.replace(QUICK, test_images=7).evaluate(encoder, colours())))
    assert score.n == 7 and score.items.shape == (7,)

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from probe_samples import SIZE, colours, small_encoder

from downstream import fitting
from downstream.fitting import fit
from downstream.layer_rates import depth_of_parameters, learning_rate_factors, stage_of_parameters
from downstream.probes.fine_tune import FineTune, enlarged, ten_crops
from pretext.datasets import at_size, open_dataset
from pretext.encoders import build_encoder
from pretext.system.errors import UserError
from pretext.transforms.augmentation import augment

pytestmark = pytest.mark.usefixtures("own_cache")

QUICK = FineTune(train_images=24, steps=4, batch_size=8)


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


def test_ten_crops_make_a_picture_and_its_mirror_image_one(encoder):
    data = colours(learnable=False)
    sized = at_size(data, SIZE, bad_images="stop")
    probe = dataclasses.replace(QUICK, ten_crops=True)
    trained = copy.deepcopy(encoder)
    head, _ = probe._train(trained, sized)
    as_they_are = probe._classify(trained, head, sized, np.arange(6))[0]
    sized.images = sized.images.flip(-1)
    torch.testing.assert_close(probe._classify(trained, head, sized, np.arange(6))[0], as_they_are)
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


def test_as_many_test_pictures_are_judged_as_asked_for(encoder):
    score = next(iter(dataclasses.replace(QUICK, test_images=7).evaluate(encoder, colours())))
    assert score.n == 7 and score.items.shape == (7,)


def test_crops_are_enlarged_to_the_size_that_a_transformer_was_made_for():
    probe = dataclasses.replace(QUICK, ten_crops=True, train_images=8, test_images=6, steps=1)
    encoder = build_encoder("timm:vit_tiny_patch16_224?patch_size=8", input_size=SIZE, seed=0)
    scores = list(probe.evaluate(encoder, colours()))
    assert scores[0].n == 6
    ramp = torch.arange(14, dtype=torch.uint8).expand(1, 3, 14, 14)
    larger = enlarged(ramp, 28)  # pixel centres lie at (i + 1/2) / 2 - 1/2
    expected = np.interp((np.arange(28) + 0.5) / 2 - 0.5, np.arange(14), np.arange(14)) / 255
    np.testing.assert_allclose(larger[0, 0, 0].numpy(), expected, atol=1e-6)


def test_training_sees_crops_and_as_large_ones_as_asked_for(encoder):
    sized = at_size(colours(learnable=False), SIZE, bad_images="stop")
    curves = [
        dataclasses.replace(QUICK, crop=crop)._train(copy.deepcopy(encoder), sized)[1] for crop in (1.0, 0.6, 0.3)
    ]
    assert curves[0] != curves[1] != curves[2]


# Freezing and layer-wise learning rates


RESNET, VIT = "timm:resnet18", "timm:vit_tiny_patch16_224"


def stage_by_name(spec, name, stages):
    """The expected stage, derived from the parameter's name."""
    parts = name.split(".")
    if spec.startswith("alexnet"):
        if parts[0] == "downs":  # pool-free: downs.1 halves conv2 and so makes conv3 and what follows
            return int(parts[1]) + 1
        return int(parts[1])
    if spec == RESNET:
        return {"conv1": 0, "bn1": 0}.get(parts[1]) or (int(parts[1][-1]) if parts[1].startswith("layer") else 0)
    block = int(parts[3]) if parts[2] == "blocks" else 0
    return 2 if parts[2] == "norm" else max(0, block - (12 - stages))


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        ("alexnet?width=0.125&stem_stride=2", 32),
        ("alexnet?width=0.125&stem_stride=2&pooled=false", 32),
        (RESNET, 32),
        (VIT, 224),
    ],
)
def test_parameters_belong_to_the_stage_that_they_are_read_at(spec, size):
    encoder = build_encoder(spec, input_size=size, seed=0)
    before = copy.deepcopy(encoder.state_dict())
    found = stage_of_parameters(encoder)
    assert list(found) == [name for name, _ in encoder.named_parameters()]
    assert found == {name: stage_by_name(spec, name, len(encoder.stages)) for name in found}
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(p.grad is None for p in encoder.parameters()) and encoder.training


def test_learning_rates_fall_from_block_to_block():
    """Bao et al.: decay to the power of L + 1 - layer; layer 0 embeds, layers 1 to L are blocks, L + 1 is the head."""
    encoder = build_encoder(VIT, input_size=224, seed=0)
    factors = learning_rate_factors(encoder, factor=0.5, layer_decay=0.75)
    for name, factor in factors.items():
        parts = name.split(".")
        layer = int(parts[3]) + 1 if parts[2] == "blocks" else 12 if parts[2] == "norm" else 0
        assert factor == pytest.approx(0.5 * 0.75 ** (13 - layer)), name
    resnet = depth_of_parameters(build_encoder(RESNET, input_size=32, seed=0))
    assert (resnet["model.conv1.weight"], resnet["model.bn1.bias"]) == (0, 0)
    assert [resnet[f"model.layer{k}.{i}.conv1.weight"] for k in (1, 2, 3, 4) for i in (0, 1)] == list(range(1, 9))
    alexnet = depth_of_parameters(small_encoder())
    assert [alexnet[f"convs.{i}.0.weight"] for i in range(5)] == list(range(5))


@pytest.mark.parametrize(("spec", "stage"), [("alexnet?width=0.125&stem_stride=2", "conv3"), (RESNET, "layer2")])
def test_frozen_stages_stay_as_they_are_and_the_others_learn(spec, stage):
    encoder = build_encoder(spec, input_size=SIZE, seed=0)
    inside = copy.deepcopy(encoder)
    dataclasses.replace(QUICK, freeze_to=stage)._train(inside, at_size(colours(), SIZE, bad_images="stop"))
    names = [s.name for s in encoder.stages]
    stages = stage_of_parameters(encoder)
    after = inside.state_dict()
    # a running mean belongs to the stage of its weight
    for name, value in encoder.state_dict().items():
        weight = name.rsplit(".", 1)[0] + ".weight"
        frozen = stages[weight] <= names.index(stage)
        assert torch.equal(after[name], value) == frozen, name
    frozen = {name for name, i in stages.items() if i <= names.index(stage)}
    assert {name for name, p in inside.named_parameters() if p.grad is None} == frozen


def test_frozen_to_the_last_stage_is_a_factor_of_0(encoder):
    sized = at_size(colours(), SIZE, bad_images="stop")
    curves = [
        dataclasses.replace(QUICK, **settings)._train(copy.deepcopy(encoder), sized)[1]
        for settings in ({"freeze_to": "pool5"}, {"encoder_learning_rate_factor": 0.0})
    ]
    assert curves[0] == curves[1]


def test_each_block_is_given_its_own_rate(encoder, monkeypatch):
    given = []

    def listening(*args, **named):
        given.append(named["encoder_factor"])
        return fit(*args, **named)

    monkeypatch.setattr(fitting, "fit", listening)
    probe = dataclasses.replace(QUICK, layer_decay=0.5, freeze_to="conv1")
    list(probe.evaluate(encoder, colours()))
    assert [given[0][f"convs.{i}.0.weight"] for i in range(5)] == [0.0, 0.5 / 16, 0.5 / 8, 0.5 / 4, 0.5 / 2]


def test_a_stage_that_is_not_there_is_named(encoder):
    with pytest.raises(UserError, match=r"freeze_to: alexnet.* has no stage 'conv33'; did you mean 'conv3'"):
        list(dataclasses.replace(QUICK, freeze_to="conv33").evaluate(encoder, colours()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"layer_decay": 0.0},
        {"layer_decay": 1.1},
        {"layer_decay": float("nan")},
        {"crop": 0.0},
        {"weight_decay": float("nan")},
        {"learning_rate": float("inf")},
    ],
)
def test_fields_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)) + " is .*; allowed is"):
        FineTune(**wrong)


# Odd data


@pytest.mark.parametrize("multi", [False, True])
def test_a_class_missing_in_train_is_evaluated(encoder, multi):
    data = colours(classes=6, without=(1,), multi=multi)
    score = next(iter(dataclasses.replace(QUICK, steps=20).evaluate(encoder, data)))
    assert np.isfinite(score.value)
    if not multi:
        labels = np.array([int(data.split("test")[i][1]["label"]) for i in range(40)])
        assert (labels == 1).any() and not score.items[labels == 1].any()


def test_images_that_cannot_be_decoded_are_skipped_though_their_folder_names_a_class(tmp_path, encoder, monkeypatch):
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for k, name in enumerate(("red", "blue")):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for i in range(6):
                pixels = np.zeros((SIZE, SIZE, 3), np.uint8) + np.array([[220, 30, 30], [30, 30, 220]][k], np.uint8)
                Image.fromarray(pixels + rng.integers(0, 20, pixels.shape, np.uint8)).save(folder / f"{i}.png")
            (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:60])
    monkeypatch.setenv("PRETEXT_PACK_GB", "0")  # no packing: bad images are found only when they are read
    score, _ = dataclasses.replace(QUICK, steps=20, batch_size=6).evaluate(
        encoder, open_dataset(f"folder:{tmp_path / 'set'}")
    )
    assert score.n == 10 and score.items.shape == (10,) and score.value == 100


def test_training_crops_are_cut_from_the_pictures_and_not_from_small_squares(encoder, tmp_path, monkeypatch):
    for number in range(24):
        file = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (3 * SIZE, 4 * SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    seen = []

    def spy(pictures, *given):
        seen.append({tuple(size) for size in torch.stack([pictures.height, pictures.width], dim=1).tolist()})
        return augment(pictures, *given)

    monkeypatch.setattr("downstream.probes.fine_tune.augment", spy)
    data = open_dataset(f"folder:{tmp_path / 'photos'}")
    assert [score.metric for score in QUICK.evaluate(encoder, data)]
    assert seen == 4 * [{(3 * SIZE, 4 * SIZE)}]


def test_parameters_of_an_encoder_without_gradients_belong_to_its_deepest_stage():
    encoder = build_encoder("hog", input_size=32, seed=0)
    assert {*stage_of_parameters(encoder).values()} == {0}
    assert {*learning_rate_factors(encoder, factor=0.5, layer_decay=0.75).values()} == {0.375}


def test_test_pictures_of_which_nothing_can_be_said_are_named_before_training(monkeypatch):
    unknown = "downstream.probes.fine_tune.class_targets"
    monkeypatch.setattr(unknown, lambda part: torch.full((len(part),), -1))
    monkeypatch.setattr(FineTune, "_train", lambda *_, **__: pytest.fail("it was trained"))
    with pytest.raises(UserError, match="no test image has a class"):
        list(FineTune(steps=1).evaluate(small_encoder(), colours(train=20)))

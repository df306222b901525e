"""Data-dependent initialisation against float64 statistics and per-image rates of change, and its invariances."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from pretext.datasets import at_size, open_dataset
from pretext.datasets.pictures import equally_large
from pretext.encoders import build_encoder, load_encoder
from pretext.modules.initialisation import balance, change_rates, scales_with_its_weights, standardise
from pretext.system.errors import UserError
from pretext.tasks import Batch, build_task
from pretext.training.config import TrainConfig
from pretext.training.loop import train
from pretext.training.run_folder import load_task

PLAIN = "alexnet?width=0.125&stem_stride=1&norm=none"
NORMED = "alexnet?width=0.125&stem_stride=1"
DATA = "scenes?size=32&train=256&val=8&test=8"


@pytest.fixture(scope="module")
def scenes():
    return at_size(open_dataset(DATA).split("train"), 32, bad_images="stop")


def encoder_of(spec, seed=0):
    return build_encoder(spec, input_size=32, seed=seed).eval()


def outputs(encoder, images, kinds):
    """Return the output of each layer of the given kinds, in float64 numpy, channels last."""
    found = []

    def keep(layer, _, output):
        channel = output.ndim - 1 if isinstance(layer, nn.Linear) else 1
        kept = output.double().numpy().copy()  # the next layer may write into it
        found.append(np.moveaxis(kept, channel, -1).reshape(-1, output.shape[channel]))

    handles = [m.register_forward_hook(keep) for m in encoder.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        encoder.double()
        encoder(images.double() / 255)
        encoder.float()
    for handle in handles:
        handle.remove()
    return found


# The choice of initial weights


@pytest.mark.parametrize("init", ["gaussian", "kaiming"])
def test_alexnet_s_initial_weights_are_of_the_published_spread(init):
    encoder = build_encoder(f"alexnet?init={init}&norm=none", input_size=227, seed=0)
    for conv in (module for module in encoder.modules() if isinstance(module, nn.Conv2d)):
        outputs_, _, height, width = conv.weight.shape
        expected = 0.01 if init == "gaussian" else math.sqrt(2 / (outputs_ * height * width))
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.03)
        assert abs(conv.weight.mean().item()) < 0.05 * expected
        assert not conv.bias.any()


# Within layers


@pytest.mark.parametrize(
    ("spec", "kinds", "centre"),
    [
        (PLAIN, nn.Conv2d, 0.0),
        (PLAIN, nn.Conv2d, -0.5),
        (f"{PLAIN}&groups=2&pooled=false", nn.Conv2d, 0.0),
        (NORMED, nn.BatchNorm2d, 0.0),
        ("timm:resnet18", nn.BatchNorm2d, 0.0),
        ("timm:vit_tiny_patch16_224", (nn.Linear, nn.Conv2d), 0.0),
    ],
)
def test_every_channel_has_mean_0_and_variance_1(scenes, spec, kinds, centre):
    encoder = encoder_of(spec)
    standardise(encoder, scenes.images[:64], centre=centre)
    found = outputs(encoder, scenes.images[:64], kinds)
    assert len(found) >= 5
    for layer in found:
        np.testing.assert_allclose(layer.mean(0), centre, atol=2e-3)
        np.testing.assert_allclose(layer.var(0), 1, atol=5e-3)


@pytest.mark.slow
def test_it_holds_for_other_pictures_of_the_same_kind(scenes):
    for spec, kind in ((PLAIN, nn.Conv2d), (NORMED, nn.BatchNorm2d)):
        encoder = encoder_of(spec)
        untouched = outputs(encoder, scenes.images[128:], kind)
        standardise(encoder, scenes.images[:128])
        held = outputs(encoder, scenes.images[128:], kind)
        assert max(np.abs(layer.mean(0)).mean() for layer in held) < 0.15
        assert all(0.8 < layer.var(0).mean() < 1.2 for layer in held)
        assert not all(0.8 < layer.var(0).mean() < 1.2 for layer in untouched)  # the check is not trivial


def test_directions_of_weights_stay_and_gaussian_is_kaiming():
    images = torch.randint(0, 256, (32, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    kaiming, gaussian = (encoder_of(f"{PLAIN}&init={init}") for init in ("kaiming", "gaussian"))
    for small, large in zip(gaussian.convs, kaiming.convs, strict=True):
        small[0].weight.data.copy_(large[0].weight.data * 0.01)
    before = [conv[0].weight.detach().flatten(1).clone() for conv in kaiming.convs]
    for encoder in (kaiming, gaussian):
        standardise(encoder, images)
    for conv, other, old in zip(kaiming.convs, gaussian.convs, before, strict=True):
        torch.testing.assert_close(conv[0].weight, other[0].weight, rtol=1e-3, atol=1e-5)
        similarity = nn.functional.cosine_similarity(conv[0].weight.flatten(1), old)
        torch.testing.assert_close(similarity, torch.ones_like(similarity))


def test_a_dead_channel_and_a_constant_picture_do_no_harm():
    encoder = encoder_of(PLAIN)
    encoder.convs[1][0].weight.data[3] = 0
    standardise(encoder, torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8))
    assert not encoder.convs[1][0].weight[3].any()
    standardise(encoder, torch.full((4, 3, 32, 32), 7, dtype=torch.uint8))
    assert all(torch.isfinite(value).all() for value in encoder.state_dict().values())


# Between layers


@pytest.mark.slow
def test_the_rate_is_that_of_single_pictures(scenes):
    encoder, images = encoder_of(PLAIN), scenes.images[:4]
    standardise(encoder, scenes.images[:64])
    layers = [conv[0] for conv in encoder.convs]
    draws = 60
    found = [change_rates(encoder, layers, images, torch.Generator().manual_seed(k)) for k in range(draws)]
    generator = torch.Generator().manual_seed(99)
    for place, layer in enumerate(layers):
        squares = []
        for image in images:
            for _ in range(draws):
                deepest = encoder(image[None])[-1]
                loss = (deepest * torch.randn(deepest.shape, generator=generator)).sum()
                (gradient,) = torch.autograd.grad(loss, layer.weight)
                squares.append((gradient.double() ** 2).mean().item() / (layer.weight.double() ** 2).sum().item())
        mean_square = np.mean([rates[place].item() ** 2 for rates in found])
        assert mean_square == pytest.approx(np.mean(squares), rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [PLAIN, NORMED])
def test_balanced_layers_change_at_one_rate_and_say_what_they_said(scenes, spec):
    encoder, images = encoder_of(spec), scenes.images[:64]
    order = standardise(encoder, images, centre=0.2)
    layers = [module for module in order if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        before = encoder(images)
    rates = change_rates(encoder, layers, images, torch.Generator().manual_seed(3))
    balance(encoder, order, images, torch.Generator().manual_seed(0), passes=12)
    again = change_rates(encoder, layers, images, torch.Generator().manual_seed(3))
    assert rates.max() / rates.min() > 4
    assert again.max() / again.min() < 1.3
    assert again.log().mean().item() == pytest.approx(rates.log().mean().item(), abs=0.1)
    with torch.no_grad():
        after = encoder(images)
    torch.testing.assert_close(after[-1], before[-1], rtol=1e-3, atol=1e-3)
    for mine, old in zip(after, before, strict=True):  # other maps are multiples of what they were
        scale = (mine * old).sum() / old.square().sum()
        torch.testing.assert_close(mine, scale * old, rtol=1e-3, atol=1e-3)


def test_layer_normalisation_is_refused_between_layers_only():
    vit = encoder_of("timm:vit_tiny_patch16_224")
    assert not scales_with_its_weights(vit) and scales_with_its_weights(encoder_of(NORMED))
    with pytest.raises(UserError, match="give passes=0"):
        build_task("data_dependent", vit, seed=0)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    build_task("data_dependent?passes=0", vit, seed=0).prepare(Batch(equally_large(images), None, torch.Generator()))


# The run


@pytest.mark.slow
@pytest.mark.parametrize("task", ["data_dependent?images=40", "kmeans?images=40&patches=500&iterations=2"])
def test_a_run_takes_no_step_and_leaves_what_others_leave(scenes, tmp_path, task):
    def run(out):
        config = TrainConfig(images=100_000, workers=0, device="cpu")
        return train(task, NORMED, scenes, config, tmp_path / out, image_size=32)

    file = run("run")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["images_seen"] == 40 and about["wall_s"] > 0
    encoder = load_encoder(file)
    trained, kept = encoder.state_dict(), load_task(tmp_path / "run").encoder.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in trained.items())
    assert encoder.record["images_seen"] == 40
    written, stamp = file.read_bytes(), file.stat().st_mtime_ns
    assert run("run").stat().st_mtime_ns == stamp
    file.unlink()  # comes back from the checkpoint, without another look at pictures
    assert run("run").read_bytes() == written
    assert run("other").read_bytes() == written


def test_it_sees_the_pictures_that_there_are(scenes, tmp_path):
    config = TrainConfig(workers=0, device="cpu")
    train("data_dependent?images=5000&passes=0", NORMED, scenes, config, tmp_path / "run", image_size=32)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["images_seen"] == 256


def test_pictures_too_small_for_the_encoder_are_named():
    with pytest.raises(
        UserError, match=r"alexnet\?width=0\.5: 32 px is too small for its halvings; give a larger image size"
    ):
        build_encoder("alexnet?width=0.5", input_size=32, seed=0)

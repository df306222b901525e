"""Context encoder: layers, published shapes, losses against formulas, the two players, and the masks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from task_samples import SMALL, batch, generator, noise

from pretext.encoders import build_encoder
from pretext.modules.decoder import ChannelwiseLinear, Decoder
from pretext.tasks import build_task
from pretext.tasks.context_encoder import ContextEncoder, eroded, weighted_error
from pretext.transforms.masks import MEAN_COLOUR, central, draw_holes, fill

# The channel-wise layer


def test_the_channelwise_layer_equals_a_loop_in_float64():
    layer = ChannelwiseLinear(5, 3, 4)
    torch.nn.init.normal_(layer.bias)
    maps = torch.randn(2, 5, 3, 4, generator=generator())
    weight, bias, given = (t.detach().double().numpy() for t in (layer.weight, layer.bias, maps))
    expected = np.zeros((2, 5, 12))
    for b in range(2):
        for c in range(5):
            for out in range(12):
                flat = given[b, c].reshape(-1)
                expected[b, c, out] = bias[c, out] + sum(flat[i] * weight[c, i, out] for i in range(12))
    np.testing.assert_allclose(layer(maps).detach().numpy(), expected.reshape(2, 5, 3, 4), rtol=1e-4, atol=1e-5)


def test_the_channelwise_layer_costs_m_n4_weights_and_none_crosses_maps():
    layer = ChannelwiseLinear(256, 6, 6)
    assert layer.weight.numel() == 331_776
    maps = torch.zeros(1, 256, 6, 6, requires_grad=True)
    layer(maps)[0, 7].sum().backward()
    assert maps.grad is not None
    assert maps.grad[0, 7].abs().sum() > 0
    assert maps.grad[0, [6, 8]].abs().sum() == 0


# Shapes


def test_the_papers_encoder_and_decoder_have_the_published_shapes():
    encoder = build_encoder("alexnet", input_size=227, seed=0).eval()
    with torch.no_grad():
        assert encoder(torch.zeros(1, 3, 227, 227))[-1].shape == (1, 256, 6, 6)
        decoder = Decoder(encoder, width=1.0, channelwise=True).eval()
        assert decoder.layers(torch.zeros(1, 256, 6, 6)).shape == (1, 3, 161, 161)  # five up-convolutions
        assert decoder(torch.zeros(1, 256, 6, 6)).shape == (1, 3, 227, 227)
    assert sum(isinstance(layer, torch.nn.ConvTranspose2d) for layer in decoder.layers) == 5


def test_the_released_networks_parameters_layer_by_layer():
    encoder = build_encoder("released", input_size=128, seed=0)
    task = build_task("context_encoder:released", encoder, seed=0)
    convs = [4 * 4 * i * o + o for i, o in ((3, 64), (64, 64), (64, 128), (128, 256), (256, 512), (512, 4000))]
    norms = [2 * n for n in (64, 128, 256, 512, 4000)]
    assert sum(p.numel() for p in encoder.parameters()) == sum(convs) + sum(norms)
    ups = [4 * 4 * i * o + o for i, o in ((4000, 512), (512, 256), (256, 128), (128, 64), (64, 3))]
    assert sum(p.numel() for p in task.decoder.parameters()) == sum(ups) + 2 * (512 + 256 + 128 + 64)
    convs = [4 * 4 * i * o + o for i, o in ((3, 64), (64, 128), (128, 256), (256, 512), (512, 1))]
    assert sum(p.numel() for p in task.discriminator.parameters()) == sum(convs) + 2 * (128 + 256 + 512)


def test_the_released_network_predicts_the_centre_and_has_both_losses():
    encoder = build_encoder("released?width=0.05", input_size=128, seed=0)
    config = dataclasses.replace(
        ContextEncoder.Config(mask="central", adversarial_weight=0.001, overlap=4, decoder="released"),
        decoder_width=0.05,
        discriminator_width=0.05,
    )
    task = build_task(config, encoder, seed=0)
    assert [player for player, _ in task.losses(batch(noise(2, size=128)))] == ["discriminator", "generator"]


# Losses


@pytest.mark.parametrize("loss", ["l2", "l1"])
def test_masked_reconstruction_is_the_formula(loss):
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(2, 3, 6, 6)), rng.normal(size=(2, 3, 6, 6))
    weights = rng.integers(0, 3, (2, 1, 6, 6)).astype(float)
    total, count = 0.0, 0
    for b, c, y, x in np.ndindex(2, 3, 6, 6):
        difference = prediction[b, c, y, x] - target[b, c, y, x]
        total += weights[b, 0, y, x] * (difference**2 if loss == "l2" else abs(difference))
        count += weights[b, 0, y, x] > 0
    found = weighted_error(*(torch.from_numpy(a) for a in (prediction, target, weights)), loss=loss)
    assert found.item() == pytest.approx(total / count, rel=1e-12)


def test_the_overlap_is_a_visible_band_inside_the_hole():
    holes = central(1, 32)
    masked = eroded(holes, 2)
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[10:22, 10:22] = True
    assert torch.equal(masked[0, 0], expected)
    assert torch.equal(eroded(holes, 0), holes)


def test_the_overlap_weighs_ten_times():
    config = ContextEncoder.Config(mask="central", overlap=2, reconstruction_weight=1.0)
    task = build_task(config, build_encoder(SMALL, input_size=32, seed=0), seed=0)
    given = batch(noise(4))
    (loss,) = (loss for _, loss in task.losses(given))
    images = given.images.float() / 255
    holes = central(4, 32)
    masked = eroded(holes, 2)
    with torch.no_grad():
        task.train()
        prediction = task.decoder(task.encoder(fill(images, masked))[-1])
    error = (prediction - (2 * images - 1)).double().square()
    band = holes & ~masked
    expected = (error * masked).sum() + 10 * (error * band).sum()
    assert loss.item() == pytest.approx((expected / (3 * holes.sum())).item(), rel=1e-4)


def test_pixels_in_the_hole_do_not_reach_the_output():
    task = build_task(ContextEncoder.Config(mask="central"), build_encoder(SMALL, input_size=32, seed=0), seed=0).eval()
    images, holes = noise(4), central(4, 32)
    other = torch.where(holes, 255 - images, images)
    filled, again = task.inpaint(images, holes), task.inpaint(other, holes)
    assert torch.equal(filled, again)
    outside = ~holes.expand_as(filled)
    assert torch.equal(filled[outside], (images.float() / 255)[outside])


def test_joint_loss_has_the_published_weights():
    config = ContextEncoder.Config(adversarial_weight=0.001)
    assert (config.reconstruction_weight, config.adversarial_weight) == (0.999, 0.001)
    task = build_task(config, build_encoder(SMALL, input_size=32, seed=0), seed=0)
    losses = dict(task.losses(batch(noise(4))))
    parts = task.metrics()
    expected = 0.999 * parts["reconstruction"] + 0.001 * parts["adversarial"]
    assert losses["generator"].item() == pytest.approx(expected, rel=1e-5)


def test_gradients_stay_with_their_player():
    task = build_task(
        ContextEncoder.Config(adversarial_weight=0.5), build_encoder(SMALL, input_size=32, seed=0), seed=0
    )
    players = task.players()
    for player, loss in task.losses(batch(noise(4))):
        task.zero_grad(set_to_none=True)
        loss.backward()
        for name, parameters in players.items():
            moved = any(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
            assert moved == (name == player), (player, name)
    assert {id(p) for ps in players.values() for p in ps} == {id(p) for p in task.parameters()}


@pytest.mark.parametrize("change", [{"conditioned": True}, {"noise": 4}, {"loss": "l1"}, {"mask": "central"}])
def test_switches_train_and_paint(change):
    config = dataclasses.replace(ContextEncoder.Config(adversarial_weight=0.1), **change)
    task = build_task(config, build_encoder(SMALL, input_size=32, seed=0), seed=0)
    for _, loss in task.losses(batch(noise(4))):
        loss.backward()
        assert loss.isfinite()
    task.eval()
    assert task.inpaint(noise(4), central(4, 32)).shape == (4, 3, 32, 32)


# Masks


def test_the_central_hole_is_half_the_side():
    hole = central(1, 64)[0, 0]
    assert hole.sum() == 32 * 32
    assert hole[16:48, 16:48].all()


@pytest.mark.parametrize("size", [32, 64, 227])
def test_random_blocks_cover_at_most_a_quarter_and_not_much_less(size):
    shares = draw_holes("random_block", 500, size, generator()).float().mean(dim=(1, 2, 3))
    assert shares.max() <= 0.25
    assert shares.min() > 0
    assert shares.mean() > 0.15


@pytest.mark.parametrize("size", [32, 64])
def test_random_regions_cover_20_to_30_percent_in_many_shapes(size):
    holes = draw_holes("random_region", 300, size, generator())
    shares = holes.float().mean(dim=(1, 2, 3))
    assert shares.min() >= 0.2 - 1e-6
    assert shares.max() <= 0.3 + 1e-6
    assert len({hole.numpy().tobytes() for hole in holes}) > 290


@pytest.mark.parametrize("kind", ["random_block", "random_region"])
def test_the_generator_decides_the_holes(kind):
    first, again, other = (draw_holes(kind, 8, 32, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_holes_are_filled_with_the_mean_colour():
    images, holes = torch.rand(2, 3, 8, 8), central(2, 8)
    filled = fill(images, holes)
    torch.testing.assert_close(filled[0, :, 3, 3], torch.tensor(MEAN_COLOUR))
    assert torch.equal(filled[..., 0], images[..., 0])

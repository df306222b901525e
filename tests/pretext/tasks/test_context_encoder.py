"""Context encoder: layers, published shapes, losses against formulas, the two players, and the masks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from task_samples import SMALL, batch, generator, noise

from pretext.encoders import build_encoder
from pretext.modules.decoder import ChannelwiseLinear, Decoder
from pretext.system.errors import UserError
from pretext.tasks import build_task
from pretext.tasks.context_encoder import ContextEncoder, _centre, weighted_error
from pretext.transforms.masks import MEAN_COLOUR, central, dilated, draw_holes, eroded, fill, spread

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


def test_the_overlap_surrounds_the_hole_and_weighs_ten_times():
    config = ContextEncoder.Config(mask="central", overlap=2, reconstruction_weight=1.0)
    task = build_task(config, build_encoder(SMALL, input_size=32, seed=0), seed=0)
    given = batch(noise(4))
    (loss,) = (loss for _, loss in task.losses(given))
    images = given.images.float() / 255
    with torch.no_grad():
        task.train()
        prediction = task.decoder(task.encoder(fill(images, central(4, 32)))[-1])
    error = (prediction - (2 * images - 1)).double().square()
    hole, wider = error[:, :, 8:24, 8:24].sum(), error[:, :, 6:26, 6:26].sum()
    expected = (hole + 10 * (wider - hole)) / (3 * 4 * 20 * 20)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def fed_to(task):
    """Return a list to which the encoder of a task appends what it is given."""
    seen = []
    task.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    return seen


def hidden_part(pictures):
    return (pictures == torch.tensor(MEAN_COLOUR).view(1, 3, 1, 1)).all(dim=1, keepdim=True)


@pytest.mark.parametrize("overlap", [0, 3])
@pytest.mark.parametrize("mask", ["central", "random_region"])
def test_painting_hides_what_training_hid(mask, overlap):
    config = ContextEncoder.Config(mask=mask, overlap=overlap)
    task = build_task(config, build_encoder(SMALL, input_size=32, seed=0), seed=0)
    seen, given = fed_to(task), batch(noise(4))
    list(task.losses(given))
    holes = hidden_part(seen[0])
    assert torch.equal(holes, draw_holes(mask, 4, 32, batch(noise(4)).generator))
    task.inpaint(given.images, holes)
    assert torch.equal(seen[0], seen[1])


def released(overlap=4):
    encoder = build_encoder("released?width=0.05", input_size=128, seed=0)
    config = ContextEncoder.Config(
        mask="central", overlap=overlap, decoder="released", decoder_width=0.05, adversarial_weight=0.0
    )
    return build_task(config, encoder, seed=0)


def test_the_released_network_is_shown_no_more_of_the_hole_than_in_training():
    task, given = released(), batch(noise(2, size=128))
    seen = fed_to(task)
    list(task.losses(given))
    square = torch.zeros(2, 1, 128, 128, dtype=torch.bool)
    square[..., 36:92, 36:92] = True
    assert torch.equal(hidden_part(seen[0]), square)
    holes = central(2, 128)
    task.eval()
    filled = task.inpaint(given.images, holes)
    assert torch.equal(hidden_part(seen[1]), square)
    around = ~holes.expand_as(seen[1])
    assert torch.equal(seen[1][around], (given.images.float() / 255)[around])
    other = torch.where(holes, 255 - given.images, given.images)
    assert torch.equal(task.inpaint(other, holes), filled)


def test_the_released_network_refuses_what_it_does_not_predict():
    task, images = released(), noise(2, size=128)
    beyond = central(2, 128)
    beyond[1, 0, 31, 64] = True
    assert task.can_fill(central(2, 128)) and not task.can_fill(beyond)
    with pytest.raises(UserError, match="predicts the central 64×64 pixels"):
        task.inpaint(images, beyond)
    assert build_task("context_encoder", build_encoder(SMALL, input_size=32, seed=0), seed=0).can_fill(central(2, 32))


@pytest.mark.parametrize("task", ["context_encoder", "autoencoder", "denoising_autoencoder"])
def test_crops_and_flips_are_an_option_of_tasks_that_see_whole_images(task):
    pictures = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    pictures[..., :16] = 255  # white on the left
    seen = {}
    for options in ("", "?flip=1", "?crop_min=0.3"):
        model = build_task(task + options, build_encoder(SMALL, input_size=32, seed=0), seed=0)
        fed, given = fed_to(model), batch(pictures)
        list(model.losses(given))
        seen[options] = fed[0][:, :, 1].mean(dim=1)  # of the second row, away from most holes
    left, right = (seen["?flip=1"][:, half].mean() for half in (slice(0, 16), slice(16, 32)))
    assert seen[""][:, :16].mean() > seen[""][:, 16:].mean() and left < right
    assert not torch.equal(seen["?crop_min=0.3"], seen[""])
    with pytest.raises(UserError, match="crop_min is 0"):
        build_task(f"{task}?crop_min=0", build_encoder(SMALL, input_size=32, seed=0), seed=0)


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


def test_bands_of_holes():
    holes = central(1, 32)
    inner, outer = (torch.zeros(32, 32, dtype=torch.bool) for _ in range(2))
    inner[10:22, 10:22] = True
    outer[6:26, 6:26] = True
    assert torch.equal(eroded(holes, 2)[0, 0], inner) and torch.equal(dilated(holes, 2)[0, 0], outer)
    assert torch.equal(eroded(holes, 0), holes) and torch.equal(dilated(holes, 0), holes)
    assert dilated(torch.ones(1, 1, 4, 4, dtype=torch.bool), 2).all()


def test_colours_spread_into_a_hole_from_its_edge_only():
    images, holes = torch.rand(2, 3, 16, 16, generator=generator()), central(2, 16)
    found = spread(images, holes, 2)
    band = (holes & ~eroded(holes, 2)).expand_as(images)
    outside = ~holes.expand_as(images)
    assert torch.equal(found[outside], images[outside])
    assert torch.equal(found, spread(torch.where(holes, 1 - images, images), holes, 2))
    for b, c in np.ndindex(2, 3):  # a pixel at the corner: the mean of its five neighbours outside
        known = [images[b, c, y, x] for y in (3, 4, 5) for x in (3, 4, 5) if not holes[b, 0, y, x]]
        assert found[b, c, 4, 4].item() == pytest.approx(float(sum(known) / len(known)), rel=1e-5)
    flat = spread(torch.full((1, 3, 16, 16), 0.3), central(1, 16), 4)
    torch.testing.assert_close(flat, torch.full((1, 3, 16, 16), 0.3))
    assert (found[band] > 0).all()


@pytest.mark.parametrize("side", [63, 64, 65, 66, 67, 227])
def test_the_discriminator_sees_the_central_hole_and_nothing_else(side):
    hole = central(1, side)
    assert _centre(hole, side // 2).all() and _centre(hole, side // 2).sum() == hole.sum()

"""`PatchTokens` agrees with the whole encoder, and hidden patches have no effect."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from task_samples import VIT, generator, lightly

from pretext.encoders import build_encoder
from pretext.modules.tokens import (
    PatchTokens,
    gather_tokens,
    has_tokens,
    patches_to_hide,
    patchify,
    random_order,
    scaled_width,
    sincos_positions,
    transformer,
    unpatchify,
)
from pretext.system.errors import UserError


def vit(size=32):
    return build_encoder(VIT, input_size=size, seed=0).eval()


def pictures(count=3, size=32, seed=0):
    return torch.rand(count, 3, size, size, generator=generator(seed))


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        (VIT, 32),
        ("timm:vit_xsmall_patch16_clip_224", 32),  # normalised before the blocks
        ("timm:deit_tiny_distilled_patch16_224", 32),  # two class tokens
        ("timm:vit_small_patch14_reg4_dinov2", 28),  # registers, and positions of patches only
        ("timm:vit_wee_patch16_reg1_gap_256", 32),  # no class token
    ],
)
def test_all_patches_give_the_deepest_map(spec, size):
    encoder = build_encoder(spec, input_size=size, seed=0).eval()
    tokens, images = PatchTokens(encoder), pictures(2, size)
    with torch.no_grad():
        deepest = encoder(images)[-1]
        found = tokens.encode(tokens.embed(images))
    assert tokens.count == deepest[0, 0].numel() and tokens.width == deepest.shape[1]
    torch.testing.assert_close(found, deepest.flatten(2).transpose(1, 2))


def test_positions_go_with_their_patches():
    tokens, images = PatchTokens(vit()), pictures()
    order = random_order(3, 16, generator())
    with torch.no_grad():
        embedded = tokens.embed(images)
        whole, shuffled = tokens.encode(embedded), tokens.encode(embedded, order)
    torch.testing.assert_close(shuffled, gather_tokens(whole, order), atol=1e-5, rtol=1e-4)


def test_blocks_see_the_kept_patches_and_nothing_of_the_others():
    encoder = vit()
    tokens, images = PatchTokens(encoder), pictures()
    kept = torch.tensor([[0, 5, 7], [15, 1, 2], [8, 9, 3]])
    lengths = []
    handle = encoder.model.model.blocks[0].register_forward_hook(lambda _m, given, _o: lengths.append(given[0].shape))
    hidden = torch.ones(3, 16, dtype=torch.bool).scatter(1, kept, False)
    other = unpatchify(torch.where(hidden[..., None], 1 - patchify(images, 8), patchify(images, 8)), 8)
    with torch.no_grad():
        first, second = (tokens.encode(tokens.embed(each), kept) for each in (images, other))
        third = tokens.encode(tokens.embed(pictures(seed=1)), kept)
    handle.remove()
    assert lengths == [(3, 1 + 3, 192)] * 3
    assert torch.equal(first, second) and not torch.allclose(first, third)


@pytest.mark.parametrize("spec", ["alexnet?stem_stride=1", "timm:resnet18", "timm:vit_tiny_r_s16_p8_224"])
def test_encoders_without_patches_are_refused(spec):
    encoder = build_encoder(spec, input_size=32, seed=0)
    assert not has_tokens(encoder)
    with pytest.raises(ValueError, match=re.escape(spec) + r".*--encoder timm:vit_tiny_patch16_224"):
        PatchTokens(encoder)


def test_a_picture_that_patches_do_not_fit_is_refused():
    encoder = build_encoder("timm:vit_tiny_patch16_224", input_size=32, seed=0)
    encoder.input_size = 40
    with pytest.raises(ValueError, match=r"40 px .* patches of 16 px.*--image-size"):
        PatchTokens(encoder)


def test_patches_are_numpys_slices_and_lightlys(monkeypatch):
    images = pictures(2, 12)
    found = patchify(images, 4)
    for b, i in np.ndindex(2, 9):
        row, column = divmod(i, 3)
        cut = images[b, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].numpy()
        np.testing.assert_array_equal(found[b, i].numpy(), cut.transpose(1, 2, 0).reshape(-1))
    assert torch.equal(unpatchify(found, 4), images)
    assert torch.equal(lightly(monkeypatch, "models.utils").patchify(images, 4), found)


def test_fixed_positions_are_the_formula_and_lightlys(monkeypatch):
    found = sincos_positions(24, 5).numpy()
    for i, (row, column) in enumerate(np.ndindex(5, 5)):
        expected = []
        for at in (column, row):
            angles = [at / 10_000 ** (k / 6) for k in range(6)]
            expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        np.testing.assert_allclose(found[i], expected, atol=1e-6)
    theirs = lightly(monkeypatch, "models.utils").get_2d_sine_cosine_positional_embedding(24, 5, cls_token=False)
    np.testing.assert_allclose(found, theirs, atol=1e-5)


def test_orders_are_permutations_of_the_generator_and_no_place_is_preferred():
    order = random_order(4000, 6, generator())
    assert (order.sort(dim=1).values == torch.arange(6)).all()
    assert torch.equal(order, random_order(4000, 6, generator()))
    shares = torch.nn.functional.one_hot(order, 6).float().mean(dim=0)
    assert (shares - 1 / 6).abs().max() < 0.03  # five standard deviations


@pytest.mark.parametrize(
    ("count", "ratio", "hidden"), [(196, 0.75, 147), (64, 0.75, 48), (16, 0.75, 12), (36, 0.6, 22)]
)
def test_the_share_that_is_hidden(count, ratio, hidden):
    assert patches_to_hide(count, ratio) == hidden


@pytest.mark.parametrize(("count", "ratio"), [(4, 0.75), (16, 0.85), (16, 0.2), (1, 0.5)])
def test_fewer_than_four_of_either_are_refused(count, ratio):
    with pytest.raises(ValueError, match=rf"of {count} patches.*needed.*patch_size=8"):
        patches_to_hide(count, ratio)


def test_blocks_of_the_light_transformer_start_unlike_each_other_and_mix_tokens():
    torch.manual_seed(0)
    net = transformer(64, 2)
    assert not torch.equal(net[0].linear1.weight, net[1].linear1.weight)
    tokens = torch.randn(1, 5, 64, requires_grad=True)
    net(tokens)[0, 0].square().sum().backward()
    assert (tokens.grad.abs().sum(dim=2) > 0).all()
    assert [scaled_width(width, 0.5) for width in (192, 768, 1024, 16)] == [96, 384, 512, 32]


# timm's options


def test_the_patch_size_of_a_transformer_can_be_chosen():
    assert [stage.stride for stage in vit().stages] == [8, 8, 8]
    assert vit()(pictures())[-1].shape == (3, 192, 4, 4)


def test_what_has_no_patches_says_so():
    with pytest.raises(UserError, match=r"resnet18 has no patches; remove patch_size=8"):
        build_encoder("timm:resnet18?patch_size=8", input_size=32, seed=0)
    with pytest.raises(UserError, match=r"patch_size is 0; allowed is from 1"):
        build_encoder("timm:vit_tiny_patch16_224?patch_size=0", input_size=32, seed=0)


def test_channels_come_first_whatever_timm_has():
    encoder = build_encoder("timm:swin_tiny_patch4_window7_224", input_size=32, seed=0).eval()
    with torch.no_grad():
        maps = encoder(pictures(1))
    assert [each.shape for each in maps] == [(1, stage.channels, *[32 // stage.stride] * 2) for stage in encoder.stages]

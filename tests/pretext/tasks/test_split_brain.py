"""Split-brain: the halves stay disconnected during training, and together are an ordinary encoder."""

from __future__ import annotations

import math

import pytest
import torch
from task_samples import SMALL, batch, built, generator, noise, step, trained
from torch import nn

from pretext.encoders import build_encoder, load_encoder, save_encoder
from pretext.modules.split_encoder import halves_are_disjoint, split_in_halves, zero_cross_weights
from pretext.system.errors import UserError
from pretext.transforms.augmentation import LUMA


def moved(spec="split_brain", encoder=SMALL, steps=3, *, kept=True):
    task = built(spec, encoder)
    optimiser = torch.optim.AdamW(task.parameters(), 3e-3, weight_decay=0.05)
    for number in range(steps):
        step(task, batch(noise(4), number), optimiser)
        if kept:
            task.after_step(number / steps)
    return task


def input_gradients(network, images):
    """Return the input gradient of each half of the deepest channels: B×3×S×S each."""
    images = images.float().div(255).requires_grad_()
    deepest = network.eval()(images)[-1]
    draw = generator(1)
    halves = deepest.chunk(2, dim=1)
    return [
        torch.autograd.grad((half * torch.randn(half.shape, generator=draw)).sum(), images, retain_graph=True)[0]
        for half in halves
    ]


@pytest.mark.parametrize("spec", [SMALL, f"{SMALL}&groups=2", f"{SMALL}&pooled=false", "timm:resnet18"])
def test_one_half_depends_on_luma_only_and_the_other_not_on_grey(spec):
    pytest.importorskip("timm")
    task = moved("split_brain?hidden=8", spec)
    lightness, colours = input_gradients(task.encoder, noise(2))
    luma = torch.tensor(LUMA).view(1, 3, 1, 1)
    along = (lightness * luma).sum(1, keepdim=True) * luma / luma.square().sum()
    assert lightness.abs().max() > 0 and colours.abs().max() > 0
    torch.testing.assert_close(lightness, along, atol=1e-4 * float(along.abs().max()), rtol=0)
    assert colours.sum(dim=1).abs().max() < 1e-4 * colours.abs().max()


def test_training_would_connect_the_halves_without_after_step():
    assert halves_are_disjoint(moved().encoder)
    assert not halves_are_disjoint(moved(steps=1, kept=False).encoder)
    assert not halves_are_disjoint(build_encoder(SMALL, input_size=32, seed=0))


@pytest.mark.parametrize("which", ["colours", "lightness"])
def test_the_losses_share_no_weight(which):
    task = built("split_brain")
    channels = torch.rand(4, 2 if which == "colours" else 1, 32, 32) * 50
    deepest = task.encoder(noise(4))[-1]
    own = deepest[:, : task.split_at] if which == "colours" else deepest[:, task.split_at :]
    getattr(task, which).loss(own, channels).backward()
    for conv in task.encoder.modules():
        if isinstance(conv, nn.Conv2d):
            mine, other = conv.weight.grad.chunk(2)
            if which == "lightness":
                mine, other = other, mine
            assert mine.abs().sum() > 0 and other.abs().sum() == 0


def test_filters_keep_their_norms_and_lose_the_cross_connections():
    network = build_encoder(SMALL, input_size=32, seed=0)
    before = [m.weight.detach().clone() for m in network.modules() if isinstance(m, nn.Conv2d)]
    split_in_halves(network)
    after = [m.weight.detach() for m in network.modules() if isinstance(m, nn.Conv2d)]
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new.flatten(1).norm(dim=1), old.flatten(1).norm(dim=1))
    for new in after[1:]:
        out, into = new.shape[0] // 2, new.shape[1] // 2
        assert new[:out, into:].abs().sum() == 0 and new[out:, :into].abs().sum() == 0
        assert new[:out, :into].abs().min() > 0 and new[out:, into:].abs().min() > 0


def test_splitting_twice_changes_nothing():
    network = build_encoder(SMALL, input_size=32, seed=0)
    split_in_halves(network)
    before = [p.detach().clone() for p in network.parameters()]
    zero_cross_weights(network)
    for old, new in zip(before, network.parameters(), strict=True):
        torch.testing.assert_close(new, old, atol=1e-7, rtol=1e-5)


def test_the_file_is_an_ordinary_encoders(tmp_path):
    task = moved()
    save_encoder(task.encoder, tmp_path / "encoder.safetensors", {})
    loaded = load_encoder(tmp_path / "encoder.safetensors")
    assert loaded.spec == SMALL
    for mine, theirs in zip(task.encoder.eval()(noise(4)), loaded(noise(4)), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("spec", ["timm:vit_tiny_patch16_224", f"{SMALL}&norm=local_response"])
def test_an_encoder_that_mixes_channels_is_refused(spec):
    pytest.importorskip("timm")
    with pytest.raises(UserError, match=r"cannot be split in halves.*give alexnet"):
        built("split_brain", spec)


def test_the_loss_is_the_sum_of_the_halves_and_log_of_the_bins_for_uniform_predictions():
    task = built("split_brain")
    for head in (task.colours, task.lightness):
        nn.init.zeros_(head.answer.weight)
        nn.init.zeros_(head.answer.bias)
    ((_, loss),) = task.losses(batch(noise(4)))
    parts = task.metrics()
    assert parts["colours"] == pytest.approx(math.log(313)) and parts["lightness"] == pytest.approx(math.log(101))
    assert loss.item() == pytest.approx(sum(parts.values()), rel=1e-6)


@pytest.mark.slow
def test_each_half_learns_about_the_other():
    run = trained("split_brain?crop=1", steps=240, rate=3e-3)
    run.unseen_loss()
    for name, head in (("colours", run.task.colours), ("lightness", run.task.lightness)):
        prior = head.bins.prior
        entropy = float(-(prior * prior.clamp(min=1e-12).log()).sum())  # the lowest loss without seeing the image
        found = run.task.metrics()[name]
        assert found < 0.9 * entropy, (name, found, entropy)

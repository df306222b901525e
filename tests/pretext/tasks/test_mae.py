"""MAE: the error is over masked patches, the encoder reads the visible ones, tokens keep their positions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from task_samples import SMALL_VIT, VIT, batch, built, generator, lightly, noise, scenes, trained

from pretext.modules.tokens import patchify, unpatchify
from pretext.system.errors import UserError
from pretext.tasks.mae import masked_error, normalise_patches

WHOLE = "crop_min=1&flip=0"  # the crop is the whole image


def mae(options=""):
    return built(f"mae?{WHOLE}{options}", VIT)


def test_the_error_is_the_mean_over_masked_patches_only():
    rng = np.random.default_rng(0)
    predicted, target = rng.normal(size=(2, 3, 7, 12))
    masked = rng.random((3, 7)) < 0.6
    terms = [((predicted[b, i] - target[b, i]) ** 2).mean() for b, i in np.argwhere(masked)]
    given = torch.from_numpy(predicted).requires_grad_()
    found = masked_error(given, torch.from_numpy(target), torch.from_numpy(masked))
    assert found.item() == pytest.approx(sum(terms) / len(terms), rel=1e-6)
    found.backward()
    reached = given.grad.abs().sum(dim=2) > 0
    assert torch.equal(reached, torch.from_numpy(masked))


def test_patches_are_normalised_each_by_itself_as_lightly_does(monkeypatch):
    patches = patchify(noise(4).float(), 8)
    mine = normalise_patches(patches)
    for b, i in np.ndindex(4, 16):
        values = patches[b, i].double().numpy()
        expected = (values - values.mean()) / np.sqrt(values.var(ddof=1) + 1e-6)
        np.testing.assert_allclose(mine[b, i].numpy(), expected, atol=1e-5)
    torch.testing.assert_close(mine, lightly(monkeypatch, "models.utils").normalize_mean_var(patches))


def test_a_constant_patch_has_a_zero_target():
    assert normalise_patches(torch.full((1, 1, 192), 0.3)).abs().max() < 1e-3


@pytest.mark.parametrize("normalised", [True, False])
def test_a_steps_loss_is_the_error_of_the_masked_patches(normalised):
    task, images = mae(f"&normalised={normalised}"), noise(4)
    given = batch(images, 3)
    (loss,) = (loss for _, loss in task.losses(given))
    pixels = images.double().numpy() / 255
    pixels = (pixels - np.reshape(task.encoder.mean, (3, 1, 1))) / np.reshape(task.encoder.std, (3, 1, 1))
    crops = generator(3)
    torch.rand(14, 4, generator=crops)  # the augmentation's draws
    with torch.no_grad():
        predicted, masked = task.predicted(images.float() / 255, crops)
    terms = []
    for b, i in masked.nonzero().tolist():
        row, column = (8 * part for part in divmod(i, 4))
        target = pixels[b, :, row : row + 8, column : column + 8].transpose(1, 2, 0).reshape(-1)
        if normalised:
            target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
        terms.append(((predicted[b, i].double().numpy() - target) ** 2).mean())
    assert len(terms) == 4 * 12
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-4)


def test_the_encoder_reads_a_quarter_and_the_prediction_does_not_depend_on_the_rest():
    task, images = mae().eval(), noise(4).float() / 255
    lengths = []
    blocks = task.encoder.model.model.blocks
    handles = [b.register_forward_hook(lambda _m, given, _o: lengths.append(given[0].shape[1])) for b in blocks]
    with torch.no_grad():
        predicted, masked = task.predicted(images, generator())
        patches = patchify(images, 8)
        other = unpatchify(torch.where(masked[..., None], 1 - patches, patches), 8)
        again, _ = task.predicted(other, generator())
        elsewhere, _ = task.predicted(unpatchify(torch.where(masked[..., None], patches, 1 - patches), 8), generator())
    for handle in handles:
        handle.remove()
    assert (masked.sum(dim=1) == 12).all() and len({tuple(row.tolist()) for row in masked}) > 2
    assert set(lengths) == {1 + 4}  # the class token, and a quarter of 16
    assert torch.equal(predicted, again) and not torch.allclose(predicted, elsewhere)


def test_tokens_return_to_their_positions():
    task = mae()
    order = torch.rand(2, 16, generator=generator()).argsort(dim=1)
    seen = torch.arange(8.0).view(2, 4, 1).expand(2, 4, 96) + 1
    with torch.no_grad():
        laid = task._with_mask_tokens(seen, order)
    for b in range(2):
        for k, place in enumerate(order[b].tolist()):
            expected = seen[b, k] if k < 4 else task.hidden
            assert torch.equal(laid[b, place], expected)


def test_the_sheet_keeps_visible_patches_and_shows_a_perfect_prediction_as_the_original(monkeypatch):
    task, images = mae(), noise(4)
    masked = torch.rand(4, 16, generator=generator()) < 0.5
    truth = normalise_patches(patchify(task.encoder.normalised(images), 8))
    monkeypatch.setattr(task, "predicted", lambda *_: (truth, masked))
    sheet = task.pictures(batch(images))
    torch.testing.assert_close(sheet["painted"], sheet["original"], atol=1e-5, rtol=0)
    monkeypatch.setattr(task, "predicted", lambda *_: (0 * truth, masked))
    blurred = task.pictures(batch(images))["painted"]
    same = (patchify(blurred, 8) - patchify(sheet["original"], 8)).abs().amax(dim=2) < 1e-5
    assert torch.equal(same, ~masked)


@pytest.mark.parametrize(
    ("spec", "size", "message"),
    [
        ("alexnet?stem_stride=1", 32, r"no patch tokens; give --encoder timm:vit_tiny_patch16_224"),
        ("timm:resnet18", 32, r"no patch tokens"),
        ("timm:vit_tiny_patch16_224", 32, r"3 of 4 patches would be hidden and 1 visible.*patch_size=8"),
    ],
)
def test_what_cannot_work_is_refused_when_built(spec, size, message):
    with pytest.raises(UserError, match=message):
        built("mae", spec, size)


def test_the_named_transformer_is_enough_at_64_px():
    task = built("mae", "timm:vit_tiny_patch16_224", 64)
    (loss,) = (loss for _, loss in task.losses(batch(noise(2, size=64))))
    assert loss.isfinite() and task.visible == 4


@pytest.mark.slow
def test_it_learns_more_than_the_mean_of_a_patch():
    run = trained("mae", SMALL_VIT, steps=60, count=32)
    target = normalise_patches(patchify(run.task.encoder.normalised(scenes("test")), 8))
    assert run.unseen_loss() < 0.9 * target.square().mean().item()

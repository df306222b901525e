"""SimMIM: the error is over masked pixels, which the encoder does not see, with and without patch tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from task_samples import SMALL, SMALL_VIT, VIT, batch, built, generator, noise, scenes, trained

from pretext.system.errors import UserError
from pretext.tasks.simmim import masked_error, square_side
from pretext.transforms.masks import random_region


def simmim(spec=SMALL, options="", size=32):
    return built(f"simmim?crop_min=1&flip=0{options}", spec, size)


def test_the_error_is_the_mean_over_masked_values_only():
    rng = np.random.default_rng(0)
    predicted, truth = rng.normal(size=(2, 3, 3, 4, 4))
    holes = rng.random((3, 1, 4, 4)) < 0.6
    terms = [abs(predicted[b, c, y, x] - truth[b, c, y, x]) for b, _, y, x in np.argwhere(holes) for c in range(3)]
    given = torch.from_numpy(predicted).requires_grad_()
    found = masked_error(given, torch.from_numpy(truth), torch.from_numpy(holes))
    assert found.item() == pytest.approx(sum(terms) / len(terms), rel=1e-6)
    found.backward()
    assert torch.equal(given.grad != 0, torch.from_numpy(holes).expand(-1, 3, -1, -1))


@pytest.mark.parametrize(
    ("size", "patch", "side"),
    [(192, 1, 32), (224, 16, 32), (224, 1, 32), (192, 4, 32), (32, 1, 4), (64, 8, 8), (64, 16, 16), (128, 1, 16)],
)
def test_squares_are_the_published_share_of_an_image(size, patch, side):
    assert square_side(size, patch) == side


@pytest.mark.parametrize(("spec", "size", "side", "hidden"), [(SMALL, 32, 4, 38), (VIT, 32, 8, 10), (SMALL, 36, 8, 15)])
def test_the_same_number_of_grid_squares_is_masked_in_each_image(spec, size, side, hidden):
    task = simmim(spec, size=size)
    holes = task.holes(20, generator())
    assert task.square == side and holes.shape == (20, 1, size, size)
    across = -(-size // side)  # squares at the border may be cropped
    found = np.zeros((20, across, across), dtype=int)
    for b, row, column in np.ndindex(found.shape):
        values = holes[b, 0, side * row : side * (row + 1), side * column : side * (column + 1)].unique().tolist()
        assert len(values) == 1
        found[b, row, column] = values[0]
    assert set(found.sum(axis=(1, 2))) == {hidden}
    assert len({each.tobytes() for each in found}) == 20
    assert torch.equal(holes, task.holes(20, generator()))


@pytest.mark.parametrize("spec", [SMALL, VIT])
def test_the_output_depends_on_visible_pixels_only(spec):
    task, images = simmim(spec).eval(), noise(4).float() / 255
    holes = task.holes(4, generator())
    with torch.no_grad():
        predicted = task.predicted(images, holes)
        assert torch.equal(task.predicted(torch.where(holes, 1 - images, images), holes), predicted)
        assert not torch.allclose(task.predicted(torch.where(holes, images, 1 - images), holes), predicted)
        assert not torch.allclose(task.predicted(images, holes.roll(8, 2)), predicted)


def test_masked_pixels_have_the_learned_colour_without_tokens(monkeypatch):
    task, images = simmim(), noise(2)
    with torch.no_grad():
        task.blank.copy_(torch.tensor([0.1, -0.2, 0.3]).view(3, 1, 1))
    shown, maps = [], task.encoder.maps
    monkeypatch.setattr(task.encoder, "maps", lambda x: shown.append(x) or maps(x))
    holes = task.holes(2, generator())
    task.predicted(images.float() / 255, holes)
    hidden = holes.expand(-1, 3, -1, -1)
    expected = torch.tensor([0.1, -0.2, 0.3]).view(1, 3, 1, 1).expand(2, 3, 32, 32)
    torch.testing.assert_close(shown[0][hidden], expected[hidden])
    torch.testing.assert_close(shown[0][~hidden], task.encoder.normalised(images)[~hidden])


def test_masked_patches_have_the_mask_token_and_their_positions():
    task, images = simmim(VIT), noise(2).float() / 255
    vit, seen = task.encoder.model.model, []
    handle = vit.blocks[0].register_forward_hook(lambda _m, given, _o: seen.append(given[0]))
    holes = task.holes(2, generator())
    with torch.no_grad():
        task.predicted(images, holes)
    handle.remove()
    patches = (seen[0] - vit.pos_embed)[:, 1:]
    hidden = holes[:, 0, ::8, ::8].flatten(1)
    assert patches.shape == (2, 16, 192)  # the encoder reads all patches, unlike in MAE
    torch.testing.assert_close(patches[hidden], task.blank.detach().expand(20, -1))
    torch.testing.assert_close(patches[~hidden], task.tokens.embed(images)[~hidden].detach())


def test_the_head_is_one_layer_and_predicts_each_cell_from_its_own_features():
    task = simmim(VIT)
    deepest = torch.zeros(1, 192, 4, 4, requires_grad=True)
    picture = task.head(deepest)
    assert picture.shape == (1, 3, 32, 32)
    picture[0, :, 8:16, 24:32].sum().backward()
    assert deepest.grad.abs().sum(dim=1)[0].nonzero().tolist() == [[1, 3]]
    assert sum(p.numel() for p in task.head.parameters()) == 192 * 192 + 192


@pytest.mark.parametrize(("spec", "size"), [(SMALL, 36), ("timm:resnet18", 64), ("timm:vit_tiny_patch16_224", 64)])
def test_it_works_with_other_networks_and_sizes_that_do_not_divide(spec, size):
    task, images = simmim(spec, size=size), noise(2, size=size)
    (loss,) = (loss for _, loss in task.losses(batch(images)))
    loss.backward()
    assert loss.isfinite() and all(p.grad is not None for p in task.parameters())


@pytest.mark.parametrize("spec", [SMALL, VIT])
def test_a_steps_loss_is_the_error_of_the_masked_pixels(spec):
    task, images = simmim(spec), noise(4)
    (loss,) = (loss for _, loss in task.losses(batch(images, 3)))
    draws = generator(3)
    torch.rand(14, 4, generator=draws)  # the augmentation's draws
    holes = task.holes(4, draws)
    with torch.no_grad():
        predicted = task.predicted(images.float() / 255, holes).double().numpy()
    truth = images.double().numpy() / 255
    truth = (truth - np.reshape(task.encoder.mean, (3, 1, 1))) / np.reshape(task.encoder.std, (3, 1, 1))
    error = np.abs(predicted - truth)[holes.expand(-1, 3, -1, -1).numpy()]
    assert loss.item() == pytest.approx(error.mean(), rel=1e-4)


@pytest.mark.parametrize("spec", [SMALL, VIT])
def test_holes_of_any_shape_are_filled_and_nothing_else(spec):
    task, images, holes = simmim(spec).eval(), noise(4), random_region(4, 32, generator())
    filled = task.inpaint(images, holes)
    outside = ~holes.expand(-1, 3, -1, -1)
    assert torch.equal(filled[outside], (images.float() / 255)[outside])
    assert torch.equal(task.inpaint(torch.where(holes, 255 - images, images), holes), filled)
    alone = torch.cat([task.inpaint(images[i : i + 1], holes[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(alone, filled, atol=1e-5, rtol=0)
    assert filled.min() >= 0 and filled.max() <= 1


def test_a_perfect_head_gives_the_original(monkeypatch):
    task, images, holes = simmim(), noise(4), random_region(4, 32, generator())
    monkeypatch.setattr(task, "predicted", lambda pixels, _: task.encoder.normalised(pixels))
    torch.testing.assert_close(task.inpaint(images, holes), images.float() / 255, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (VIT, "&square=12", r"square is 12; allowed are multiples of the encoder's patch of 8 px"),
        (SMALL, "&square=16", r"2 of 4 patches would be hidden and 2 visible"),
        ("timm:vit_tiny_patch16_224", "", r"2 of 4 patches would be hidden.*patch_size=8"),
    ],
)
def test_what_cannot_work_is_refused_when_built(spec, options, message):
    with pytest.raises(UserError, match=message):
        simmim(spec, options)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [SMALL, SMALL_VIT])
def test_it_learns_more_than_the_best_colour(spec):
    run = trained("simmim", spec, steps=60, count=32)
    truth = run.task.encoder.normalised(scenes("test"))
    best = truth.transpose(0, 1).flatten(1).median(dim=1).values.view(3, 1, 1)  # minimises the absolute error
    assert run.unseen_loss() < 0.8 * (truth - best).abs().mean().item()

"""I-JEPA: the blocks, the predictor's inputs, and the momentum encoder's targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from task_samples import SMALL_VIT, VIT, batch, built, generator, noise, scenes, trained

from pretext.modules.tokens import gather_tokens, patchify, unpatchify
from pretext.system.errors import UserError
from pretext.tasks.ijepa import IJEPA, block_size, draw_blocks
from pretext.training.collapse import COLLAPSED


def ijepa(options="", spec=VIT, size=32):
    return built(f"ijepa?crop_min=1{options}", spec, size)


@pytest.mark.parametrize(
    ("area", "aspect", "size"),
    [(0.15, 1.0, (5, 5)), (0.2, 1.5, (8, 5)), (0.2, 0.75, (5, 7)), (0.85, 1.0, (13, 13)), (1.0, 1.0, (14, 14))],
)
def test_block_sizes_on_the_published_grid_by_hand(area, aspect, size):
    assert block_size(area, aspect, 14) == size  # 14 √(area·aspect) and 14 √(area/aspect), rounded


@pytest.mark.parametrize("grid", [4, 8, 14])
@pytest.mark.parametrize("seed", range(6))
def test_targets_are_rectangles_of_one_size_and_the_context_has_none_of_them(grid, seed):
    context, targets = draw_blocks(40, grid, IJEPA.Config(), generator(seed))
    assert targets.shape[:2] == (40, 4)
    sides, corners = set(), set()
    for b in range(40):
        shown = context[b].tolist()
        assert len(set(shown)) == len(shown) >= 1 and not set(shown) & set(targets[b].flatten().tolist())
        for cells in targets[b].numpy():
            rows, columns = np.divmod(cells, grid)
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert len(set(cells.tolist())) == len(cells) == height * width and cells.max() < grid**2
            sides.add((height, width))
            corners.add((rows.min(), columns.min()))
        rows, columns = np.divmod(np.array(shown), grid)
        assert np.ptp(rows) < block_size(1.0, 1.0, grid)[0] and np.ptp(columns) < grid
    ((height, width),) = sides
    assert 0.15 * grid**2 / 1.6 < height * width < 0.2 * grid**2 * 1.6 and len(corners) > grid
    again = draw_blocks(40, grid, IJEPA.Config(), generator(seed))
    assert torch.equal(again.context, context) and torch.equal(again.targets, targets)


def test_sizes_and_places_have_the_published_ranges():
    areas, shown, first_rows = [], [], []
    for seed in range(200):
        context, targets = draw_blocks(8, 16, IJEPA.Config(), generator(seed))
        areas.append(targets.shape[2] / 256)
        shown.append(context.shape[1] / 256)
        first_rows += (targets[..., 0] // 16).flatten().tolist()
    assert 0.13 < min(areas) < 0.155 and 0.195 < max(areas) < 0.22  # sides are whole patches
    assert min(shown) > 0.1 and max(shown) < 0.7
    assert min(first_rows) == 0 and max(first_rows) >= 10


def test_a_single_image_keeps_its_whole_context():
    for seed in range(20):
        (context,), (targets,) = draw_blocks(1, 8, IJEPA.Config(context_min=1.0), generator(seed))
        assert set(context.tolist()) == set(range(64)) - set(targets.flatten().tolist())


def test_surplus_context_is_dropped_at_random():
    context, targets = draw_blocks(400, 8, IJEPA.Config(context_min=1.0), generator())
    possible, chosen = torch.zeros(400, 64, dtype=torch.bool), torch.zeros(400, 64, dtype=torch.bool)
    possible = ~possible.scatter(1, targets.flatten(1), True)
    chosen.scatter_(1, context, True)
    upper, lower = (chosen[:, half].sum() / possible[:, half].sum() for half in (slice(32), slice(32, 64)))
    assert context.shape[1] < possible.sum(dim=1).float().mean() and abs(upper - lower) < 0.05


def test_the_predictor_sees_the_context_only_and_the_target_encoder_the_whole_image():
    task, images = ijepa().eval(), noise(3).float() / 255
    blocks = draw_blocks(3, 4, task.config, generator())
    seen = torch.zeros(3, 16, dtype=torch.bool).scatter(1, blocks.context, True)
    patches = patchify(images, 8)
    unseen_changed = unpatchify(torch.where(seen[..., None], patches, 1 - patches), 8)
    seen_changed = unpatchify(torch.where(seen[..., None], 1 - patches, patches), 8)
    with torch.no_grad():
        predicted = task.predicted(images, blocks)
        assert torch.equal(task.predicted(unseen_changed, blocks), predicted)
        assert not torch.allclose(task.predicted(seen_changed, blocks), predicted)
        answers = task.target_features(images)
        assert (task.target_features(seen_changed) - answers).abs().amax(dim=2).min() > 0


def test_each_target_is_predicted_separately_at_its_positions():
    task, images = ijepa().eval(), noise(3).float() / 255
    blocks = draw_blocks(3, 4, task.config, generator())
    with torch.no_grad():
        predicted = task.predicted(images, blocks)
        turned = task.predicted(images, blocks._replace(targets=blocks.targets.roll(1, 1).flip(2)))
        moved = blocks.targets.clone()
        moved[:, 1:] = (moved[:, 1:] + 1) % 16
        other = task.predicted(images, blocks._replace(targets=moved))
    torch.testing.assert_close(turned, predicted.roll(1, 1).flip(2), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(other[:, 0], predicted[:, 0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(other[:, 1], predicted[:, 1], atol=1e-4)


@pytest.mark.parametrize("kind", ["smooth_l1", "l2"])
def test_a_steps_loss_is_the_distance_to_the_normalised_tokens(kind):
    task, images = ijepa(f"&loss={kind}"), noise(3)
    (loss,) = (loss for _, loss in task.losses(batch(images, 3)))
    draws = generator(3)
    torch.rand(14, 3, generator=draws)  # the augmentation's draws
    blocks = draw_blocks(3, 4, task.config, draws)
    pixels = images.float() / 255
    with torch.no_grad():
        predicted = task.predicted(pixels, blocks).double().numpy()
        tokens = task.target.network(pixels)[-1].flatten(2).transpose(1, 2).double().numpy()  # the deepest map
    terms = []
    for b, t, k in np.ndindex(predicted.shape[:3]):
        token = tokens[b, blocks.targets[b, t, k]]
        apart = predicted[b, t, k] - (token - token.mean()) / np.sqrt(token.var() + 1e-5)
        smooth = np.where(np.abs(apart) < 1, 0.5 * apart**2, np.abs(apart) - 0.5)
        terms.append((smooth if kind == "smooth_l1" else apart**2).mean())
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-4)


def test_the_target_encoder_has_no_gradient_and_a_rising_momentum():
    task = ijepa()
    for _, loss in task.losses(batch(noise(3))):
        loss.backward()
    assert not any(p.requires_grad or p.grad is not None for p in task.target.parameters())
    assert all(p.grad.abs().sum() > 0 for p in task.encoder.parameters())
    mine, theirs = next(task.target.parameters()), next(task.encoder.parameters())
    before = mine.clone()
    assert torch.equal(mine, theirs)
    with torch.no_grad():
        theirs.add_(1.0)
    for progress, momentum in ((0.0, 0.996), (0.5, 0.998), (1.0, 1.0)):
        with torch.no_grad():
            mine.copy_(before)
        task.after_step(progress)
        torch.testing.assert_close(mine, before + (1 - momentum), atol=1e-6, rtol=1e-5)


def test_the_sheet_shows_disjoint_context_and_targets():
    task, images = ijepa(), noise(3)
    sheet = task.pictures(batch(images))
    context, targets = draw_blocks(3, 4, task.config, generator())
    for name, at in (("context", context), ("targets", targets.flatten(1))):
        shown, original = patchify(sheet[name], 8), patchify(images.float() / 255, 8)
        torch.testing.assert_close(gather_tokens(shown, at), gather_tokens(original, at))
        grey = torch.ones(3, 16, dtype=torch.bool).scatter(1, at, False)
        assert (shown[grey] == 0.5).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("alexnet?stem_stride=1", r"no patch tokens; give --encoder timm:vit_tiny_patch16_224"),
        ("timm:resnet18", r"no patch tokens"),
        ("timm:vit_tiny_patch16_224", r"has 4 patches; allowed is 16 or more.*patch_size=8"),
    ],
)
def test_what_cannot_work_is_refused_when_built(spec, message):
    with pytest.raises(UserError, match=message):
        ijepa(spec=spec)


def test_the_named_transformer_is_enough_at_64_px():
    task = ijepa(spec="timm:vit_tiny_patch16_224", size=64)
    (loss,) = (loss for _, loss in task.losses(batch(noise(2, size=64))))
    assert loss.isfinite()


@pytest.mark.slow
def test_it_learns_more_than_the_mean_token_and_does_not_collapse():
    run = trained("ijepa", SMALL_VIT, steps=60, count=32)
    with torch.no_grad():
        answers = run.task.target_features(scenes("test").float() / 255)
    chance = torch.nn.functional.smooth_l1_loss(answers.mean(dim=(0, 1)).expand_as(answers), answers).item()
    assert run.unseen_loss() < 0.8 * chance
    assert run.spread() > 10 * COLLAPSED

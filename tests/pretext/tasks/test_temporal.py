"""Temporal coherence: ranking loss against a loop, choice of frames, frame order, and clips of still images."""

from __future__ import annotations

import importlib
import math
import os
import signal

import dataset_samples
import numpy as np
import pytest
import torch
from task_samples import COARSE, SMALL, batch, built, generator, noise, ramp, trained
from torch import nn

from pretext.datasets import open_dataset
from pretext.datasets.pictures import equally_large
from pretext.system.errors import UserError
from pretext.tasks import Batch
from pretext.tasks.base import Clips
from pretext.tasks.temporal import STILL_FRAMES, pan, ranking_excess
from pretext.training.config import TrainConfig
from pretext.training.loop import train

loop = importlib.import_module("pretext.training.loop")


def clips(frames, number, place, seed=0):
    clips = Clips(equally_large(frames), torch.tensor(number), torch.tensor(place))
    return Batch(equally_large(frames[:, 0]), None, generator(seed), clips)


def loop_over_triplets(z, number, place, far, margin, negatives):
    """Return Wang and Gupta's loss with the hardest negatives in float64, one triplet at a time."""
    z = z.detach().double().numpy()
    z = z / np.sqrt((z**2).sum(-1, keepdims=True))
    losses = []
    for i in range(len(z)):
        near = 1 - z[i, 0] @ z[i, 1]
        distances = [
            1 - z[i, 0] @ z[j, k]
            for j in range(len(z))
            for k in range(2)
            if number[j] != number[i] or abs(place[j][k] - place[i][0]) >= far
        ]
        losses += [max(0.0, near - distance + margin) for distance in sorted(distances)[:negatives]]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("negatives", [1, 3, 50])
def test_the_loss_with_the_hardest_negatives_is_that_of_a_loop(negatives):
    model = built(f"temporal?near=2&far=6&negatives={negatives}&margin=0.7")
    number, place = [0, 1, 0, 2, 0], [[0, 2], [5, 3], [9, 7], [4, 6], [3, 5]]
    given = clips(noise(5, 2), number, place)
    frames, _, _ = model.clips(clips(given.clips.frames.pixels, number, place))  # the same draws again
    z = model.projector(model.encoder.embed(frames.transpose(0, 1).flatten(0, 1))).view(2, 5, -1).transpose(0, 1)
    expected = loop_over_triplets(z, number, place, far=6, margin=0.7, negatives=negatives)
    model.after_step(1.0)
    ((_, loss),) = model.losses(given)
    assert loss.item() == pytest.approx(expected, rel=1e-4) and expected > 0.1


def test_random_negatives_are_those_of_the_highest_ranks():
    anchors, near, others = (
        nn.functional.normalize(torch.randn(n, 6, generator=generator(n + seed)), dim=1)
        for seed, n in enumerate((4, 4, 9))
    )
    ranks = torch.rand(4, 9, generator=generator()).masked_fill(torch.eye(4, 9) > 0, float("-inf"))
    found = ranking_excess(anchors, near, others, ranks, margin=0.5, negatives=3)
    for i in range(4):
        chosen = sorted(range(9), key=lambda j, i=i: -float(ranks[i, j]))[:3]
        assert i not in chosen
        distance = [1 - float(anchors[i].double() @ other.double()) for other in (near[i], *others)]
        expected = [distance[0] - distance[1 + j] + 0.5 for j in chosen]
        assert found[i].tolist() == pytest.approx(expected, abs=1e-6)
    none = ranking_excess(anchors, near, others, torch.full((4, 9), float("-inf")), margin=0.5, negatives=3)
    assert (none == float("-inf")).all()


def test_neither_length_nor_rotation_matters_and_one_point_costs_the_margin():
    model = built("temporal?negatives=3")
    given = lambda: batch(noise(6))  # noqa: E731
    with torch.no_grad():
        (before,) = (loss.item() for _, loss in model.losses(given()))
        last = model.projector[-1]
        turn = torch.linalg.qr(torch.randn(128, 128, generator=generator(3)))[0]
        last.weight.copy_(3 * turn @ last.weight)
        last.bias.copy_(3 * turn @ last.bias)
        (after,) = (loss.item() for _, loss in model.losses(given()))
        assert after == pytest.approx(before, rel=1e-4) and abs(before - 0.5) > 1e-3
        last.weight.zero_()
        last.bias.fill_(1.0)
        (collapsed,) = (loss.item() for _, loss in model.losses(given()))
    assert collapsed == pytest.approx(0.5, abs=1e-6)


def test_two_frames_of_one_clip_do_not_repel_when_they_are_near():
    ((_, near),) = built("temporal").losses(clips(noise(2, 2), [4, 4], [[0, 1], [2, 3]]))
    ((_, far),) = built("temporal").losses(clips(noise(2, 2), [4, 4], [[0, 1], [90, 91]]))
    assert near.item() == 0 < far.item()


def test_the_near_frame_is_at_the_set_distance_or_at_the_clips_limit():
    model = built("temporal?near=5")
    place, length = torch.arange(200) % 20, torch.tensor(20)
    frames = model.choose_frames(place, length.expand(200), generator())
    assert torch.equal(frames[:, 0], place)
    assert ((frames[:, 1] - place).abs() == 5).all() and (frames >= 0).all() and (frames < 20).all()
    both = frames[(place >= 5) & (place < 15)]
    assert 0.3 < (both[:, 1] > both[:, 0]).float().mean() < 0.7
    short = model.choose_frames(torch.tensor([0, 1, 2, 1, 0]), torch.tensor([3, 3, 3, 2, 2]), generator())
    assert (short[:, 1] - short[:, 0]).abs().tolist() == [2, 1, 2, 1, 1]
    assert short[[0, 2, 3, 4], 1].tolist() == [2, 0, 0, 1] and int(short[1, 1]) in (0, 2)


def test_the_middle_frame_is_between_the_others_and_the_outer_one_is_not():
    model = built("temporal:order?window=12")
    length = torch.randint(4, 40, (2000,), generator=generator(1))
    place = (torch.rand(2000, generator=generator(2)) * length).long()
    first, between, last, outside = model.choose_frames(place, length, generator()).T
    assert ((first < between) & (between < last)).all()
    assert ((outside < first) | (outside > last)).all()
    every = torch.stack([first, between, last, outside])
    assert (every >= 0).all() and (every < length).all() and (every.amax(0) - every.amin(0) < 12).all()
    assert ((every.amin(0) - 12 < place) & (place < every.amax(0) + 12)).all()  # the window contains the drawn frame
    assert 0.45 < (outside > last).float().mean() < 0.55
    shortest = model.choose_frames(torch.zeros(9, dtype=torch.int64), torch.full((9,), 4), generator())
    assert (shortest.sort(dim=1)[0] == torch.arange(4)).all()


class Clock(nn.Module):
    """Reads the time from the brightness of constant images."""

    def forward(self, images):
        return [images.mean(dim=(1, 2, 3)).view(-1, 1, 1, 1)]


@pytest.mark.parametrize(("sign", "accuracy"), [(1.0, 1.0), (-1.0, 0.0)])
def test_tuples_count_as_in_order_forwards_and_backwards(sign, accuracy):
    model = built("temporal:order")
    seen = []

    class Rule(nn.Module):
        def forward(self, tuples):
            seen.append(tuples)
            first, middle, last = tuples.T
            inside = (torch.minimum(first, last) < middle) & (middle < torch.maximum(first, last))
            return sign * torch.where(inside, 20.0, -20.0)[:, None]

    model.encoder, model.describe, model.compare = Clock(), nn.Identity(), Rule()
    place = model.choose_frames(torch.arange(64) % 20, torch.full((64,), 20), generator())
    frames = (10 * place).to(torch.uint8).view(64, 4, 1, 1, 1).expand(-1, -1, 3, 32, 32)
    ((_, loss),) = model.losses(clips(frames, list(range(64)), place.tolist()))
    assert model.metrics()["accuracy"] == accuracy
    assert loss.item() == pytest.approx(0.0 if accuracy else 20.0, abs=1e-4)
    (tuples,) = seen
    assert torch.equal(tuples[:64, [0, 2]], tuples[64:, [0, 2]])  # both tuples have the same ends
    assert 0.2 < (tuples[:64, 0] > tuples[:64, 2]).float().mean() < 0.8


def centres(frames):
    """Return the centres of windows on ramps, in pixels."""
    return 255 * frames[:, :, :2].mean(dim=(3, 4)) / 4 + 0.5


def test_windows_pan_across_a_still_image_and_stay_inside():
    draws, progress = torch.rand(3, 500, generator=generator()), torch.linspace(0, 1, 9).expand(500, 9)
    left, top, side = pan(draws, progress)
    assert min(left.min(), top.min()) >= -1e-6 and max((left + side).max(), (top + side).max()) <= 1 + 1e-6
    assert (side >= 0.4 - 1e-6).all() and (side <= 0.7 + 1e-6).all()
    direction = torch.stack([(2 * math.pi * draws[0]).cos(), (2 * math.pi * draws[0]).sin()], dim=1)
    along = (torch.stack([left + side / 2, top + side / 2], dim=1) * direction[:, :, None]).sum(1)
    assert (along.diff(dim=1) > 0.02).all()  # always forwards
    by_hand = pan(torch.tensor([[0.0], [0.0], [0.0]]), torch.tensor([[0.0, 1.0]]))
    assert [part[0].tolist() for part in by_hand] == [
        pytest.approx([0.0, 0.6]), pytest.approx([0.3, 0.3]), pytest.approx([0.4, 0.4])]  # fmt: skip


def test_a_still_picture_shows_the_frames_of_its_own_clip():
    model = built("temporal:order?flip=0&window=61", size=64)
    frames, number, place = model.clips(batch(ramp(32)))
    assert number.tolist() == list(range(32)) and place.max() < STILL_FRAMES
    where = centres(frames)  # B×4×2: b, c, d, o
    way = where[:, 2] - where[:, 0]
    along = ((where - where[:, :1]) * way[:, None]).sum(2) / way.square().sum(1, keepdim=True)
    share = (place - place[:, :1]) / (place[:, 2:3] - place[:, :1])
    assert ((along[:, 1] > 0.05) & (along[:, 1] < 0.95)).all()
    assert (((along[:, 3] < 0) | (along[:, 3] > 1)) & ((along[:, 3] > 1) == (place[:, 3] > place[:, 2]))).all()
    assert (along - share).abs().max() < 0.6  # zooming bends the path a little


def test_all_frames_of_a_clip_are_cropped_and_mirrored_alike():
    still = ramp(16)[:, None].expand(-1, 4, -1, -1, -1)
    model = built("temporal:order?crop=0.5", size=64)
    frames, _, _ = model.clips(clips(still, list(range(16)), [[0, 1, 2, 3]] * 16))
    assert (frames == frames[:, :1]).all() and not torch.equal(frames[0], frames[1])
    slope = frames[:, 0, 0, 0, 4:-4].diff(dim=1).mean(dim=1)
    torch.testing.assert_close(slope.abs(), torch.full((16,), 2 / 255), rtol=1e-3, atol=0)  # half a pixel per step
    assert (slope > 0).any() and (slope < 0).any()


def test_it_works_with_a_resnet_and_refuses_impossible_settings():
    for spec in ("temporal", "temporal:order"):
        model = built(spec, "timm:resnet18")
        ((_, loss),) = model.losses(batch(noise(4)))
        loss.backward()
        assert torch.isfinite(loss) and next(model.encoder.parameters()).grad.abs().sum() > 0
    with pytest.raises(UserError, match=r"far is 20; allowed is above near=30"):
        built("temporal?far=20")


def moving_square(root):
    """Write clips of a bright square that moves over a background with the clip's colour."""
    for clip in range(8):
        rng = np.random.default_rng(clip)
        ground, way = rng.integers(0, 160, 3), rng.integers(0, 20, (2, 2))
        for frame in range(10):
            picture = np.zeros((32, 32, 3), np.uint8) + ground.astype(np.uint8)
            y, x = (way[0] + (way[1] - way[0]) * frame / 9).astype(int)
            picture[y : y + 10, x : x + 10] = 250
            dataset_samples.save(root / "clips" / f"{clip}" / f"{frame}.png", picture)
    return f"clips:{root / 'clips'}"


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["temporal?near=2&far=5", "temporal:order", "egomotion"])
def test_a_resumed_run_on_clips_gives_the_same_bytes(tmp_path, spec, monkeypatch):
    data = moving_square(tmp_path)

    def run(out):
        config = TrainConfig(steps=5, batch_size=8, accumulate=2, log_every=1, workers=0, device="cpu")
        return train(spec, SMALL, open_dataset(data), config, out, image_size=32)

    whole = run(tmp_path / "whole").read_bytes()
    real, calls, seen = loop._step, 0, []

    def interrupted(model, parts, *others):
        nonlocal calls
        calls += 1
        seen.extend(parts)
        if calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(model, parts, *others)

    monkeypatch.setattr(loop, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part")
    monkeypatch.undo()
    if spec == "egomotion":
        assert all(part.clips is None for part in seen)
    else:
        assert all(part.clips.frames.pixels.shape[:1] == part.images.shape[:1] == (4,) for part in seen)
    assert run(tmp_path / "part").read_bytes() == whole
    assert list((tmp_path / "part" / "samples").glob("*.png"))


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "chance", "margin"), [("temporal", 0.5, 0.25), ("temporal:order", math.log(2), 0.1)])
def test_it_learns_on_scenes(spec, chance, margin):
    run = trained(spec, COARSE, steps=150)
    assert np.mean(run.losses[-10:]) < chance - margin

"""Clips: the order of their frames, splits and limits of whole clips, and the frames in a training step."""

from __future__ import annotations

import dataset_samples
import numpy as np
import pytest
import torch

from pretext.datasets import at_size, open_dataset
from pretext.system.errors import UserError
from pretext.training.loading import load_batches


def flat(value):
    return np.full((8, 8, 3), value, np.uint8)


def numbered(root, lengths=(6, 9, 4, 7, 12, 5)):
    """Write clips whose pixels hold the number of the clip in red and of the frame in green."""
    for clip, length in enumerate(lengths):
        for frame in range(length):
            dataset_samples.save(root / f"clip{clip}" / f"{frame}.png", flat((clip, frame, 0)))
    return f"clips:{root}"


def read(images):
    """Return the clip and frame numbers stored in the pixels of `numbered` pictures."""
    return images[..., 0, 0, 0].long(), images[..., 1, 0, 0].long()


def test_frames_follow_one_another_by_the_numbers_in_their_names(tmp_path):
    data = open_dataset(numbered(tmp_path, lengths=(12, 11, 13)))
    for part in data.splits.values():
        clips, frames = read(torch.stack([image for image, _ in part]))
        for clip in clips.unique():
            assert frames[clips == clip].tolist() == list(range((12, 11, 13)[int(clip)]))  # 2 before 10
        assert torch.equal(part.clip_of, clips)
        assert [int(target["clip"]) for _, target in part] == clips.tolist()
        assert part.annotations == {"clip"}


def test_no_clip_is_in_two_splits(tmp_path):
    data = open_dataset(numbered(tmp_path, lengths=[3] * 20))
    found = {name: set(part.clip_of.tolist()) for name, part in data.splits.items()}
    assert {name: len(clips) for name, clips in found.items()} == {"train": 14, "val": 2, "test": 4}
    assert sorted(clip for clips in found.values() for clip in clips) == list(range(20))
    assert any("6 of 48 pictures, whole clips" in note for note in data.notes)


def test_folders_for_splits_are_the_splits(tmp_path):
    data = open_dataset(dataset_samples.make("clips", tmp_path))
    assert [len(part) for part in data.splits.values()] == [7, 7, 7]
    assert data.clip_of.tolist() == [0, 0, 0, 1, 1, 1, 1]
    swapped = open_dataset(f"clips:{tmp_path}?train=test&test=train")
    assert swapped.split("test").fingerprint == data.split("train").fingerprint


def test_short_and_empty_clips_are_left_out_by_name(tmp_path):
    spec = numbered(tmp_path, lengths=(5, 1, 6, 3, 4, 5))
    (tmp_path / "nothing").mkdir()
    (tmp_path / ".hidden").mkdir()
    data = open_dataset(spec)
    assert "Left out of 7 clips, for fewer than 2 frames: clip1, nothing." in data.notes
    assert sum(map(len, data.splits.values())) == 23
    longer = open_dataset(f"{spec}?shortest=5")
    assert "Left out of 7 clips, for fewer than 5 frames: clip1, clip3, clip4, nothing." in longer.notes


@pytest.mark.parametrize(
    ("lengths", "options", "message"),
    [
        ((1, 1), "", r"no clips of 2 or more frames in .*, only shorter ones: clip0, clip1"),
        ((3, 3), "?shortest=1", "shortest=1; expected 2 frames or more"),
        ((3,), "", r"1 clip\(s\) are too few to draw val and test from"),
    ],
)
def test_what_is_no_folder_of_clips_is_one_line(tmp_path, lengths, options, message):
    with pytest.raises(UserError, match=message) as caught:
        open_dataset(numbered(tmp_path, lengths) + options)
    assert "\n" not in str(caught.value)


def test_a_folder_of_frames_is_not_one_of_clips(tmp_path):
    numbered(tmp_path)
    with pytest.raises(
        UserError, match=r"clip0 contains pictures itself; give the folder that contains the folders of the clips"
    ):
        open_dataset(f"clips:{tmp_path / 'clip0'}")


@pytest.mark.parametrize("limit", [2, 9, 20])
def test_a_limit_keeps_frames_together(tmp_path, limit):
    lengths = (6, 9, 4, 7, 12, 5)
    data = open_dataset(f"{numbered(tmp_path, lengths)}?limit={limit}")
    clips, frames = read(torch.stack([image for image, _ in data]))
    assert 0 < len(data) <= limit
    for clip in clips.unique():
        here = frames[clips == clip].tolist()
        assert here == list(range(len(here)))
        assert len(here) == (lengths[int(clip)] if len(clips.unique()) > 1 else min(lengths[int(clip)], limit))


def test_a_frame_that_cannot_be_decoded_leaves_the_others_where_they_were(tmp_path, capsys):
    spec = dataset_samples.make("clips", tmp_path)
    (tmp_path / "train" / "clip0" / "1.png").write_bytes(b"no picture")
    packed = at_size(open_dataset(spec), 8, bad_images="skip")
    assert packed.clip_of.tolist() == [0, 0, 1, 1, 1, 1]
    assert "left out 1 of 7" in capsys.readouterr().err


def neighbours(place, length, generator):
    """Choose each frame and the next one, cyclically."""
    return torch.stack([place, (place + 1) % length], dim=1)


def batches(data, **others):
    options = {"side": 8, "seed": 1, "first": 0, "rank": 0, "world": 1, "labels": False, "workers": 0, "frames": 2}
    return load_batches(data, 6, **(options | {"choose": neighbours} | others))


@pytest.mark.parametrize("packed", [True, False])
def test_a_step_sees_the_frames_that_were_chosen(tmp_path, monkeypatch, packed):
    if not packed:
        monkeypatch.setenv("PRETEXT_PACK_GB", "0")
    lengths = torch.tensor((6, 9, 4, 7, 12, 5))
    data = at_size(open_dataset(numbered(tmp_path)), 8, bad_images="stop")
    loader = batches(data)
    seen = []
    for _ in range(8):
        batch = next(loader)
        images, clips, frames = batch.images, batch.clips, batch.clips.frames.pixels
        clip, frame = read(frames)
        assert batch.labels is None and images.shape == (6, 3, 8, 8) and frames.shape == (6, 2, 3, 8, 8)
        assert torch.equal(images, frames[:, 0]) and torch.equal(frame, clips.place)
        assert torch.equal(clip[:, 0], clip[:, 1])
        assert torch.equal(frame[:, 1], (frame[:, 0] + 1) % lengths[clip[:, 0]])
        same = clip[:, 0, None] == clip[:, 0]
        assert torch.equal(clips.number[:, None] == clips.number, same)
        seen += zip(clip[:, 0].tolist(), frame[:, 0].tolist(), strict=True)
    assert len(set(seen[: len(data)])) == len(data)  # every frame once a pass


def tensors(clips):
    return clips.frames.pixels, clips.frames.height, clips.frames.width, clips.number, clips.place


def drawn(place, length, generator):
    other = (torch.rand(len(place), generator=generator) * length).long()
    return torch.stack([place, other], dim=1)


def test_a_later_start_sees_the_same_frames_and_two_ranks_share_them(tmp_path):
    data = at_size(open_dataset(numbered(tmp_path)), 8, bad_images="stop")
    loader = batches(data, choose=drawn)
    whole = [next(loader).clips for _ in range(5)]
    late = batches(data, choose=drawn, first=3)
    for early in whole[3:]:
        assert all(torch.equal(a, b) for a, b in zip(tensors(early), tensors(next(late).clips), strict=True))
    for rank in (0, 1):
        part = next(batches(data, choose=drawn, rank=rank, world=2)).clips
        assert all(
            torch.equal(a[3 * rank : 3 * rank + 3], b) for a, b in zip(tensors(whole[0]), tensors(part), strict=True)
        )
    assert not torch.equal(next(batches(data, choose=drawn, seed=2)).clips.place, whole[0].place)


def test_a_clip_is_left_out_of_its_batch_where_one_frame_cannot_be_decoded(tmp_path, monkeypatch):
    monkeypatch.setenv("PRETEXT_PACK_GB", "0")
    spec = dataset_samples.make("clips", tmp_path)
    (tmp_path / "train" / "clip0" / "1.png").write_bytes(b"no picture")
    loader = batches(at_size(open_dataset(spec), 8, bad_images="skip"))
    loaded = [next(loader) for _ in range(7)]  # 42 rows: each frame comes first six times
    assert sum(len(each) for each in loaded) == 42 - 2 * 6  # as the first frame, and as the next one
    assert all(len(part) == len(each) for each in loaded for part in tensors(each.clips))
    assert not any((x.clips.number == 0)[:, None].logical_and(x.clips.place == 1).any() for x in loaded)


def test_clips_that_are_too_short_for_the_task_are_refused(tmp_path):
    data = at_size(open_dataset(dataset_samples.make("clips", tmp_path)), 8, bad_images="stop")
    with pytest.raises(UserError, match=r"shortest clip has 3 frames, and the task needs 4; .*shortest=4"):
        next(batches(data, frames=4))


def test_who_sees_one_frame_sees_no_clips(tmp_path):
    data = at_size(open_dataset(numbered(tmp_path)), 8, bad_images="stop")
    assert next(batches(data, frames=1, choose=None)).clips is None


def test_who_sees_several_frames_sees_no_clips_where_there_are_none():
    data = at_size(open_dataset("scenes?size=32&train=8&val=8&test=8").split("train"), 8, bad_images="stop")
    assert next(batches(data)).clips is None

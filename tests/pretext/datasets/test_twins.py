"""Equal pictures are found by content, come into one split, and are said."""

from __future__ import annotations

import itertools
import json
import os

import dataset_samples
import numpy as np
import pytest
import torch

from pretext.datasets import Fault, open_dataset, twins
from pretext.datasets.files import FileDataset
from pretext.datasets.torchvision_sets import ArrayDataset
from pretext.datasets.twins import equal_pictures


def files_of(part):
    """Return the index in the source of each picture of a drawn split."""
    numbers = np.arange(len(part))
    while not isinstance(part, FileDataset):
        numbers, part = part.indices[numbers], part.base
    return [part.images[number] for number in numbers]


def copies(root, kind):
    """Write twenty pictures of two classes, and each once more: as a copy, a link, or another name's hard link."""
    for number in range(20):
        path = root / "ab"[number % 2] / f"{number:02}.png"
        dataset_samples.save(path, dataset_samples.pixels(1, number))
        again = path.with_name(f"again{number:02}.png")
        if kind == "copy":
            again.write_bytes(path.read_bytes())
        elif kind == "link":
            again.symlink_to(path.name)
        else:
            os.link(path, again)
    return f"folder:{root}"


@pytest.mark.parametrize("kind", ["copy", "link", "hard link"])
def test_splits_are_drawn_by_content(tmp_path, kind):
    data = open_dataset(copies(tmp_path, kind))
    shown = {name: {np.asarray(image).tobytes() for image, _ in part} for name, part in data.splits.items()}
    assert all(not one & other for one, other in itertools.combinations(shown.values(), 2))
    assert {name: len(part) for name, part in data.splits.items()} == {"train": 28, "val": 4, "test": 8}
    assert [len(content) for content in shown.values()] == [len(part) // 2 for part in data.splits.values()]
    faults = [note for note in data.notes if isinstance(note, Fault)]
    assert faults == ["20 of 40 pictures in train repeat another one, by content: a/00.png = a/again00.png."]


def test_one_file_under_two_entries_is_in_one_split(tmp_path):
    spec = dataset_samples.make("coco", tmp_path)
    file = tmp_path / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["images"] += [{**image, "id": 100 + image["id"]} for image in content["images"]]
    content["annotations"] += [
        {**entry, "id": 100 + entry["id"], "image_id": 100 + entry["image_id"]} for entry in content["annotations"]
    ]
    file.write_text(json.dumps(content))
    for other in ("val", "test"):
        for found in (tmp_path / "annotations").glob(f"instances_{other}*.json"):
            found.unlink()
    data = open_dataset(spec)
    parts = [set(files_of(part)) for part in data.splits.values()]
    assert all(not one & other for one, other in itertools.combinations(parts, 2))
    assert any("is listed twice" in note for note in data.notes if isinstance(note, Fault))


def test_pictures_that_all_differ_are_drawn_as_before(tmp_path):
    for number in range(30):
        dataset_samples.save(tmp_path / "ab"[number % 2] / f"{number:02}.png", dataset_samples.pixels(1, number))
    data = open_dataset(f"folder:{tmp_path}")
    order = np.random.default_rng(20160427).permutation(30)
    order = order[np.argsort((order >= 15).astype(int), kind="stable")]
    drawn = order[((np.arange(6) + 0.5) * 30 / 6).astype(int)]
    assert sorted(data.split("test").indices) == sorted(drawn)


def test_given_splits_that_overlap_are_said(tmp_path):
    for split in ("train", "test"):
        for number in range(6):
            shade = 1 if number < 2 else len(split)
            dataset_samples.save(
                tmp_path / split / "ab"[number % 2] / f"{number}.png", dataset_samples.pixels(shade, number)
            )
    notes = open_dataset(f"folder:{tmp_path}").notes
    said = "2 of 6 pictures in test are in train too, by content: test/a/0.png = train/a/0.png."
    assert [note for note in notes if isinstance(note, Fault)] == [said]


def test_a_repeated_picture_with_two_classes_is_said(tmp_path):
    for number in range(8):
        dataset_samples.save(tmp_path / "ab"[number % 2] / f"{number}.png", dataset_samples.pixels(1, number))
    (tmp_path / "b" / "copy.png").write_bytes((tmp_path / "a" / "0.png").read_bytes())
    notes = open_dataset(f"folder:{tmp_path}").notes
    assert any(note.endswith("1 of the repeated pictures have several classes.") for note in notes)


def test_clips_of_the_same_frames_come_into_one_split(tmp_path):
    for clip in range(12):
        for frame in range(3):
            picture = dataset_samples.pixels(1, 10 * (clip // 2) + frame)
            dataset_samples.save(tmp_path / f"clip{clip:02}" / f"{frame}.png", picture)
    data = open_dataset(f"clips:{tmp_path}")
    pairs = [{clip // 2 for clip in part.clip_of.tolist()} for part in data.splits.values()]
    assert all(not one & other for one, other in itertools.combinations(pairs, 2))
    assert sum(map(len, data.splits.values())) == 36


def test_files_that_differ_only_before_their_end_are_different(tmp_path):
    paths = []
    for number, head in enumerate((b"one", b"two", b"one")):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(head + bytes(2 * twins.END))
    empty = [tmp_path / "empty", tmp_path / "empty too", tmp_path / "absent"]
    for path in empty[:2]:
        path.touch()
    data = FileDataset(root=tmp_path, images=[str(path) for path in (*paths, *empty)])
    assert equal_pictures({"train": data})["train"].tolist() == [0, 1, 0, 3, 4, 5]


def test_equal_rows_of_an_array_are_equal_pictures():
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    images[4] = images[1]
    train, test = (ArrayDataset(part, torch.zeros(3, dtype=torch.int64), ("a",)) for part in (images[:3], images[3:]))
    equal = equal_pictures({"train": train, "test": test})
    assert (equal["train"].tolist(), equal["test"].tolist()) == ([0, 1, 2], [3, 1, 5])


def test_what_was_found_is_remembered_until_a_file_changes(tmp_path, own_cache, monkeypatch):
    spec = copies(tmp_path, "copy")
    for path in tmp_path.rglob("*.png"):
        os.utime(path, ns=(1, 1))
    monkeypatch.setattr("pretext.datasets.fingerprints.SETTLED_NS", -1)
    first = open_dataset(spec).notes
    with monkeypatch.context() as without_reading:
        without_reading.setattr(twins, "content_hashes", lambda *_: pytest.fail("files are read again"))
        assert open_dataset(spec).notes == first
    dataset_samples.save(tmp_path / "a" / "00.png", dataset_samples.pixels(2, 0))
    assert "19 of 40" in open_dataset(spec).notes[0]
    for stored in (own_cache / "twins").iterdir():
        stored.write_text("[[0, 99999]]")
    assert "19 of 40" in open_dataset(spec).notes[0]


def test_a_path_that_no_file_can_have_is_equal_to_none(tmp_path):
    data = FileDataset(root=tmp_path, images=[f"{tmp_path}/a\0.png", f"{tmp_path}/b\0.png"])
    assert equal_pictures({"train": data})["train"].tolist() == [0, 1]

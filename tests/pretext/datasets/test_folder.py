"""`folder:DIR`: which folders are splits, classes or outputs, what is left out, and what is said about it."""

from __future__ import annotations

import json

import pytest
from dataset_samples import fails, pixels, save

from pretext.datasets import at_size, open_dataset
from pretext.system.errors import UserError


def fill(folder, count=6, start=0, suffix="png"):
    for number in range(start, start + count):
        save(folder / f"{number}.{suffix}", pixels(7, number))


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_the_usual_names_of_val_are_val(tmp_path, name):
    fill(tmp_path / "train" / "a", 4)
    fill(tmp_path / "train" / "b", 4, 10)
    fill(tmp_path / name / "a", 2, 20)
    fill(tmp_path / "test" / "b", 2, 30)
    data = open_dataset(f"folder:{tmp_path}")
    assert data.classes == ("a", "b") and [len(part) for part in data.splits.values()] == [8, 2, 2]


@pytest.mark.parametrize("names", [("Training", "Testing"), ("training", "test"), ("TRAIN", "Test")])
def test_splits_may_have_capitals_and_their_other_names(tmp_path, names):
    for name, start in zip(names, (0, 20), strict=True):
        fill(tmp_path / name / "a", 4, start)
        fill(tmp_path / name / "b", 4, start + 10)
    data = open_dataset(f"folder:{tmp_path}")
    assert data.classes == ("a", "b") and {name: len(part) for name, part in data.splits.items()} == {
        "train": 7,
        "val": 1,
        "test": 8,
    }
    assert all(names[1] in data.split("test").images[index] for index in range(8))


def test_unlabelled_train_and_valid_are_splits_and_no_classes(tmp_path):
    fill(tmp_path / "train", 10)
    fill(tmp_path / "valid", 4, 20)
    data = open_dataset(f"folder:{tmp_path}")
    assert data.annotations == frozenset() and len(data.split("test")) == 4
    assert any("its val split serves as test" in note for note in data.notes)


def test_a_class_that_is_called_like_a_split_is_said(tmp_path):
    fill(tmp_path / "train", 6)
    fill(tmp_path / "dev", 6, 20)
    assert any("dev, train is read as a class" in note for note in open_dataset(f"folder:{tmp_path}").notes)


def test_a_picture_beside_the_class_folders_is_named(tmp_path):
    fill(tmp_path / "cat")
    fill(tmp_path / "dog", start=10)
    save(tmp_path / "contact-sheet.png", pixels(7, 99))
    data = open_dataset(f"folder:{tmp_path}")
    assert any("pictures lie beside the folders cat, dog (contact-sheet.png)" in note for note in data.notes)
    for part in (*data.splits.values(), at_size(data, 8, bad_images="stop")):
        with pytest.raises(UserError, match=r"needs label.*pictures lie beside.*exclude=contact-sheet\.png"):
            part.require("label")
    data = open_dataset(f"folder:{tmp_path}?exclude=contact-*")
    assert data.classes == ("cat", "dog") and sum(map(len, data.splits.values())) == 12
    assert any("exclude=contact-* leaves out 1 pictures: contact-sheet.png" in note for note in data.notes)


def test_class_folders_further_up_or_down_are_named_and_read_by_a_key(tmp_path):
    for year in ("2001", "2002"):
        fill(tmp_path / "cat" / year, 4, int(year))
        fill(tmp_path / "dog" / year, 4, 10 * int(year))
    data = open_dataset(f"folder:{tmp_path}")
    with pytest.raises(UserError, match=r"cat/2001/2001\.png lies deeper than the folders cat, dog; label=top"):
        data.require("label")
    assert open_dataset(f"folder:{tmp_path}?label=top").classes == ("cat", "dog")
    data = open_dataset(f"folder:{tmp_path}?label=parent")
    assert data.classes == ("2001", "2002")
    assert all(
        image.split("/")[-2] == data.classes[label]
        for image, label in zip(data.base.base.images, data.base.base.label, strict=True)
    )


def test_the_layout_of_tiny_imagenet_is_read_by_keys(tmp_path):
    for name in ("n01", "n02"):
        fill(tmp_path / "train" / name / "images", suffix="JPEG")
    fill(tmp_path / "val" / "images", 4, 50, suffix="JPEG")
    fails(
        f"folder:{tmp_path}?label=top", "val has a class 'images' that train lacks.*exclude=val leaves this split out"
    )
    data = open_dataset(f"folder:{tmp_path}?label=top&exclude=val")
    assert data.classes == ("n01", "n02") and sum(map(len, data.splits.values())) == 12


@pytest.mark.parametrize("pattern", ["b", "b/*", "*/1?.png", "b, a/0.png"])
def test_files_and_folders_are_excluded_by_name_path_or_pattern(tmp_path, pattern):
    for place, name in enumerate("abc"):
        fill(tmp_path / name, 6, 10 * place)
    data = open_dataset(f"folder:{tmp_path}?exclude={pattern}")
    assert data.classes == ("a", "c")
    fails(f"folder:{tmp_path}?exclude=nowhere", "exclude=nowhere: no picture is there")
    fails(f"folder:{tmp_path}?exclude=*.png", "no pictures in .* besides what was left out")


@pytest.mark.parametrize("marker", ["run.json", "log.jsonl", "encoder.safetensors", "plan.json", "judged.json"])
def test_outputs_below_the_data_are_no_data(tmp_path, marker):
    fill(tmp_path, 10)
    before = {name: part.fingerprint for name, part in open_dataset(f"folder:{tmp_path}").splits.items()}
    out = tmp_path / "runs" / "rotation-1"
    fill(out / "samples", 3)
    (out / marker).write_text(json.dumps({}))
    data = open_dataset(f"folder:{tmp_path}")
    assert {name: part.fingerprint for name, part in data.splits.items()} == before
    assert any("left out: runs/rotation-1." in note for note in data.notes)
    assert len(open_dataset(f"folder:{out / 'samples'}").splits) == 3
    fails(f"folder:{tmp_path / 'runs'}", "no pictures in .*left out: rotation-1")


def test_the_samples_of_a_run_in_the_data_folder_itself_are_no_data(tmp_path):
    fill(tmp_path / "samples", 3)
    assert open_dataset(f"folder:{tmp_path}").notes
    (tmp_path / "run.json").write_text("{}")
    fails(f"folder:{tmp_path}", "no pictures in .*left out: samples")


def test_outputs_below_clips_are_no_clips(tmp_path):
    for clip in range(4):
        fill(tmp_path / f"clip{clip}", 3, 10 * clip)
    whole = open_dataset(f"clips:{tmp_path}")
    fill(tmp_path / "runs" / "x" / "samples", 3)
    (tmp_path / "runs" / "x" / "run.json").write_text("{}")
    data = open_dataset(f"clips:{tmp_path}")
    assert data.fingerprint == whole.fingerprint
    assert any("left out: runs/x." in note for note in data.notes) and not any("fewer" in note for note in data.notes)

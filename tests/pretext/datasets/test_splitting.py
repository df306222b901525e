"""`folder:DIR`, the splits that are drawn from train, and subsets."""

from __future__ import annotations

import dataset_samples
import pytest
import torch

from pretext.datasets import open_dataset
from pretext.datasets.classification import class_targets
from pretext.datasets.objects import Objects
from pretext.system.errors import UserError


def test_a_folder_without_splits_is_split_by_class(tmp_path):
    for number in range(40):
        dataset_samples.save(tmp_path / "ab"[number % 2] / f"{number}.png", dataset_samples.pixels(1, number))
    data = open_dataset(f"folder:{tmp_path}")
    assert {name: len(part) for name, part in data.splits.items()} == {"train": 29, "val": 3, "test": 8}
    assert class_targets(data.split("test")).bincount().tolist() == [4, 4]
    assert sum("drawn from train by a fixed seed" in note for note in data.notes) == 2
    shown = [image.numpy().tobytes() for part in data.splits.values() for image, _ in part]
    assert len(set(shown)) == len(shown) == 40


def test_a_val_without_test_is_the_test(tmp_path):
    spec = dataset_samples.make("folder", tmp_path)
    held_out = open_dataset(spec).split("val").fingerprint
    for file in (tmp_path / "test").rglob("*.png"):
        file.unlink()
    (tmp_path / "test" / "a").rmdir()
    (tmp_path / "test" / "b").rmdir()
    (tmp_path / "test").rmdir()
    data = open_dataset(spec)
    assert data.split("test").fingerprint == held_out
    assert any("no test split" in note for note in data.notes)


def test_no_picture_may_be_in_two_splits(tmp_path):
    dataset_samples.make("folder", tmp_path)
    with pytest.raises(UserError, match="6 pictures are in train and in val"):
        open_dataset(f"folder:{tmp_path}?train=train&val=train")


def test_an_unlabelled_folder_needs_no_class_folders(tmp_path):
    for number in range(10):
        dataset_samples.save(tmp_path / "deep" / "down" / f"{number}.PNG", dataset_samples.pixels(1, number))
    data = open_dataset(f"folder:{tmp_path}")
    assert data.annotations == frozenset() and data.classes == () and data[0][1] == {}
    with pytest.raises(UserError, match="needs label, and the data set annotates nothing"):
        data.require("label")


def test_a_class_that_only_test_has_is_an_error(tmp_path):
    spec = dataset_samples.make("folder", tmp_path)
    dataset_samples.save(tmp_path / "test" / "c" / "1.png", dataset_samples.pixels(1, 1))
    with pytest.raises(UserError, match="test has a class 'c' that train lacks"):
        open_dataset(spec)


def test_objects_of_a_subset_are_those_of_its_pictures(tmp_path):
    data = open_dataset(dataset_samples.make("scenes", tmp_path))
    targets = [data[index][1] for index in range(len(data))]
    objects = Objects.gather(
        (target["labels"].tolist(), target["boxes"].tolist(), target["difficult"].tolist()) for target in targets
    )
    order = torch.tensor([5, 0, 5, 3])
    taken = objects.take(order)
    for row, index in enumerate(order.tolist()):
        for name, value in taken.target(row, 24, 24).items():
            assert torch.equal(value, objects.target(index, 24, 24)[name])

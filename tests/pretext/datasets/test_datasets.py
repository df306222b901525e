"""The contract that every kind of data set keeps, and the error messages of `open_dataset`."""

from __future__ import annotations

import pickle

import dataset_samples
import pytest
import torch
from dataset_samples import one_line
from torchvision import tv_tensors

from pretext.datasets import ANNOTATIONS, IGNORE, at_size, dataset_kinds, open_dataset
from pretext.datasets.base import ImageDataset
from pretext.datasets.classification import class_targets, is_multi_label
from pretext.datasets.splitting import split_or_all
from pretext.datasets.torchvision_sets import BY_HAND, SETS
from pretext.system.errors import UserError

KINDS = dataset_kinds()


@pytest.fixture(params=KINDS)
def sample(request, tmp_path, unchecked):
    return dataset_samples.make(request.param, tmp_path / "data")


def check_target(data, image, target):
    assert image.dtype == torch.uint8
    assert image.ndim == 3 and image.shape[0] == 3
    assert set(target) - {"difficult"} == data.annotations
    height, width = image.shape[1:]
    if "label" in target:
        assert target["label"].dtype == torch.int64 and target["label"].ndim == 0
        assert 0 <= target["label"] < len(data.classes)
    if "labels" in target:
        assert target["labels"].dtype == torch.int64 and target["labels"].ndim == 1
        assert all(0 <= label < len(data.classes) for label in target["labels"])
    if "boxes" in target:
        boxes = target["boxes"]
        assert isinstance(boxes, tv_tensors.BoundingBoxes) and boxes.dtype == torch.float32
        assert boxes.format == tv_tensors.BoundingBoxFormat.XYXY and boxes.canvas_size == (height, width)
        assert boxes.shape == (len(target["labels"]), 4)
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes[:, 2:] <= torch.tensor([width, height])).all()
    if "clip" in target:
        assert target["clip"].dtype == torch.int64 and target["clip"].ndim == 0
    if "difficult" in target:
        assert target["difficult"].dtype == torch.bool and len(target["difficult"]) == len(target["labels"])
    if "masks" in target:
        assert isinstance(target["masks"], tv_tensors.Mask) and target["masks"].dtype == torch.uint8
        assert target["masks"].shape == (height, width)
        assert set(target["masks"].unique().tolist()) <= {*range(len(data.classes) + 1), IGNORE}


def test_every_kind_has_a_sample_here():
    assert sorted([*dataset_samples.OWN, *dataset_samples.TORCHVISION]) == KINDS


def test_items_are_what_the_contract_says(sample):
    train = open_dataset(sample)
    assert {"train", "val", "test"} <= set(train.splits) and train.splits["train"] is train
    assert train.annotations <= ANNOTATIONS
    for data in train.splits.values():
        assert isinstance(data, ImageDataset) and len(data) > 0
        assert data.spec == sample and data.classes == train.classes and data.annotations == train.annotations
        for index in range(len(data)):
            check_target(data, *data[index])


def test_items_of_one_size_are_what_the_contract_says(sample):
    train = at_size(open_dataset(sample), 16, bad_images="stop")
    for name, data in train.splits.items():
        assert len(data) == len(open_dataset(sample).split(name))
        image, target = data[0]
        assert image.shape == (3, 16, 16)
        check_target(data, image, target)


def test_an_item_is_nobody_elses_memory(sample):
    data = open_dataset(sample)
    image, target = data[0]
    kept = image.clone(), {name: value.clone() for name, value in target.items()}
    image.zero_()
    for value in target.values():
        value.zero_()
    again, target_again = data[0]
    assert torch.equal(again, kept[0])
    assert all(torch.equal(target_again[name], value) for name, value in kept[1].items())


def test_the_fingerprint_is_of_the_content_and_of_nothing_else(sample, tmp_path, unchecked):
    kind = sample.partition(":")[0].partition("?")[0]
    same = open_dataset(dataset_samples.make(kind, tmp_path / "elsewhere" / "the same"))
    other = open_dataset(dataset_samples.make(kind, tmp_path / "other", shade=2))
    data = open_dataset(sample)
    assert len(data.fingerprint) == 32
    for name, part in data.splits.items():
        assert part.fingerprint == same.split(name).fingerprint != other.split(name).fingerprint
    assert len({part.fingerprint for part in data.splits.values()}) == len(data.splits)


def test_all_splits_in_one(sample):
    data = open_dataset(sample)
    whole = split_or_all(data, "all")
    pictures = [image.numpy().tobytes() for part in data.splits.values() for image, _ in part]
    assert [image.numpy().tobytes() for image, _ in whole] == pictures and len(whole) == len(pictures)
    assert whole.fingerprint not in {part.fingerprint for part in data.splits.values()}
    assert split_or_all(data, "val") is data.split("val")


def test_a_limit_draws_the_same_pictures_every_time(sample):
    joint = "&" if "?" in sample else "?"
    few, again, fewer = (open_dataset(f"{sample}{joint}limit={limit}") for limit in (3, 3, 2))
    assert max(map(len, few.splits.values())) <= 3 and any("limit=3" in note for note in few.notes)
    assert few.fingerprint == again.fingerprint
    pictures = [image.numpy().tobytes() for image, _ in few]
    assert all(image.numpy().tobytes() in pictures for image, _ in fewer)
    for text in ("0", "-1", "many"):
        with pytest.raises(UserError, match="limit"):
            open_dataset(f"{sample}{joint}limit={text}")


def test_a_data_set_can_be_sent_to_a_worker(sample):
    data = open_dataset(sample)
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again[0][0], data[0][0]) and again.fingerprint == data.fingerprint


def test_classes_without_decoding_are_the_classes_of_the_items(sample):
    data = open_dataset(sample)
    for part in data.splits.values():
        if not {"label", "labels"} & part.annotations:
            with pytest.raises(UserError, match="needs label"):
                class_targets(part)
            continue
        truth = class_targets(part)
        if not is_multi_label(part):
            assert truth.tolist() == [int(target["label"]) for _, target in part]
            continue
        assert truth.shape == (len(part), len(part.classes))
        for row, (_, target) in zip(truth, part, strict=True):
            sure = set(target["labels"][~target.get("difficult", torch.zeros_like(target["labels"])).bool()].tolist())
            assert set((row == 1).nonzero().flatten().tolist()) == sure
            assert set((row != 0).nonzero().flatten().tolist()) == set(target["labels"].tolist())


def test_unknown_options_are_named_with_those_that_are_known(sample):
    with pytest.raises(UserError, match="unknown option 'limits'; did you mean 'limit'") as excinfo:
        open_dataset(f"{sample}{'&' if '?' in sample else '?'}limits=3")
    one_line(excinfo)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "scenes"])
def test_a_path_that_is_missing_or_wrong_is_one_line(kind, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for path, named in (("", kind), (tmp_path / "nowhere", "nowhere"), (empty, "empty")):
        with pytest.raises(UserError) as excinfo:
            open_dataset(f"{kind}:{path}")
        assert named in one_line(excinfo)
        if kind in SETS and kind not in BY_HAND and path:
            assert "--download" in one_line(excinfo)
    assert not (tmp_path / "nowhere").exists()


def test_scenes_have_no_path():
    with pytest.raises(UserError, match="without a path"):
        open_dataset("scenes:somewhere")


def test_unknown_kinds_are_named_with_those_that_are_known():
    with pytest.raises(UserError, match="unknown kind of data set 'scense'; did you mean 'scenes'") as excinfo:
        open_dataset("scense")
    assert "cifar10" in one_line(excinfo) and "voc" in one_line(excinfo)


@pytest.mark.parametrize("kind", ["folder", "voc", "coco", "masks"])
def test_a_path_without_a_kind_suggests_the_one_that_fits(kind, tmp_path, monkeypatch):
    dataset_samples.make(kind, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "data", "data", "./data"):
        with pytest.raises(UserError, match=f"write {kind}:{path}$") as excinfo:
            open_dataset(f"{path}?limit=3")
        one_line(excinfo)
    with pytest.raises(UserError, match="write folder:/no/where"):
        open_dataset("/no/where")


@pytest.mark.parametrize(("kind", "place"), [("wds", "shards"), ("parquet", "files"), ("hf", "saved"), ("list", "")])
def test_a_path_to_larger_files_suggests_the_kind_that_reads_them(kind, place, tmp_path):
    dataset_samples.make(kind, tmp_path / "data")
    path = tmp_path / "data" / (place or "train.txt")
    with pytest.raises(UserError, match=f"write {kind}:{path}$"):
        open_dataset(str(path))
    if place:
        with pytest.raises(UserError, match=f"no pictures in {path}.*; {kind}:{path} reads what lies there"):
            open_dataset(f"folder:{path}")
    with pytest.raises(UserError, match=f"write wds:{tmp_path}/{{0..3}}.tar"):
        open_dataset(f"{tmp_path}/{{0..3}}.tar")

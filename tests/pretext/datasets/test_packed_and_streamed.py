"""A data set is the same whether it is packed or decoded on the fly, for every kind and with broken pictures too."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import dataset_samples
import pytest
import torch

from pretext.datasets import BadImage, at_size, for_views, open_dataset
from pretext.datasets.files import FileDataset
from pretext.datasets.kept import KeptDataset, is_packed
from pretext.datasets.packed import ResizedDataset
from pretext.datasets.view import source_of

KINDS = [*dataset_samples.OWN, *dataset_samples.TORCHVISION]
BROKEN = ["folder", "clips", "voc", "coco", "masks", "oxford_iiit_pet", "food101"]


def both(spec, monkeypatch, fits=("squash",)):
    """Yield each split of a data set, packed and streamed, in every way that its pictures are given a size."""
    data = open_dataset(spec)
    for name, fit in itertools.product(data.splits, fits):
        part = open_dataset(spec).split(name)
        with monkeypatch.context() as small:
            for gigabytes in ("1", "0"):
                small.setenv("PRETEXT_PACK_GB", gigabytes)
                sized = for_views(part, 5, bad_images="skip") if fit == "keep" else None
                sized = sized or at_size(part, 16, bad_images="skip", fit=fit)
                if gigabytes == "1":
                    one = sized
        assert is_packed(one) and not is_packed(sized)
        assert isinstance(sized, ResizedDataset | KeptDataset)
        yield one, sized


def check_equal(packed, streamed):
    """Compare all that a data set says of itself and of its items."""
    kept, reasons, items = [], [], []
    for index in range(len(streamed)):
        try:
            items.append(streamed[index])
            kept.append(index)
        except BadImage as error:
            reasons.append(str(error))
    assert len(packed) == len(kept) and packed.skipped == tuple(reasons)
    for (image, target), (other_image, other) in zip(packed, items, strict=True):
        assert torch.equal(image, other_image) and target.keys() == other.keys() >= packed.annotations
        for key, value in target.items():
            assert (
                type(value) is type(other[key]) and value.dtype == other[key].dtype and torch.equal(value, other[key])
            )
    for name in ("classes", "annotations", "has_background", "synthetic", "spec", "lacking"):
        assert getattr(packed, name) == getattr(streamed, name), name
    assert packed.notes[: len(streamed.notes)] == streamed.notes
    assert len(packed.notes) == len(streamed.notes) + bool(reasons)
    for name in ("label", "clip_of"):
        one, other = getattr(packed, name), getattr(streamed, name)
        assert other is None or torch.equal(one, other[kept])  # a stream may not know it without decoding
    assert reasons or packed.fingerprint == streamed.fingerprint


@pytest.mark.parametrize("fits", [("pad", "keep"), pytest.param(("squash", "crop"), marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("unchecked")
def test_every_kind_is_the_same_packed_and_streamed(tmp_path, own_cache, monkeypatch, kind, fits):
    for packed, streamed in both(dataset_samples.make(kind, tmp_path / "data"), monkeypatch, fits):
        check_equal(packed, streamed)


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_pictures_are_the_same_ones(tmp_path, own_cache, monkeypatch, kind):
    spec = dataset_samples.make(kind, tmp_path / "data")
    files = set()
    for part in open_dataset(spec).splits.values():
        for index in (0, len(part) - 1):
            source, place = source_of(part, index)
            assert isinstance(source, FileDataset)
            files.add(source.images[place])
    for path in random.Random(0).sample(sorted(files), 3):
        with Path(path).open("r+b") as file:
            file.truncate(60)
    broken = 0
    for packed, streamed in both(spec, monkeypatch, fits=("squash", "keep")):
        check_equal(packed, streamed)
        broken += len(packed.skipped)
    assert broken == 2 * 3


def test_faulty_boxes_crowds_and_objects_without_outline_are_the_same(tmp_path, own_cache, monkeypatch):
    spec = dataset_samples.make("coco", tmp_path / "data")
    for file in (tmp_path / "data" / "annotations").glob("*.json"):
        content = json.loads(file.read_text())
        faults = [[5, 6, 0, 0], [15, 14, -10, -8], [100, 100, 5, 5]]
        for entry, box in zip(content["annotations"], faults, strict=False):
            entry["bbox"] = box
        content["annotations"][-1]["iscrowd"] = 1
        content["annotations"][-2].pop("segmentation", None)
        file.write_text(json.dumps(content))
    for packed, streamed in both(spec, monkeypatch):
        check_equal(packed, streamed)


def test_masks_without_background_are_the_same(tmp_path, own_cache, monkeypatch):
    dataset_samples.make("masks", tmp_path / "data")
    (tmp_path / "data" / "classes.txt").write_text("sky\nsea\nland\n")
    for keys in ("background=none&ignore=255", "ignore=255&classes=sky,sea,land"):
        for packed, streamed in both(f"masks:{tmp_path / 'data'}?{keys}", monkeypatch):
            check_equal(packed, streamed)

"""`masks:DIR`: its three layouts, chosen classes, ignored values, and the error messages."""

from __future__ import annotations

import dataset_samples
import numpy as np
import pytest
from dataset_samples import one_line
from PIL import Image

from pretext.datasets import open_dataset
from pretext.datasets.base import BadImage
from pretext.system.errors import UserError


def test_masks_open_in_all_three_layouts(tmp_path):
    spec = dataset_samples.make("masks", tmp_path / "a")
    by_split = open_dataset(spec)
    turned = tmp_path / "b"
    for split in ("train", "val", "test"):
        for kind in ("images", "masks"):
            (turned / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "a" / kind / split).rename(turned / split / kind)
    (tmp_path / "a" / "classes.txt").rename(turned / "classes.txt")
    turned_data = open_dataset(f"masks:{turned}")
    flat = open_dataset(f"masks:{turned / 'train'}?classes=sea,land")
    assert len(by_split) == len(turned_data) == 6 and len(flat) == 4 and len(flat.notes) == 2
    target = turned_data[1][1]
    assert target["labels"].tolist() == [1] and (target["masks"][6:14, 5:15] == 2).all()
    assert flat.classes == turned_data.classes == ("sea", "land")


def test_mask_classes_can_be_chosen_and_a_number_ignored(tmp_path):
    spec = dataset_samples.make("masks", tmp_path)
    data = open_dataset(f"{spec}?classes=land&ignore=0")
    with pytest.raises(BadImage, match=r"masks/train/0\.png: index 255 in the mask is no class"):
        data[0]
    for file in (tmp_path / "masks").rglob("*.png"):
        stored = np.array(Image.open(file))
        stored[stored == 255] = 0
        Image.fromarray(stored).save(file)
    data = open_dataset(f"{spec}?classes=land&ignore=0")
    assert data.classes == ("land",)
    assert data[0][1]["masks"].unique().tolist() == [0, 255]  # sea is background now, 0 is ignored
    assert data[1][1]["masks"].unique().tolist() == [1, 255]


def test_faults_of_masks_are_named(tmp_path):
    spec = dataset_samples.make("masks", tmp_path)
    for options, named in (
        ("?classes=lake", "no class 'lake'"),
        ("?train=trian", "train=trian: no such folder"),
        ("?ignore=300", "ignore=300"),
        ("?images=pictures", "pictures"),
    ):
        with pytest.raises(UserError, match=named) as excinfo:
            open_dataset(spec + options)
        one_line(excinfo)
    dataset_samples.save(tmp_path / "masks" / "val" / "2.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(BadImage, match=r"2\.png: the mask is 4×3, its picture 24×20"):
        list(open_dataset(spec).split("val"))
    (tmp_path / "masks" / "val" / "2.png").unlink()
    with pytest.raises(UserError, match=r"val/2\.jpg has no mask"):
        open_dataset(spec)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"name the classes .*classes\.txt"):
        open_dataset(spec)

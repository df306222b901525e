"""`masks:DIR`: its three layouts, chosen classes, ignored values, and the error messages."""

from __future__ import annotations

import dataset_samples
import numpy as np
import pytest
from dataset_samples import fails, one_line
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
    assert len(by_split) == len(turned_data) == 6 and len(flat) == 4 and len(flat.notes) == 3
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


def mask_folder(root, values, lines=None):
    """Write train and test pictures whose masks hold the given values in equal stripes."""
    for split in ("train", "test"):
        for number in range(4):
            stripes = np.repeat(np.array(values, np.uint8), 5)[:, None].repeat(24, axis=1)
            dataset_samples.save(
                root / "images" / split / f"{number}.png", dataset_samples.pixels(1, number, len(stripes))
            )
            dataset_samples.save(root / "masks" / split / f"{number}.png", stripes)
    if lines is not None:
        (root / "classes.txt").write_bytes(lines)
    return f"masks:{root}"


def test_masks_of_0_and_255_show_the_one_class(tmp_path):
    data = open_dataset(mask_folder(tmp_path / "a", (0, 255)) + "?classes=lesion")
    assert data[0][1]["masks"].unique().tolist() == [0, 1] and data[0][1]["labels"].tolist() == [0]
    assert any("255 is read as lesion" in note for note in data.split("test").notes)
    usual = open_dataset(mask_folder(tmp_path / "b", (0, 1, 255)) + "?classes=lesion")
    assert usual[0][1]["masks"].unique().tolist() == [0, 1, 255] and not any("255" in note for note in usual.notes)


def test_what_many_masks_hold_is_cached_by_their_content(tmp_path, own_cache, monkeypatch):
    monkeypatch.setattr("pretext.datasets.mask_values.UNCACHED_MASKS", 2)
    spec = mask_folder(tmp_path, (0, 255)) + "?classes=lesion"
    before = open_dataset(spec).fingerprint
    read = []
    monkeypatch.setattr("pretext.datasets.mask_values.decode_mask", lambda file: read.append(file) or np.zeros(1, int))
    assert open_dataset(spec).fingerprint == before and len(read) == 2
    monkeypatch.undo()
    dataset_samples.save(tmp_path / "masks" / "test" / "3.png", np.ones((10, 24), np.uint8))
    assert open_dataset(spec).fingerprint != before and not open_dataset(spec)[0][1]["masks"].eq(1).any()


@pytest.mark.parametrize(
    ("values", "options", "match"),
    [
        ((0, 255), "classes=a,b", "the masks hold 0, 255, and the classes a, b are numbered from 1"),
        ((0, 128, 255), "classes=a", "the masks hold 0, 128, 255"),
        ((0, 255), "classes=a&ignore=0", "the masks hold 0, 255"),
        ((0, 255), "classes=a,b&background=none", "the masks hold 0, 255"),
        ((0, 1), "classes=a,b&ignore=2", "ignore=2 is the number of class 'b'.*background=none"),
        ((0, 1), "classes=a,b&background=none&ignore=1", "ignore=1 is the number of class 'b'"),
        ((0, 1), "classes=background,a", "number 0 in the masks is the background already"),
        ((0, 1), "classes=a&background=1", "background.*expected one of 0, none"),
    ],
)
def test_masks_that_mean_something_else_are_refused(tmp_path, values, options, match):
    fails(f"{mask_folder(tmp_path, values)}?{options}", match)


def test_number_0_can_be_a_class(tmp_path):
    spec = mask_folder(tmp_path, (0, 1, 2, 3), b"sky\nroad\ncar\n") + "?background=none&ignore=3"
    data = open_dataset(spec)
    assert data.classes == ("sky", "road", "car") and not data.split("val").has_background
    assert data[0][1]["masks"].unique().tolist() == [1, 2, 3, 255] and data[0][1]["labels"].tolist() == [0, 1, 2]
    some = open_dataset(f"{spec}&classes=car,sky")
    assert some[0][1]["masks"][::5, 0].tolist() == [2, 255, 1, 255]
    assert open_dataset(f"masks:{tmp_path}?classes=sky,road&ignore=3").has_background


@pytest.mark.parametrize(
    "lines", [b"\xef\xbb\xbfbackground\r\nsea\r\nland\r\n", b"\xef\xbb\xbfsea\nland", b"sea\r\n\nland"]
)
def test_a_byte_order_mark_is_no_part_of_the_first_class(tmp_path, lines):
    data = open_dataset(mask_folder(tmp_path, (0, 2), lines))
    assert data.classes == ("sea", "land") and data[0][1]["labels"].tolist() == [1]


def test_folders_with_annot_beside_them_are_read(tmp_path):
    spec = mask_folder(tmp_path, (0, 1, 11), b"sky\nroad\n") + "?background=none&ignore=11"
    for split in ("train", "test"):
        (tmp_path / "images" / split).rename(tmp_path / split)
        (tmp_path / "masks" / split).rename(tmp_path / f"{split}annot")
    data = open_dataset(spec)
    assert len(data.split("test")) == 4 and data[0][1]["masks"].unique().tolist() == [1, 2, 255]
    (tmp_path / "trainannot").rename(tmp_path / "elsewhere")
    fails(spec, "found test, but no train")

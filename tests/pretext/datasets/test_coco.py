"""`coco:DIR`: files, boxes, crowds, masks of polygons and run lengths, and the error messages."""

from __future__ import annotations

import json
import os
from pathlib import Path

import dataset_samples
import numpy as np
import pytest
from dataset_samples import fails
from pycocotools import mask as oracle

from pretext.datasets import open_dataset
from pretext.datasets.base import BadImage
from pretext.datasets.classification import class_targets


@pytest.fixture
def root(tmp_path):
    dataset_samples.make("coco", tmp_path)
    return tmp_path


def edit(root, change, split="train"):
    """Change the content of a JSON file with a function, or replace it by a value."""
    file = root / "annotations" / f"instances_{split}2017.json"
    content = json.loads(file.read_text())
    if callable(change):
        change(content)
    else:
        content = change
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def test_boxes_classes_and_masks(root):
    data = open_dataset(f"coco:{root}")
    assert data.annotations == {"label", "labels", "boxes", "masks"}
    assert data.classes == ("tram", "brush")  # by their ids, 4 and 90
    target = data[0][1]
    assert target["boxes"].tolist() == [[5, 6, 15, 14]] and target["labels"].tolist() == [1]
    assert int(target["label"]) == 1 and target["difficult"].tolist() == [False]
    assert (target["masks"][6:14, 5:15] == 2).all() and (target["masks"] > 0).sum() == 80


def test_crowds_are_difficult_and_small_objects_lie_on_top(root):
    bits = np.zeros((20, 24), np.uint8, order="F")
    bits[2:18, 3:20] = 1
    runs = oracle.encode(bits)
    counts = np.diff(np.flatnonzero(np.diff(np.concatenate([[2], bits.ravel(order="F"), [2]]))))

    def change(content):
        small = content["annotations"][0]
        written = {"size": [20, 24], "counts": runs["counts"].decode()}
        listed = {"size": [20, 24], "counts": counts.tolist()}
        crowd = {**small, "iscrowd": 1, "bbox": [3, 2, 17, 16], "category_id": 4}
        content["annotations"] += [{**crowd, "segmentation": written}]
        content["annotations"] += [{**crowd, "segmentation": listed, "image_id": 11}]

    edit(root, change)
    data = open_dataset(f"coco:{root}")
    assert data.annotations == {"labels", "boxes", "masks"}  # a picture of two classes: no single label
    target = data[0][1]
    assert target["difficult"].tolist() == [False, True] and target["labels"].tolist() == [1, 0]
    expected = bits.copy()
    expected[6:14, 5:15] = 2
    assert np.array_equal(target["masks"].numpy(), expected)
    assert class_targets(data)[0].tolist() == [-1, 1]
    assert np.array_equal(data[1][1]["masks"].numpy() > 0, bits > 0)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
def test_polygons_are_drawn_as_cocos_own_tools_draw_them(root):
    rng = np.random.default_rng(3)
    polygons = [(rng.random(2 * corners) * 19).round(2).tolist() for corners in (3, 5, 9)]
    edit(root, lambda content: content["annotations"][0].update(segmentation=[*polygons, [1, 1, 2, 2]]))
    drawn = open_dataset(f"coco:{root}")[0][1]["masks"].numpy() == 2
    assert np.array_equal(drawn, oracle.decode(oracle.merge(oracle.frPyObjects(polygons, 20, 24))).astype(bool))


def test_a_picture_without_objects_has_no_label(root):
    edit(root, lambda content: content["annotations"].pop(0))
    data = open_dataset(f"coco:{root}")
    assert data.annotations == {"labels", "boxes", "masks"}
    target = data[0][1]
    assert target["boxes"].shape == (0, 4) and len(target["labels"]) == 0 and not target["masks"].any()


def test_chosen_classes(root):
    data = open_dataset(f"coco:{root}?classes=brush")
    assert data.classes == ("brush",) and class_targets(data)[:, 0].tolist() == [1, 0, 1, 0, 1, 0]
    assert data[0][1]["masks"].max() == 1
    fails(f"coco:{root}?classes=bruhs", "did you mean 'brush'")


def test_files_by_stem_by_path_and_the_only_one(root, tmp_path):
    (root / "annotations" / "instances_val2017.json").rename(root / "held_out.json")
    (root / "val2017").rename(root / "held_out")
    data = open_dataset(f"coco:{root}?val=held_out")
    assert len(data.split("val")) == 6 and "held_out" in data.split("val").images[0]
    alone = tmp_path / "alone"
    alone.mkdir()
    (root / "held_out.json").rename(alone / "labels.json")
    (root / "held_out").rename(alone / "pictures")
    data = open_dataset(f"coco:{alone}?images=pictures")
    assert sum(map(len, data.splits.values())) == 6 and len(data.notes) == 3
    fails(f"coco:{alone}", r"0000\.png is missing, but .*labels\.json lists it; name its folder with images=")


def test_of_several_years_the_most_recent_is_used_and_said(root):
    file = root / "annotations" / "instances_train2017.json"
    file.with_name("instances_train2014.json").write_text(file.read_text())
    data = open_dataset(f"coco:{root}")
    assert any("instances_train2014, instances_train2017" in note for note in data.notes)


def test_a_changed_annotation_changes_the_fingerprint(root):
    prints = {open_dataset(f"coco:{root}").fingerprint}
    for change in ({"bbox": [5, 6, 10, 9]}, {"segmentation": [[5, 6, 15, 6, 15, 14]]}, {"category_id": 4}):
        edit(root, lambda content, change=change: content["annotations"][0].update(change))
        prints.add(open_dataset(f"coco:{root}").fingerprint)
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("[1, 2", "not JSON"),
        ("[1, 2]", "expected lists of images, annotations and categories"),
        ({"images": []}, "'annotations' is missing"),
        (lambda c: c["annotations"][1].pop("bbox") and c["annotations"][1].pop("segmentation"), "'bbox' is missing"),
        (lambda c: c["annotations"][1].update(bbox=[10**400, 2, 3, 4]), r"annotations\[1\]"),
        (lambda c: c["annotations"][1].update(segmentation=[[[1, 2], 3, 4, 5, 6]]), r"\[1\]: segmentation"),
        (lambda c: c["images"][1].update(width=float("inf")), "expected lists of images"),
        (lambda c: c["annotations"][1].update(image_id=7), "no image or category has the id 7"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2, 3]), r"bbox=\[1, 2, 3\]; expected x, y, width, height"),
        (lambda c: c["annotations"][1].update(bbox=["a", 2, 3, 4]), r"annotations\[1\]"),
        (lambda c: c["annotations"][1].update(segmentation=[[float("nan")] * 6]), r"\[1\]: segmentation"),
        (lambda c: c["annotations"][1].update(segmentation=[["a"] * 6]), r"annotations\[1\]: segmentation"),
        (lambda c: c["annotations"][1].update(segmentation={"counts": 3}), r"annotations\[1\]: segmentation"),
        (lambda c: c["images"][1].pop("file_name"), "'file_name' is missing"),
        (lambda c: c["images"][1].update(id=10), "image id 10 occurs 2 times"),
        (lambda c: c["categories"][1].update(name="brush"), "category name 'brush' occurs 2 times"),
        (lambda c: c["images"].clear() or c["annotations"].clear(), "it lists no images"),
    ],
)  # fmt: skip
def test_whatever_is_malformed_is_named(root, change, match):
    edit(root, change)
    fails(f"coco:{root}", rf"instances_train2017\.json: .*{match}|instances_train2017\.json: {match}")


def test_a_class_or_picture_that_is_not_there_is_named(root):
    edit(root, lambda content: content["categories"][0].update(name="broom"), "val")
    fails(f"coco:{root}", "val has a class 'broom' that train lacks")
    edit(root, lambda content: content["categories"][0].update(name="brush"), "val")
    (root / "test2017" / "0003.png").unlink()
    fails(f"coco:{root}", r"test2017/0003\.png is missing, but .*instances_test2017\.json lists it")
    fails(f"coco:{root}?train=instances_trian2017", "did you mean 'instances_train2017'")


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [20, 24], "counts": [9, 999]},
        {"size": [4, 4], "counts": [0, 16]},
        {"size": [10**6, 10**6], "counts": [0, 10**12]},  # a terabyte, if it were drawn
        {"size": ["a", None], "counts": [1]},
    ],
)
def test_run_lengths_that_do_not_fit_are_a_bad_picture(root, segmentation):
    edit(root, lambda content: content["annotations"][0].update(segmentation=segmentation))
    with pytest.raises(BadImage, match=r"train2017/0000\.png: "):
        open_dataset(f"coco:{root}")[0]


def test_real_annotations_open_with_a_label():
    if not (data_root := os.environ.get("PRETEXT_TEST_DATA")):
        pytest.skip("PRETEXT_TEST_DATA names no folder of real photographs")
    folder = Path(data_root) / "tiny-imagenet-20"
    data = open_dataset(f"coco:{folder}")
    assert data.annotations == {"label", "labels", "boxes"} and len(data.classes) == 20
    content = json.loads((folder / "annotations" / "instances_val.json").read_text())
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    test = data.split("test")  # the source has train and val alone
    for index in range(0, 1000, 97):
        entry = content["annotations"][index]
        target = test[index][1]
        x, y, width, height = entry["bbox"]
        assert target["boxes"].tolist() == [[x, y, x + width, y + height]]
        assert data.classes[target["label"]] == names[entry["category_id"]]


def test_a_class_name_that_no_text_file_can_hold_is_refused(root):
    edit(root, lambda content: content["categories"][0].update(name="half \ud83d"))
    fails(f"coco:{root}", r"the category name 'half .ud83d' holds half of a character")

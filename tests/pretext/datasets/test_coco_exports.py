"""`coco:DIR` as labelling tools write it: grouping categories, missing outlines and boxes, turned photographs."""

from __future__ import annotations

import json

import dataset_samples
import numpy as np
import pytest
import torch
from dataset_samples import fails, pixels, save, write
from PIL import Image
from pycocotools import mask as oracle

from pretext.datasets import at_size, open_dataset
from pretext.datasets.classification import class_targets
from pretext.datasets.view import source_of
from pretext.system.errors import UserError


@pytest.fixture
def root(tmp_path):
    dataset_samples.make("coco", tmp_path)
    return tmp_path


def edit(root, change, splits=("train", "val", "test")):
    for split in splits:
        file = root / "annotations" / f"instances_{split}2017.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))


def fingerprints(data):
    return {name: part.fingerprint for name, part in data.splits.items()}


@pytest.mark.parametrize("name", ["things", "brush"])  # a group may have the name of the one class in it
def test_a_category_that_only_groups_others_is_no_class(root, name):
    before = open_dataset(f"coco:{root}")

    def change(content):
        for entry in content["categories"]:
            entry["supercategory"] = name
        content["categories"].insert(0, {"id": 0, "name": name, "supercategory": "none"})

    edit(root, change)
    data = open_dataset(f"coco:{root}")
    assert data.classes == ("tram", "brush") and fingerprints(data) == fingerprints(before)
    assert any(f"the category {name!r} has no objects and only groups others" in note for note in data.notes)


def test_a_category_with_objects_or_nothing_below_it_is_a_class(root):
    def change(content):
        content["categories"][0]["supercategory"] = "tram"
        content["categories"].append({"id": 99, "name": "empty", "supercategory": "empty"})

    edit(root, change)
    assert open_dataset(f"coco:{root}").classes == ("tram", "brush", "empty")


def test_a_json_file_inside_each_split_folder_is_found(root):
    before = open_dataset(f"coco:{root}")
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        (root / f"{split}2017").rename(root / name)
        (root / "annotations" / f"instances_{split}2017.json").rename(root / name / "_annotations.coco.json")
    data = open_dataset(f"coco:{root}")
    for name, part in data.splits.items():
        assert len(part) == 6 and torch.equal(class_targets(part), class_targets(before.split(name)))
    with pytest.raises(UserError, match=f"write coco:{root}"):
        open_dataset(str(root))


def test_backslashes_in_file_names_are_slashes(root):
    before = fingerprints(open_dataset(f"coco:{root}"))

    def change(content):
        for entry in content["images"]:
            entry["file_name"] = f"{split}2017\\{entry['file_name']}"

    for split in ("train", "val", "test"):
        edit(root, change, [split])
    assert fingerprints(open_dataset(f"coco:{root}")) == before


@pytest.mark.parametrize("outline", [[], None, [[5, 6, 15, 6]]])
def test_one_object_without_an_outline_leaves_the_masks_and_is_named(root, outline):
    edit(root, lambda content: content["annotations"][3].update(segmentation=outline, bbox=[2, 3, 8, 8]))
    data = open_dataset(f"coco:{root}")
    assert "masks" in data.annotations
    assert any("1 of 6 objects in train, the first in 0003.png" in note for note in data.notes)
    mask = data[3][1]["masks"].numpy()
    assert (mask[3:11, 2:10] == 255).all() and (mask > 0).sum() == 64
    assert (data[2][1]["masks"] == 2).sum() == 80


def test_where_most_objects_have_no_outline_the_reason_for_no_masks_is_said(root):
    def change(content):
        for entry in content["annotations"][1:]:
            entry["segmentation"] = []

    edit(root, change, ["val"])
    data = open_dataset(f"coco:{root}")
    for part in (data, data.split("val"), at_size(data, 8, bad_images="stop")):
        with pytest.raises(UserError, match=r"needs masks.*5 of 6 objects in val, the first in 0001\.png.* not used$"):
            part.require("masks")
    edit(root, lambda content: [entry.update(segmentation=[]) for entry in content["annotations"]])
    assert not any("outline" in note for note in open_dataset(f"coco:{root}").notes)  # boxes alone are in order


@pytest.mark.parametrize("box", [None, [], [5, 6, 0, 8], "missing"])
@pytest.mark.parametrize("runs", [False, True])
def test_an_outline_without_a_box_gets_one(root, box, runs):
    before = open_dataset(f"coco:{root}")

    def change(content):
        entry = content["annotations"][0]
        entry.update(bbox=box)
        if box == "missing":
            entry.pop("bbox")
        if runs:
            bits = np.zeros((20, 24), np.uint8, order="F")
            bits[6:14, 5:15] = 1
            entry["segmentation"] = {"size": [20, 24], "counts": oracle.encode(bits)["counts"].decode()}

    edit(root, change)
    data = open_dataset(f"coco:{root}")
    assert torch.equal(data[0][1]["boxes"], before[0][1]["boxes"])
    assert torch.equal(data[0][1]["masks"], before[0][1]["masks"])
    assert any("1 objects in train without a box got that of their outline: 0000.png" in note for note in data.notes)


STORED_AS = {
    **{2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM"},
    **{5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"},
}
"""How an upright picture is stored so that its orientation turns it back."""


def turned_photographs(root, kinds, frame):
    """Write 12 photographs with one object each; return their masks as they are seen upright.

    Args:
        root: Folder to write to.
        kinds: EXIF orientation and upright height and width, for photographs in turn.
        frame: The annotations' frame; the JSON has the stored size in both.
    """
    images, annotations, upright_masks = [], [], []
    for number in range(12):
        orientation, (height, width) = kinds[number % len(kinds)]
        exif = Image.Exif()
        exif[0x0112] = orientation
        top = (20 if height > width else 14, 1, 8)[number // len(kinds) % 3]
        upright = np.zeros((height, width), np.uint8)
        upright[top : top + 9, 3:17] = 1
        upright_masks.append(upright)
        turn = Image.Transpose[STORED_AS[orientation]]
        picture = Image.fromarray(pixels(5, number, height, width)).transpose(turn)
        save(root / f"{number}.png", np.asarray(picture))
        picture.save(root / f"{number}.png", exif=exif.tobytes())
        mask = upright if frame == "upright" else np.asarray(Image.fromarray(upright).transpose(turn))
        (y, x), (high, wide) = np.argwhere(mask).min(0), np.ptp(np.argwhere(mask), axis=0) + 1
        box = [int(value) for value in (x, y, wide, high)]
        outline = [[box[0], box[1], box[0] + box[2], box[1], box[0] + box[2], box[1] + box[3], box[0], box[1] + box[3]]]
        if number % 2:
            runs = oracle.encode(np.asfortranarray(mask))
            outline = {"size": list(mask.shape), "counts": runs["counts"].decode()}
        stored = {"width": picture.width, "height": picture.height}
        images.append({"id": number, "file_name": f"{number}.png", **stored})
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box, "segmentation": outline})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "bar"}]}
    write(root / "result.json", json.dumps(content))
    return upright_masks


TALL, SQUARE = (32, 20), (24, 24)


@pytest.mark.parametrize(
    "kinds",
    [
        *([(orientation, TALL)] for orientation in (5, 6, 7, 8)),
        # one size in both frames: they follow the others
        *([(6, TALL), (orientation, TALL), (orientation, TALL)] for orientation in (2, 3, 4)),
        *([(8, TALL), (orientation, SQUARE), (orientation, SQUARE)] for orientation in (3, 6, 8)),
    ],
)
@pytest.mark.parametrize("frame", ["upright", "stored"])
def test_photographs_that_exif_turns_match_a_json_of_stored_sizes(tmp_path, kinds, frame):
    upright_masks = turned_photographs(tmp_path, kinds, frame)
    data = open_dataset(f"coco:{tmp_path}")
    said = "boxes fit the turned picture" if frame == "upright" else "annotations were turned with them"
    assert any(
        "EXIF orientation turns 12 of 12 pictures in train (0.png" in note and said in note for note in data.notes
    )
    for part in data.splits.values():
        for index in range(len(part)):
            target, row = part[index][1], source_of(part, index)[1]
            assert np.array_equal(target["masks"].numpy(), upright_masks[row])
            rows, columns = np.nonzero(upright_masks[row])
            assert target["boxes"].tolist() == [[3, rows.min(), 17, rows.max() + 1]] and columns.min() == 3
    assert sum(len(part) for part in at_size(data, 16, bad_images="stop").splits.values()) == 12


def test_boxes_that_fit_neither_frame_are_said(root):
    def change(content):
        for entry in content["annotations"]:
            entry["bbox"] = [0, 0, 24, 24]

    edit(root, change)
    for file in (root / "train2017").iterdir():
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.open(file).save(file, exif=exif.tobytes())
    assert any("their boxes fit neither frame" in note for note in open_dataset(f"coco:{root}").notes)
    fails(f"coco:{root}?images=nowhere", "is missing")


def test_all_splits_are_read_in_the_frame_that_one_of_them_shows(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    for file in root.glob("*2017/*.png"):
        Image.open(file).save(file, exif=exif.tobytes())  # stored 24×20, read as 20×24
    edit(root, lambda content: content["annotations"][0].update(bbox=[5, 6, 10, 18], segmentation=[]), ["train"])
    data = open_dataset(f"coco:{root}")
    assert any("6 of 6 pictures in train" in note and "fit the turned picture" in note for note in data.notes)
    assert data.split("val")[0][1]["boxes"].tolist() == [[5, 6, 15, 14]]

"""Layouts of other tools: read as their users expect, or answered by what reads them."""

from __future__ import annotations

import json

import dataset_samples
import pytest

from pretext.datasets import Fault, open_dataset


def faults(spec):
    return " ".join(note for note in open_dataset(spec).notes if isinstance(note, Fault))


def picture(path, number=0):
    dataset_samples.save(path, dataset_samples.pixels(len(str(path)), number))


def test_tiny_imagenet_is_read_with_the_classes_that_its_lists_name(tmp_path):
    for name in ("n01", "n02"):
        for number in range(4):
            picture(tmp_path / "train" / name / "images" / f"{name}_{number}.jpg", number)
    dataset_samples.write(tmp_path / "wnids.txt", "n01\nn02\n")
    lines = []
    for number in range(4):
        picture(tmp_path / "val" / "images" / f"val_{number}.jpg", 10 + number)
        picture(tmp_path / "test" / "images" / f"test_{number}.jpg", 20 + number)
        lines.append(f"val_{number}.jpg\tn0{1 + (number == 3)}\t0\t0\t5\t5")
    dataset_samples.write(tmp_path / "val" / "val_annotations.txt", "\n".join(lines) + "\n\n")
    data = open_dataset(f"folder:{tmp_path}")
    assert data.classes == ("n01", "n02")
    held_out = next(part for part in data.splits.values() if len(part) == 4 and part is not data)
    assert held_out.label.tolist() == [0, 0, 0, 1]
    assert "test has no class folders" in faults(f"folder:{tmp_path}")
    dataset_samples.write(tmp_path / "val" / "val_annotations.txt", "\n".join(lines[:3]))
    dataset_samples.fails(f"folder:{tmp_path}", r"it lists no class for val_3\.jpg")


def test_an_export_with_a_json_file_in_each_split_is_read_whole(tmp_path):
    for split in ("train", "valid", "test"):
        images, objects = [], []
        for number in range(6):
            picture(tmp_path / split / f"{split}{number}.jpg", number)
            images.append({"id": number, "file_name": f"{split}{number}.jpg", "width": 24, "height": 20})
            objects.append({"id": number, "image_id": number, "category_id": 1 + number % 2, "bbox": [2, 3, 8, 9]})
        categories = [{"id": 0, "name": "animals", "supercategory": "none"}]
        categories += [{"id": 1 + k, "name": name, "supercategory": "animals"} for k, name in enumerate(("cat", "dog"))]
        content = {"images": images, "annotations": objects, "categories": categories}
        dataset_samples.write(tmp_path / split / "_annotations.coco.json", json.dumps(content))
    data = open_dataset(f"coco:{tmp_path}")
    assert data.classes == ("cat", "dog") and {name: len(part) for name, part in data.splits.items()} == {
        "train": 6,
        "val": 6,
        "test": 6,
    }
    assert data.label.tolist() == [0, 1] * 3


@pytest.mark.parametrize("where", ["labels", "images"])
def test_boxes_in_yolos_format_are_said_not_to_be_read(tmp_path, where):
    for number in range(6):
        picture(tmp_path / "images" / f"{number}.jpg", number)
        dataset_samples.write(tmp_path / where / f"{number}.txt", "0 0.5 0.5 0.25 0.25\n")
    assert "holds boxes in YOLO's format" in faults(f"folder:{tmp_path}")


def test_annotations_of_another_kind_are_said_with_the_spec_that_reads_them(tmp_path):
    dataset_samples.make("voc", tmp_path)
    assert "has the layout of voc" in faults(f"folder:{tmp_path}")


def test_class_folders_below_the_only_folder_are_named(tmp_path):
    for number in range(6):
        picture(tmp_path / "export" / "ab"[number % 2] / f"{number}.jpg", number)
    assert f"folder:{tmp_path / 'export'} reads them" in faults(f"folder:{tmp_path}")


def test_what_the_numbers_in_masks_stand_for_is_said(tmp_path):
    spec = dataset_samples.make("masks", tmp_path)
    assert "In the masks 0 is background, 1 is sea, 2 is land." in open_dataset(spec).notes
    dataset_samples.write(tmp_path / "classes.txt", "sky\nsea\nland\n")
    assert "In the masks 0 is sky, 1 is sea, 2 is land." in open_dataset(f"{spec}?background=none").notes

"""`voc:DIR`: lists, boxes, difficult objects, masks, and the error messages."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import dataset_samples
import numpy as np
import pytest
import torch
from dataset_samples import fails
from PIL import Image

from pretext.datasets import open_dataset
from pretext.datasets.classification import class_targets
from pretext.datasets.layouts import fitting_kind
from pretext.datasets.voc import CLASSES

OBJECTS = [("dog", (1, 1, 24, 20), 0), ("car", (3, 4, 3, 4), 1), ("car", (2.5, 4, 10, 12), 0)]


@pytest.fixture
def year(tmp_path):
    """Return the only year folder of the sample."""
    dataset_samples.make("voc", tmp_path)
    return tmp_path / "VOC2007"


def annotate(year, name, objects, **size):
    dataset_samples.write(year / "Annotations" / f"{name}.xml", dataset_samples.voc_xml(objects, **size))


def test_boxes_count_from_nought_and_end_behind_their_last_pixel(year):
    annotate(year, "train_0", OBJECTS)
    target = open_dataset(f"voc:{year}")[0][1]
    assert target["boxes"].tolist() == [[0, 0, 24, 20], [2, 3, 3, 4], [1.5, 3, 10, 12]]
    assert target["labels"].tolist() == [CLASSES.index("dog"), CLASSES.index("car"), CLASSES.index("car")]
    assert target["difficult"].tolist() == [False, True, False]


def test_box_and_mask_are_where_the_object_is(year):
    image, target = open_dataset(f"voc:{year}")[2]
    assert target["boxes"].tolist() == [[5, 6, 15, 14]]
    x0, y0, x1, y1 = target["boxes"][0].int().tolist()
    assert (image[0, y0:y1, x0:x1] > 200).float().mean() > 0.9  # JPEG changes some pixels
    car = target["masks"] == CLASSES.index("car") + 1
    assert car[y0:y1, x0:x1].all() and car.sum() == 80
    assert (target["masks"][0] == 255).all()


def test_parts_of_an_object_are_no_objects(year):
    inner = dataset_samples.voc_xml([("person", (1, 1, 9, 9), 0)]).replace(
        "</object>",
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>",
    )
    dataset_samples.write(year / "Annotations" / "train_0.xml", inner)
    assert open_dataset(f"voc:{year}")[0][1]["labels"].tolist() == [CLASSES.index("person")]


def test_difficult_objects_count_neither_way(year):
    annotate(year, "train_0", [("dog", (1, 1, 4, 4), 1), ("car", (1, 1, 4, 4), 1), ("car", (5, 5, 9, 9), 0)])
    row = class_targets(open_dataset(f"voc:{year}"))[0]
    assert row[CLASSES.index("dog")] == -1 and row[CLASSES.index("car")] == 1
    assert row.abs().sum() == 2


def test_foreign_classes_are_named_in_alphabetical_order(year):
    annotate(year, "train_0", [("zebra", (1, 1, 4, 4), 0), ("ant", (1, 1, 4, 4), 0)])
    assert open_dataset(f"voc:{year}?classes=zebra,ant").classes == ("zebra", "ant")
    for file in (year / "SegmentationClass").iterdir():
        file.unlink()
    data = open_dataset(f"voc:{year}")
    assert data.classes == ("ant", "car", "zebra") and data.annotations == {"labels", "boxes"}
    assert data[0][1]["labels"].tolist() == [2, 0]


def test_chosen_classes_keep_their_order_and_the_rest_is_background(year):
    annotate(year, "train_0", OBJECTS)
    data = open_dataset(f"voc:{year}?classes=person,dog")
    target = data[0][1]
    assert data.classes == ("person", "dog")
    assert target["labels"].tolist() == [1] and len(target["boxes"]) == 1
    assert target["masks"].unique().tolist() == [0, 255]  # the car of the mask is background
    assert (open_dataset(f"voc:{year}?classes=car")[0][1]["masks"][6:14, 5:15] == 1).all()


def test_the_number_to_ignore_can_be_another(year):
    file = year / "SegmentationClass" / "train_0.png"
    stored = np.array(Image.open(file))
    stored[stored == 255] = 21
    Image.fromarray(stored).save(file)
    mask = open_dataset(f"voc:{year}?ignore=21")[0][1]["masks"]
    assert (mask[0] == 255).all()


def test_pictures_without_a_mask_are_ignored_and_the_notes_say_so(year):
    (year / "SegmentationClass" / "train_1.png").unlink()
    data = open_dataset(f"voc:{year}")
    assert "masks" in data.annotations
    assert (data[1][1]["masks"] == 255).all() and (data[0][1]["masks"] == 7).any()
    assert any("1 of 6 in train" in note for note in data.notes)
    before = data.fingerprint
    (year / "SegmentationClass" / "train_2.png").rename(year / "SegmentationClass" / "train_1.png")
    assert open_dataset(f"voc:{year}").fingerprint != before


def test_a_split_without_any_mask_means_no_masks(year):
    for file in (year / "SegmentationClass").glob("test_*"):
        file.unlink()
    assert open_dataset(f"voc:{year}").annotations == {"labels", "boxes"}


def test_segmentation_lists_want_a_mask_for_every_picture(year):
    for split in ("train", "val", "test"):
        dataset_samples.write(year / "ImageSets" / "Segmentation" / f"{split}.txt", f"{split}_0\n{split}_1\n")
    data = open_dataset(f"voc:{year}?sets=Segmentation")
    assert {name: len(part) for name, part in data.splits.items()} == {"train": 2, "val": 2, "test": 2}
    assert len(open_dataset(f"voc:{year}?train=Segmentation/train")) == 2
    (year / "SegmentationClass" / "val_1.png").unlink()
    fails(f"voc:{year}?sets=Segmentation", r"SegmentationClass/val_1\.png is missing")


def test_lists_by_name_by_path_and_of_one_class(year, tmp_path):
    dataset_samples.write(year / "ImageSets" / "Main" / "car_train.txt", "train_0 -1\ntrain_1  1\ntrain_2  0\n")
    assert len(open_dataset(f"voc:{year}?train=car_train")) == 2
    dataset_samples.write(tmp_path / "mine.txt", "train_3\n\ntrain_4\ntrain_3\n")
    data = open_dataset(f"voc:{year}?train={tmp_path / 'mine.txt'}")
    assert [Path(image).stem for image in data.images] == ["train_3", "train_4"]
    dataset_samples.write(year / "ImageSets" / "Main" / "mylist.txt", "test_3\n")
    assert len(open_dataset(f"voc:{year}?test=mylist").split("test")) == 1


def test_lists_may_have_a_byte_order_mark_suffixes_and_names_with_spaces(year):
    for number, name in enumerate(("my photo", "photo 1", "photo.v2", "photo -1")):
        (year / "JPEGImages" / f"train_{number}.jpg").rename(year / "JPEGImages" / f"{name}.jpg")
        (year / "SegmentationClass" / f"train_{number}.png").rename(year / "SegmentationClass" / f"{name}.png")
        annotate(year, name, OBJECTS)
    listed = "my photo.jpg\r\nphoto 1\r\nphoto.v2 1\r\nphoto -1 -1\r\ntrain_4.JPG -1\r\ntrain_5.jpg\r\n"
    (year / "ImageSets" / "Main" / "train.txt").write_bytes(b"\xef\xbb\xbf" + listed.encode())
    names = [Path(image).stem for image in open_dataset(f"voc:{year}").images]
    assert names == ["my photo", "photo 1", "photo.v2", "train_5"]


def test_masks_that_show_no_class_are_not_used_and_white_can_be_the_only_one(year):
    for file in (year / "SegmentationClass").iterdir():
        Image.fromarray((np.array(Image.open(file)) == 7).astype(np.uint8) * 255).save(file)
    data = open_dataset(f"voc:{year}")
    assert "masks" not in data.annotations and any(
        "they hold 0, 255, but no number of a class" in n for n in data.notes
    )
    for split in ("train", "val", "test"):
        for number in range(6):
            annotate(year, f"{split}_{number}", [("lesion", (6, 7, 15, 14), 0)])
    data = open_dataset(f"voc:{year}")
    assert data[0][1]["masks"].unique().tolist() == [0, 1] and any("255 is read as lesion" in n for n in data.notes)


def test_trainval_leaves_nothing_of_val_held_out(year):
    both = "".join((year / "ImageSets" / "Main" / f"{split}.txt").read_text() for split in ("train", "val"))
    dataset_samples.write(year / "ImageSets" / "Main" / "trainval.txt", both)
    data = open_dataset(f"voc:{year}?train=trainval")
    # val is drawn by content, and every picture of train is in val too
    assert {name: len(part) for name, part in data.splits.items()} == {"train": 10, "val": 2, "test": 6}
    assert any("trainval.txt holds pictures of val.txt" in note for note in data.notes)
    fails(f"voc:{year}?train=trainval&val=val", "6 pictures are in train and in val")


def test_a_test_list_that_nobody_annotated_is_left_alone(year):
    for file in (year / "Annotations").glob("test_*"):
        file.unlink()
    data = open_dataset(f"voc:{year}")
    assert any("test.txt is annotated" in note for note in data.notes)
    assert {Path(image).stem[:3] for image in data.split("test").images} == {"val"}
    fails(f"voc:{year}?test=test", r"Annotations/test_0\.xml: No such file")


def test_the_most_recent_year_is_used_and_said(tmp_path, year):
    dataset_samples.make("voc", tmp_path / "later", shade=2)
    (tmp_path / "later" / "VOC2007").rename(tmp_path / "VOC2012")
    data, old = open_dataset(f"voc:{tmp_path}"), open_dataset(f"voc:{tmp_path}?year=2007")
    assert data.root.name == "VOC2012" and any("VOC2007, VOC2012" in note for note in data.notes)
    assert old.root == year and old.fingerprint != data.fingerprint
    fails(f"voc:{tmp_path}?year=2010", r"no folder VOC2010; .*VOC2012")


def test_sizes_of_nought_are_not_believed_and_wrong_ones_are_bad(year):
    annotate(year, "train_0", OBJECTS, width=0, height=0)
    assert open_dataset(f"voc:{year}")[0][0].shape == (3, 20, 24)
    annotate(year, "train_0", OBJECTS, width=100, height=20)
    with pytest.raises(Exception, match=r"train_0\.jpg: is 24×20, its annotations are for 100×20"):
        open_dataset(f"voc:{year}")[0]


def test_a_changed_annotation_changes_the_fingerprint(year):
    before = open_dataset(f"voc:{year}").fingerprint
    annotate(year, "train_0", [("car", (6, 7, 15, 15), 0)])
    assert open_dataset(f"voc:{year}").fingerprint != before


def test_whatever_is_missing_or_malformed_is_named(year, tmp_path):
    spec = f"voc:{year}"
    fails(f"{spec}?train=trian", r"train=trian: no such list .*did you mean 'train'")
    fails(f"{spec}?sets=Layout", "sets=Layout")
    fails(f"{spec}?classes=unicorn", "no class 'unicorn'")
    fails(f"{spec}?ignore=256", "ignore=256")
    fails(f"{spec}?ignore=7", "ignore=7 is the number of class 'car'")
    file = year / "Annotations" / "val_2.xml"
    sound = file.read_text()
    for text, match in (
        (sound.replace("</annotation>", ""), r"val_2\.xml: not well-formed XML"),
        (sound.replace("<xmin>6</xmin>", "<xmin>six</xmin>"), r"val_2\.xml: object 1: expected numbers"),
        (sound.replace("<xmin>6</xmin>", ""), r"val_2\.xml: object 1: expected numbers"),
        (sound.replace("<name>car</name>", ""), r"val_2\.xml: object 1 has no name"),
        (sound.replace("<width>24", "<width>wide"), r"val_2\.xml: expected numbers in size"),
        (sound.replace("<width>24", "<width>inf"), r"val_2\.xml: expected numbers in size"),
        (sound.replace("<xmin>6</xmin>", "<xmin>nan</xmin>"), r"val_2\.xml: object 1: expected numbers"),
        (sound.replace("<xmax>15</xmax>", "<xmax>1e999</xmax>"), r"val_2\.xml: object 1: expected numbers"),
        (f"<?xml version='1.0' encoding='gbk'?>{sound}", r"val_2\.xml: not well-formed XML: multi-byte"),
        (f"<?xml version='1.0' encoding='nosuch'?>{sound}", r"val_2\.xml: not well-formed XML: unknown encoding"),
    ):
        file.write_text(text)
        fails(spec, match)
    file.unlink()
    fails(spec, r"Annotations/val_2\.xml: No such file")
    os.mkfifo(file)
    fails(spec, r"Annotations/val_2\.xml: not a regular file")
    file.unlink()
    file.write_text(sound)
    (year / "JPEGImages" / "test_1.jpg").unlink()
    fails(spec, r"JPEGImages/test_1\.jpg is missing, but .*test\.txt lists it")
    dataset_samples.write(tmp_path / "prose.txt", "these are my pictures\n")
    fails(f"{spec}?train={tmp_path / 'prose.txt'}", r"prose\.txt, line 1")
    dataset_samples.write(tmp_path / "none.txt", "\n")
    fails(f"{spec}?train={tmp_path / 'none.txt'}", r"none\.txt lists no picture")


def test_the_real_layout_opens_with_everything():
    if not (root := os.environ.get("PRETEXT_TEST_DATA")):
        pytest.skip("PRETEXT_TEST_DATA names no folder of real photographs")
    folder = Path(root) / "voc-mini" / "VOCdevkit"
    data = open_dataset(f"voc:{folder}")
    assert {name: len(part) for name, part in data.splits.items()} == {"train": 72, "val": 25, "test": 100}
    assert data.annotations == {"labels", "boxes", "masks"} and data.classes == CLASSES
    for part in data.splits.values():
        for index in range(0, len(part), 5):
            image, target = part[index]
            tree = ElementTree.parse(folder / "VOC2007" / "Annotations" / f"{Path(part.images[index]).stem}.xml")
            names = [entry.text for entry in tree.findall("object/name")]
            assert [CLASSES[label] for label in target["labels"]] == names
            edges = [int(entry.text) - 1 for entry in tree.iter("xmin")]
            assert target["boxes"][:, 0].tolist() == edges
            shown = set(target["masks"].unique().tolist()) - {0, 255}
            assert shown <= {int(label) + 1 for label in target["labels"]}
            assert image.shape[1:] == target["masks"].shape
    segmented = open_dataset(f"voc:{folder}?sets=Segmentation")
    assert all(bool((target["masks"] != 255).any()) for _, target in torch.utils.data.Subset(segmented, range(10)))


@pytest.mark.parametrize("below", [".", "VOCdevkit", "VOCtrainval_06-Nov-2007/VOCdevkit", "archive/VOCdevkit"])
def test_a_devkit_is_found_below_the_folder_that_holds_it(tmp_path, below):
    dataset_samples.make("voc", tmp_path / below)
    (tmp_path / "results").mkdir()
    data, direct = (open_dataset(f"voc:{folder}") for folder in (tmp_path, tmp_path / below / "VOC2007"))
    assert {name: part.fingerprint for name, part in data.splits.items()} == {
        name: part.fingerprint for name, part in direct.splits.items()
    }
    assert fitting_kind(tmp_path) == "voc"
    fails(str(tmp_path), f"write voc:{tmp_path}$")
    fails(f"coco:{tmp_path}", f"no JSON file in .*; voc:{tmp_path} fits what lies there")


def test_of_several_devkits_none_is_taken(tmp_path):
    for name in ("VOCtrainval_06-Nov-2007", "VOCtest_06-Nov-2007"):
        dataset_samples.make("voc", tmp_path / name / "VOCdevkit")
    one, other = (tmp_path / name / "VOCdevkit" for name in ("VOCtest_06-Nov-2007", "VOCtrainval_06-Nov-2007"))
    fails(f"voc:{tmp_path}", f"several folders hold VOCyyyy folders; choose voc:{one} or voc:{other}")


def test_a_folder_inside_a_year_is_answered_by_the_year(year):
    (year / "Annotations" / "none").mkdir()
    fails(f"voc:{year / 'Annotations' / 'none'}", "give a VOCdevkit folder")
    fails(f"voc:{year / 'JPEGImages'}", f"give voc:{year}, or the folder of both")


def test_a_path_alone_is_answered_by_the_only_folder_in_it_that_has_annotations(tmp_path):
    dataset_samples.make("coco", tmp_path / "all" / "drone")
    (tmp_path / "all" / "papers").mkdir()
    fails(str(tmp_path / "all"), f"write coco:{tmp_path / 'all' / 'drone'}$")
    fails(f"coco:{tmp_path / 'all'}", f"coco:{tmp_path / 'all' / 'drone'} fits what lies there")
    dataset_samples.make("coco", tmp_path / "all" / "street")
    fails(str(tmp_path / "all"), f"write folder:{tmp_path / 'all'}$")

"""`voc:DIR` without ImageSets: XML files beside pictures or in a folder of their own, with and without splits."""

from __future__ import annotations

import pytest
from dataset_samples import fails, pixels, save, voc_xml, write

from pretext.datasets import open_dataset
from pretext.datasets.layouts import fitting_kind

BOX = (6, 7, 15, 14)


def pair(pictures, annotations, name, number=0, kind="tram"):
    save(pictures / f"{name}.jpg", pixels(3, number))
    write(annotations / f"{name}.xml", voc_xml([(kind, BOX, 0)]))


@pytest.mark.parametrize(
    ("xml", "pictures"),
    [(".", "."), ("Annotations", "JPEGImages"), ("annotations", "images"), (".", "images"), ("Annotations", ".")],
)
@pytest.mark.parametrize("splits", [("train", "valid", "test"), ("train", "val"), ("",)])
def test_xml_files_are_found_beside_pictures_or_in_a_folder_of_their_own(tmp_path, xml, pictures, splits):
    for place, split in enumerate(splits):
        for number in range(8):
            name = f"my photo {number}.v{place}"
            folder = tmp_path / split
            pair(folder / pictures, folder / xml, name, 10 * place + number, ("tram", "brush")[number % 2])
    assert fitting_kind(tmp_path) == "voc"
    data = open_dataset(f"voc:{tmp_path}")
    assert data.classes == ("brush", "tram") and data.annotations == {"labels", "boxes"}
    given = {3: [8, 8, 8], 2: [7, 1, 8], 1: [5, 1, 2]}[len(splits)]
    assert [len(data.split(name)) for name in ("train", "val", "test")] == given
    for part in data.splits.values():
        for _, target in part:
            assert target["boxes"].tolist() == [[5, 6, 15, 14]]


def test_a_picture_without_an_xml_file_is_left_out_and_said(tmp_path):
    for number in range(6):
        pair(tmp_path, tmp_path, f"{number}", number)
    save(tmp_path / "bare.jpg", pixels(3, 9))
    data = open_dataset(f"voc:{tmp_path}")
    assert sum(map(len, data.splits.values())) == 6
    assert any("1 pictures in train have no XML file and are left out: bare.jpg." in note for note in data.notes)
    write(tmp_path / "7.xml", voc_xml([("tram", BOX, 0)]))
    fails(f"voc:{tmp_path}", r"7\.xml has no picture: 7\.jpg is missing")


def test_a_split_folder_without_xml_files_is_said_or_refused(tmp_path):
    for number in range(6):
        pair(tmp_path / "train", tmp_path / "train", f"{number}", number)
        save(tmp_path / "test" / f"{number}.jpg", pixels(3, 20 + number))
    data = open_dataset(f"voc:{tmp_path}")
    assert any("No picture in the folder test has an XML file: it is not used." in note for note in data.notes)
    assert sum(map(len, data.splits.values())) == 6
    fails(f"voc:{tmp_path}?test=test", "no lists in ImageSets.*in .*test no XML files")
    fails(f"voc:{tmp_path}?train=trian", "train=trian: no such folder; did you mean 'train'")
    fails(f"voc:{tmp_path}?sets=Segmentation", "no ImageSets folder")


def test_masks_lie_in_their_usual_folder(tmp_path):
    for number in range(6):
        pair(tmp_path / "JPEGImages", tmp_path / "Annotations", f"{number}", number)
        save(tmp_path / "SegmentationClass" / f"{number}.png", pixels(3, number)[..., 0] // 255)
    data = open_dataset(f"voc:{tmp_path}")
    assert "masks" in data.annotations and data[0][1]["masks"].unique().tolist() == [0, 1]


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_lists_may_lie_in_imagesets_itself(tmp_path, val):
    for number in range(6):
        pair(tmp_path / "JPEGImages", tmp_path / "Annotations", f"{number}", number)
    write(tmp_path / "ImageSets" / "train.txt", "0\n1\n2\n")
    write(tmp_path / "ImageSets" / f"{val}.txt", "3\n4\n")
    write(tmp_path / "ImageSets" / "test.txt", "5\n")
    data = open_dataset(f"voc:{tmp_path}")
    assert [len(part) for part in data.splits.values()] == [3, 2, 1]
    fails(f"voc:{tmp_path}?train=trian", "train=trian: no such list in ImageSets; did you mean 'train'")
    fails(f"voc:{tmp_path}?sets=Main2", "sets=Main2: no such folder in ImageSets")

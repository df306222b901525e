"""Boxes with swapped corners, without an area or outside their picture: the class stays, and a note names the file."""

from __future__ import annotations

import json

import dataset_samples
import pytest
import torch

from pretext.datasets import at_size, open_dataset
from pretext.datasets.classification import class_targets

BOXES = {
    "swapped": ((15, 6, 5, 14), [5, 6, 15, 14]),
    "empty": ((15, 6, 15, 14), [15, 6, 16, 14]),
    "outside": ((40, 6, 50, 14), [23, 6, 24, 14]),
}
"""The box as it is written, from its first pixel to after its last, and as it must be read."""
CASES = [("voc", "swapped"), ("voc", "outside"), *(("coco", fault) for fault in BOXES)]


def with_fault(kind, root, given):
    spec = dataset_samples.make(kind, root)
    x0, y0, x1, y1 = given
    if kind == "voc":  # counts from 1, and the maximum is the last pixel; so no box is empty
        x0, x1 = (x0 + 1, x1) if x0 < x1 else (x0, x1 + 1)
        for split in ("train", "val", "test"):
            for number in range(0, 6, 2):
                file = root / "VOC2007" / "Annotations" / f"{split}_{number}.xml"
                dataset_samples.write(file, dataset_samples.voc_xml([("car", (x0, y0 + 1, x1, y1), 0)]))
    else:
        for file in (root / "annotations").iterdir():
            content = json.loads(file.read_text())
            for entry in content["annotations"][::2]:
                entry.update(bbox=[x0, y0, x1 - x0, y1 - y0], segmentation=[])  # an outline would give the box
            file.write_text(json.dumps(content))
    return spec


@pytest.mark.parametrize(("kind", "fault"), CASES)
def test_a_faulty_box_leaves_the_class_and_is_noted(kind, fault, tmp_path):
    sound = open_dataset(dataset_samples.make(kind, tmp_path / "sound"))
    given, meant = BOXES[fault]
    data = open_dataset(with_fault(kind, tmp_path / "faulty", given))
    assert [note for note in data.notes if "of 6 pictures in train" in note and "0" in note and fault in note]
    assert data[0][1]["boxes"].tolist() == [meant] and data[1][1]["boxes"].tolist() == [[5, 6, 15, 14]]
    assert torch.equal(class_targets(data), class_targets(sound))


@pytest.mark.parametrize(("kind", "fault"), CASES)
@pytest.mark.parametrize("size_known", [True, False])
def test_faulty_boxes_are_equal_packed_and_streamed(kind, fault, size_known, tmp_path, monkeypatch):
    spec = with_fault(kind, tmp_path, BOXES[fault][0])
    if not size_known:
        for file in [*tmp_path.rglob("*.xml"), *tmp_path.rglob("*.json")]:
            file.write_text(file.read_text().replace("<width>24", "<width>0").replace('"width": 24', '"width": 0'))
    packed = at_size(open_dataset(spec), 8, bad_images="stop")
    monkeypatch.setenv("PRETEXT_PACK_GB", "0")
    streamed = at_size(open_dataset(spec), 8, bad_images="stop")
    assert type(packed) is not type(streamed) and torch.equal(class_targets(packed), class_targets(streamed))
    for (image, target), (other, other_target) in zip(packed, streamed, strict=True):
        assert torch.equal(image, other) and list(target) == list(other_target)
        assert all(torch.equal(value, other_target[name]) for name, value in target.items())

"""Class colours are distinct with any colour vision, and text on them is legible."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from colour_samples import EYES, seen
from PIL import Image, ImageColor, ImageDraw

from downstream.metrics import Detections, Truth, coco_by_class
from downstream.sheets import CELL, HIT, IGNORED, MISS, Found, detection_sheet, hits, lines_of, shown_of
from pretext.datasets.drawing import PALETTE, class_colour


@pytest.mark.parametrize("eye", EYES)
def test_class_colours_are_distinct_to_every_eye(eye):
    lab = seen([*PALETTE, (0, 0, 0), (255, 255, 255)], eye)  # background and ignored pixels
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(len(lab), 1)]
    assert distances.min() > 13  # 2.3 is the just noticeable difference


def test_more_classes_than_colours_begin_anew():
    assert len(set(PALETTE)) == len(PALETTE) >= 20  # VOC's
    assert class_colour(len(PALETTE) + 3) == class_colour(3)


@pytest.mark.parametrize("colour", PALETTE)
def test_names_can_be_read_on_every_colour(colour):
    from pretext.datasets.drawing import _legible_on

    def luminance(rgb):
        values = np.asarray(rgb) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    dot = Image.new("RGB", (1, 1))
    ImageDraw.Draw(dot).point((0, 0), fill=_legible_on(colour))
    dark, light = sorted([luminance(colour), luminance(dot.getpixel((0, 0)))])
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def one_found(boxes, labels, scores, truth=((2, 8, 6, 12), (10, 8, 14, 12)), classes=(0, 1), difficult=()):
    hard = np.isin(np.arange(len(truth)), difficult)
    true = Truth(np.array(truth, np.float32).reshape(-1, 4), np.array(classes, np.int64), hard)
    detections = Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(scores, np.float32)
    )
    return Found(torch.full((3, 32, 32), 128, dtype=torch.uint8), true, detections)


def test_a_detection_hits_an_object_of_its_class_once():
    same, near, far = (2, 8, 6, 12), (2, 8, 6, 11.9), (20, 20, 24, 24)
    found = one_found([same, near, far, (10, 8, 14, 12), (10, 8, 14, 12)], [0, 0, 0, 0, 1], [0.9, 0.8, 0.7, 0.6, 0.5])
    assert hits(found, np.arange(5)) == [True, False, False, False, True]
    assert hits(found, np.array([1, 0])) == [True, False]  # the better one takes the object
    assert hits(one_found([same], [0], [0.9], truth=(), classes=()), np.arange(1)) == [False]


def test_a_detection_is_ignored_where_ap50_ignores_it():
    """AP50 is 100 where every detection but the ignored ones hits, wherever those stand in the order."""
    hard, plain, inside, beside = (2, 8, 6, 12), (10, 8, 14, 12), (2, 8, 5, 11), (4.5, 8, 8.5, 12)
    for box, expected in ((hard, None), (inside, None), (beside, False), (plain, True)):
        found = one_found([box, plain, hard], [0, 0, 1], [0.9, 0.8, 0.7], (hard, plain), (0, 0), difficult=[0])
        ap50 = coco_by_class([found.truth], [found.detections], num_classes=2)[0, 1]
        verdict = hits(found, np.arange(3))
        assert verdict == [expected, box != plain, False]
        if box != plain:
            assert (ap50 == pytest.approx(100)) == (expected is None)
    nothing_else = one_found([hard, hard], [0, 0], [0.9, 0.8], (hard,), (0,), difficult=[0])
    assert hits(nothing_else, np.arange(2)) == [None, None]


def test_difficult_objects_do_not_count_on_a_sheet(tmp_path):
    boxes = [(2, 8, 6, 12), (10, 18, 14, 22), (18, 8, 22, 12), (18, 18, 22, 22)]
    found = one_found(boxes, [0, 1, 1, 1], [0.9, 0.8, 0.7, 0.6], difficult=[0])
    detection_sheet(tmp_path / "sheet.png", [found], ("a", "b"))
    with Image.open(tmp_path / "sheet.png") as sheet:
        _, (drawn,) = lines_of(sheet.convert("RGB"), kinds=2)

    def has(box, colour):
        left, top, right, lower = (int(each * CELL / 32) for each in box)
        inside = np.asarray(drawn)[top:lower, left:right]
        return bool((inside == ImageColor.getrgb(colour)).all(axis=-1).any())

    assert has(boxes[0], IGNORED) and not has(boxes[0], HIT) and not has(boxes[0], MISS)
    assert [has(box, MISS) for box in boxes[1:]] == [True, True, False]  # one object and two more


def test_two_more_detections_than_objects_are_drawn_and_hits_differ_from_misses(tmp_path):
    boxes = [(2, 8, 6, 12), (10, 18, 14, 22), (18, 8, 22, 12), (18, 18, 22, 22), (26, 8, 30, 12)]
    detection_sheet(tmp_path / "sheet.png", [one_found(boxes, [0, 1, 1, 1, 1], [0.9, 0.8, 0.7, 0.6, 0.5])], ("a", "b"))
    with Image.open(tmp_path / "sheet.png") as sheet:
        (truth,), (drawn,) = lines_of(sheet.convert("RGB"), kinds=2)
        with pytest.raises(ValueError, match="not a sheet of 3 kinds"):
            lines_of(sheet, kinds=3)
    scale = CELL / 32

    def of_frame(picture, box, colour):
        """Return the share of the lower edge of a box that has a colour."""
        left, _, right, lower = (int(each * scale) for each in box)
        edge = np.asarray(picture)[lower - 4 : lower + 2, left:right]
        return float((edge == ImageColor.getrgb(colour)).all(axis=-1).any(axis=0).mean())

    assert of_frame(drawn, boxes[0], HIT) > 0.9 and of_frame(drawn, boxes[0], MISS) == 0
    for box in boxes[1:4]:
        assert 0.3 < of_frame(drawn, box, MISS) < 0.8 and of_frame(drawn, box, HIT) == 0  # dashes
    assert of_frame(drawn, boxes[4], MISS) == 0  # two objects and two more
    assert of_frame(truth, boxes[0], "#{:02x}{:02x}{:02x}".format(*PALETTE[0])) > 0.9


def test_a_sheet_shows_images_drawn_once_from_all_that_are_tested():
    assert shown_of(5, 12).tolist() == [0, 1, 2, 3, 4]
    drawn = shown_of(500, 12).tolist()
    assert drawn == sorted(set(drawn)) and len(drawn) == 12 and drawn[-1] > 250


def test_a_box_thinner_than_a_pixel_of_the_sheet_is_drawn(tmp_path):
    boxes = np.array([[0.0, 31.95, 16.0, 31.97], [3.99, 4.0, 4.0, 20.0]], np.float32)
    empty = Truth(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
    found = Detections(boxes, np.zeros(2, np.int64), np.ones(2, np.float32))
    grey = torch.full((3, 32, 32), 128, dtype=torch.uint8)
    detection_sheet(tmp_path / "sheet.png", [Found(grey, empty, found)], ("a",))
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert len(sheet.convert("RGB").getcolors(1 << 20)) > 2  # more than the image and the background

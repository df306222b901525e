"""Class colours are distinct with any colour vision, and text on them is legible."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from colour_samples import EYES, seen
from PIL import Image, ImageDraw

from downstream.metrics import Detections, Truth
from downstream.sheets import CELL, GAP, HEADING, Found, detection_sheet
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


@pytest.mark.parametrize(
    ("scores", "drawn"), [([], []), ([0.05, 0.1], [1]), ([0.1, 0.5, 0.4], [1, 2]), ([0.9, 0.2], [0])]
)
def test_the_best_detection_and_others_above_the_minimum_score_are_drawn(tmp_path, scores, drawn):
    boxes = np.array([[2, 8, 6, 12], [10, 8, 14, 12], [18, 8, 22, 12]], np.float32)[: len(scores)]
    truth = Truth(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
    found = Detections(boxes, np.arange(len(scores)), np.array(scores, np.float32))
    grey = torch.full((3, 32, 32), 128, dtype=torch.uint8)
    detection_sheet(tmp_path / "sheet.png", [Found(grey, truth, found)], ("a", "b", "c"))
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    top, scale = CELL + HEADING + GAP + HEADING, CELL / 32  # of the second row's image
    lower_edges = [pixels[top + int(12 * scale) - 1, GAP + int((x1 + 2) * scale)].tolist() for x1, *_ in boxes]
    assert [i for i, colour in enumerate(lower_edges) if colour == list(PALETTE[i])] == drawn


def test_a_box_thinner_than_a_pixel_of_the_sheet_is_drawn(tmp_path):
    boxes = np.array([[0.0, 31.95, 16.0, 31.97], [3.99, 4.0, 4.0, 20.0]], np.float32)
    empty = Truth(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
    found = Detections(boxes, np.zeros(2, np.int64), np.ones(2, np.float32))
    grey = torch.full((3, 32, 32), 128, dtype=torch.uint8)
    detection_sheet(tmp_path / "sheet.png", [Found(grey, empty, found)], ("a",))
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert len(sheet.convert("RGB").getcolors(1 << 20)) > 2  # more than the image and the background

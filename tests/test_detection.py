from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from downstream.detector import ANCHOR_SIDES, RATIOS, DetectionHead, stages_for
from downstream.fitting import batches, draw, flip_some
from downstream.metrics import coco_ap, voc07_map
from downstream.probes.detection import Detection
from pretext.datasets.base import ImageDataset
from pretext.encoders import build_encoder
from pretext.errors import UserError
from pretext.judging import Score

SIZE = 32
COLOURS = torch.tensor([[230, 20, 20], [20, 20, 230]], dtype=torch.uint8)


class Squares(ImageDataset):
    """Squares of one colour a class on noise: what the smallest network can find."""

    classes = ("red", "blue", "never")
    annotations = frozenset({"labels", "boxes"})

    def __init__(self, seed, count, *, boxes=True, difficult=False):
        self.spec, self.seed, self.count = "squares", seed, count
        self.boxes, self.difficult = boxes, difficult

    def __len__(self):
        return self.count

    @property
    def fingerprint(self):
        return f"{self.seed:02d}{self.count:04d}{int(self.boxes)}{int(self.difficult)}" * 8

    def __getitem__(self, index):
        rng = np.random.default_rng((self.seed, index))
        image = torch.from_numpy(rng.integers(90, 160, (3, SIZE, SIZE), dtype=np.uint8))
        boxes, labels = [], []
        for left in (0, 16):
            if not self.boxes or rng.random() < 0.3:  # some pictures stay empty
                continue
            side, x, y = rng.integers(10, 15), left + rng.integers(0, 2), rng.integers(0, 17)
            labels.append(int(rng.integers(2)))
            boxes.append([x, y, x + side, y + side])
            image[:, y : y + side, x : x + side] = COLOURS[labels[-1]][:, None, None]
        return image, {
            "labels": torch.tensor(labels, dtype=torch.int64),
            "boxes": tv_tensors.BoundingBoxes(
                torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                format="XYXY",
                canvas_size=(SIZE, SIZE),
            ),
            "difficult": torch.full((len(labels),), self.difficult),
        }


def squares(train=None, test=None):
    train, test = train or Squares(1, 80), test or Squares(2, 40)
    train.splits = test.splits = {"train": train, "val": test, "test": test}
    return train


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRETEXT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def encoder():
    return build_encoder("alexnet?width=0.125&stem_stride=2", input_size=SIZE, seed=0)


QUICK = Detection(train_images=24, test_images=10, steps=3, batch_size=4)


def by_metric(scores):
    return {score.metric: score.value for score in scores}


def test_the_detector_finds_what_it_was_taught(encoder, tmp_path):
    scores = list(Detection(train_images=0, steps=120).evaluate(encoder, squares(), tmp_path / "out"))
    assert [score.metric for score in scores] == ["AP50", "AP", "AP75", "VOC07 mAP"]
    assert [score.headline for score in scores] == [True, False, False, False]
    assert all(isinstance(score, Score) and score.n == 40 and score.items is None for score in scores)
    values = by_metric(scores)
    assert values["AP50"] > 60 and values["VOC07 mAP"] > 60
    assert values["AP50"] >= values["AP"]
    curve = json.loads((tmp_path / "out" / "curve.json").read_text())["loss"]
    assert len(curve) == 120 and np.mean(curve[-20:]) < 0.6 * np.mean(curve[:20])
    with Image.open(tmp_path / "out" / "detections.png") as sheet:
        assert sheet.width > 1000


def test_same_seed_same_numbers_whatever_was_drawn_before(encoder):
    first = list(QUICK.evaluate(encoder, squares()))
    torch.rand(7)
    assert list(QUICK.evaluate(encoder, squares())) == first


def test_torchs_own_generator_is_left_alone(encoder):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    list(QUICK.evaluate(encoder, squares()))
    assert torch.equal(torch.rand(2), expected)


def test_the_encoder_is_left_as_it_was(encoder):
    before, training = copy.deepcopy(encoder.state_dict()), encoder.training
    list(QUICK.evaluate(encoder, squares()))
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert encoder.training == training and all(p.requires_grad for p in encoder.parameters())


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_leaves_the_trained_copy_alone_too(encoder, frozen):
    inside = copy.deepcopy(encoder)
    dataclasses.replace(QUICK, frozen=frozen)._train(inside, squares(), stages=[4, 5])
    same = [torch.equal(a, b) for a, b in zip(inside.state_dict().values(), encoder.state_dict().values(), strict=True)]
    assert all(same) == frozen


def test_no_object_to_learn_from_is_an_error(encoder):
    for train in (Squares(1, 8, boxes=False), Squares(1, 8, difficult=True)):
        with pytest.raises(UserError, match="none of 8 training pictures has an object"):
            list(QUICK.evaluate(encoder, squares(train)))


def test_no_object_to_find_is_an_error(encoder):
    with pytest.raises(UserError, match="no object to find in 10 test pictures"):
        list(QUICK.evaluate(encoder, squares(test=Squares(2, 20, difficult=True))))


def test_data_without_boxes_is_an_error(encoder):
    data = squares()
    data.annotations = frozenset({"labels"})
    assert not QUICK.can_judge(data)
    with pytest.raises(UserError, match="this needs boxes"):
        list(QUICK.evaluate(encoder, data))


def test_a_loss_that_is_not_finite_is_an_error(encoder):
    with torch.no_grad():
        next(encoder.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="the loss is nan at step 1 of 3"):
        list(QUICK.evaluate(encoder, squares()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"train_images": -1},
        {"learning_rate": 0.0},
        {"encoder_learning_rate_factor": 1.5},
        {"cells": 0},
        {"hidden": 0},
    ],
)
def test_fields_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)) + " is .*; allowed is"):
        Detection(**wrong)


def test_the_true_boxes_score_100(encoder):
    probe, data = QUICK, squares()

    class Oracle(torch.nn.Module):
        start = 0

        def forward(self, features, images):
            targets = [data.split("test")[self.start + i][1] for i in range(len(images))]
            self.start += len(images)
            return [
                {"boxes": t["boxes"], "labels": t["labels"] + 1, "scores": torch.ones(len(t["labels"]))}
                for t in targets
            ], {}

    found = list(probe._detect(encoder.eval(), Oracle(), data.split("test"), np.arange(40), [4]))
    truths, detections = [f.truth for f in found], [f.detections for f in found]
    assert coco_ap(truths, detections, num_classes=3) == pytest.approx((100, 100, 100))
    assert voc07_map(truths, detections, num_classes=3) == pytest.approx(100)


@pytest.mark.parametrize("side", [32, 64, 227])
def test_anchors_are_in_proportion_to_the_picture(side):
    head = DetectionHead([4], width=8, hidden=8, num_classes=2).eval()
    with torch.no_grad():
        head([torch.rand(1, 4, 5, 5)], torch.zeros(1, 3, side, side))
    (anchors,) = head.rpn.anchor_generator.cell_anchors
    sides = (anchors[:, 2:] - anchors[:, :2]).double()
    assert len(anchors) == len(ANCHOR_SIDES) * len(RATIOS)
    expected = sorted(share * side for share in ANCHOR_SIDES for _ in RATIOS)
    np.testing.assert_allclose(sorted(sides.prod(dim=1).sqrt().tolist()), expected, rtol=1e-5)
    ratios = sorted((sides[:, 1] / sides[:, 0]).tolist())
    np.testing.assert_allclose(ratios, sorted(list(RATIOS) * len(ANCHOR_SIDES)), rtol=1e-5)
    assert torch.allclose(anchors[:, :2], -anchors[:, 2:])  # centred


def test_the_deepest_map_with_enough_cells_and_the_coarser_ones_are_read():
    names = {}
    for size in (32, 48, 64):
        encoder = build_encoder("alexnet?width=0.125&stem_stride=2", input_size=size, seed=0)
        names[size] = [encoder.stages[i].name for i in stages_for(encoder, cells=8)]
    assert names == {32: ["conv2", "conv5", "pool5"], 48: ["conv2", "conv5", "pool5"], 64: ["conv5", "pool5"]}
    assert stages_for(encoder, cells=1000) == [0, 1, 4, 5]


def test_flipping_moves_picture_boxes_and_mask_together():
    torch.manual_seed(0)
    image = torch.zeros(8, 3, 10, 10, dtype=torch.uint8)
    image[:, :, 2:5, 1:4] = 255
    targets = [
        {
            "boxes": tv_tensors.BoundingBoxes([[1.0, 2, 4, 5]], format="XYXY", canvas_size=(10, 10)),
            "masks": tv_tensors.Mask(image[0, 0] // 255),
        }
        for _ in image
    ]
    flipped = flip_some(image, targets)
    lefts = set()
    for picture, target in zip(flipped, targets, strict=True):
        x1, y1, x2, y2 = target["boxes"][0].int().tolist()
        assert (picture[:, y1:y2, x1:x2] == 255).all() and picture.sum() == image[0].sum()
        assert torch.equal(target["masks"] * 255, picture[0])
        lefts.add(x1)
    assert lefts == {1, 6}


def test_every_pass_sees_every_picture_once():
    indices = draw(Squares(0, 50), 10, seed=0)
    assert set(indices) < set(draw(Squares(0, 50), 20, seed=0))
    seen = np.concatenate(list(batches(indices, 4, 5, seed=1)))
    assert sorted(seen[:10]) == sorted(seen[10:]) == sorted(indices)
    assert len(draw(Squares(0, 50), 0, seed=0)) == 50

from __future__ import annotations

import copy
import csv
import dataclasses
import json

import numpy as np
import pytest
import torch
from detection_samples import SIZE, Squares, squares
from PIL import Image
from torchvision import tv_tensors
from torchvision.models.detection.image_list import ImageList

from downstream.detector import (
    LARGE,
    LARGEST,
    RATIOS,
    SCALES,
    SMALL,
    SMALLEST,
    Anchors,
    DetectionHead,
    levels_of,
    stages_for,
)
from downstream.metrics import Detections, Truth, coco_by_class, voc07_by_class
from downstream.probes.detection import Detection
from downstream.reading import batches, draw, flip_some
from pretext.datasets import at_size
from pretext.datasets.base import BadImage
from pretext.datasets.splitting import Subset
from pretext.encoders import build_encoder
from pretext.judging import Score
from pretext.system.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def encoder():
    return build_encoder("alexnet?width=0.125&stem_stride=2", input_size=SIZE, seed=0)


QUICK = Detection(train_images=24, test_images=10, steps=3, batch_size=4)


def by_metric(scores):
    return {score.metric: score.value for score in scores}


@pytest.mark.slow
def test_the_detector_learns_to_find_objects(encoder, tmp_path):
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
    with (tmp_path / "out" / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    objects = [label for i in range(40) for label in Squares(2, 40)[i][1]["labels"].tolist()]
    assert [row["class"] for row in rows] == ["red", "blue", "never"]
    assert [int(row["objects"]) for row in rows] == [objects.count(k) for k in range(3)]
    for metric, value in values.items():
        assert np.mean([float(row[metric]) for row in rows[:2]]) == pytest.approx(value, abs=0.01)
        assert rows[2][metric] == ""


@pytest.mark.slow
def test_the_detector_with_a_pyramid_learns_to_find_objects(encoder):
    values = by_metric(Detection(train_images=0, steps=120, neck="fpn").evaluate(encoder, squares()))
    assert values["AP50"] > 60 and values["VOC07 mAP"] > 60


@pytest.mark.parametrize(
    "settings",
    [{"neck": "fpn"}, {"proposals": "selective_search"}, {"neck": "fpn", "proposals": "selective_search"}],
    ids=["pyramid", "given", "both"],
)
def test_every_kind_of_detector_is_deterministic_and_accepts_images_without_objects(encoder, settings):
    probe = dataclasses.replace(QUICK, train_images=1, batch_size=1, **settings)
    mixed = Squares(1, 12)
    empty = next(i for i in range(12) if not len(mixed[i][1]["labels"]))
    full = next(i for i in range(12) if len(mixed[i][1]["labels"]))
    first = list(probe.evaluate(encoder, squares(Subset(mixed, [full]), Subset(mixed, [empty, full, full]))))
    assert first == list(probe.evaluate(encoder, squares(Subset(mixed, [full]), Subset(mixed, [empty, full, full]))))
    probe = dataclasses.replace(probe, train_images=0)
    pictures = squares(Subset(mixed, [empty, full]), Subset(mixed, [empty, full]))
    assert all(np.isfinite(score.value) for score in probe.evaluate(encoder, pictures))


@pytest.mark.parametrize("neck", ["single", "fpn"])
def test_batches_without_any_proposal_are_trained_on_and_tested(encoder, monkeypatch, tmp_path, neck):
    nothing = {i: torch.zeros(0, 4) for i in range(24)}
    monkeypatch.setattr("downstream.probes.detection.proposals_for", lambda *_, **__: nothing)
    probe = dataclasses.replace(QUICK, batch_size=1, steps=24, neck=neck, proposals="none.npz")
    scores = by_metric(probe.evaluate(encoder, squares(Squares(1, 24), Squares(2, 12)), tmp_path))
    losses = json.loads((tmp_path / "curve.json").read_text())["loss"]
    assert scores["AP50"] == 0 and np.isfinite(losses).all() and 0 in losses and max(losses) > 0


@pytest.mark.slow
def test_a_class_missing_in_train_scores_0_and_counts(encoder, tmp_path):
    class Red(Squares):
        def __getitem__(self, index):
            image, target = super().__getitem__(index)
            kept = target["labels"] == 0
            boxes = tv_tensors.wrap(target["boxes"][kept], like=target["boxes"])
            return image, {"labels": target["labels"][kept], "boxes": boxes}

    list(dataclasses.replace(QUICK, train_images=0, steps=60).evaluate(encoder, squares(Red(1, 80)), tmp_path))
    with (tmp_path / "per_class.csv").open() as file:
        red, blue, _ = csv.DictReader(file)
    assert float(red["AP50"]) > 30 > 5 > float(blue["AP50"])
    assert int(blue["objects"]) > 0


def test_same_seed_same_numbers_whatever_was_drawn_before(encoder):
    first = list(QUICK.evaluate(encoder, squares()))
    torch.rand(7)
    assert list(QUICK.evaluate(encoder, squares())) == first


class Fixed(Squares):
    """One red square per image, at one place in a part of the images and at another in the others."""

    def __init__(self, seed, count, moved):
        super().__init__(seed, count)
        self.moved = moved

    @property
    def fingerprint(self):
        return f"{super().fingerprint} {self.moved}"

    def __getitem__(self, index):
        at = 18.0 if index in self.moved else 2.0
        boxes = torch.tensor([[at, at, at + 12, at + 10]])
        target = {
            "labels": torch.tensor([0]),
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(SIZE, SIZE)),
        }
        return torch.zeros(3, SIZE, SIZE, dtype=torch.uint8), target


@pytest.mark.parametrize("moved", [(), (1, 4, 5)])
def test_chance_is_one_box_at_the_median_of_training_in_every_image(encoder, moved):
    data = squares(Fixed(1, 9, (0, 1)), Fixed(2, 10, moved))
    scores = list(Detection(train_images=0, steps=1, batch_size=4).evaluate(encoder, data))
    chance = {score.metric: score.chance for score in scores}
    truth = [Truth(data.splits["test"][i][1]["boxes"].numpy(), np.array([0]), np.array([False])) for i in range(10)]
    box = np.array([[2, 2, 14, 12]], dtype=np.float32)
    same = [Detections(box, np.array([0]), np.array([1.0], dtype=np.float32))] * 10
    expected = np.nanmean(coco_by_class(truth, same, num_classes=3), axis=0)
    assert chance["AP50"] == pytest.approx(expected[1]) and chance["AP"] == pytest.approx(expected[0])
    assert chance["AP50"] == pytest.approx(100) if not moved else 0 < chance["AP50"] < 80
    assert chance["VOC07 mAP"] == pytest.approx(np.nanmean(voc07_by_class(truth, same, num_classes=3)))


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
        with pytest.raises(UserError, match="none of 8 training images has an object"):
            list(QUICK.evaluate(encoder, squares(train)))


def test_a_first_picture_that_cannot_be_decoded_is_passed_over(encoder, monkeypatch):
    monkeypatch.setenv("PRETEXT_PACK_GB", "0")

    class Torn(Squares):
        def __getitem__(self, index):
            if index in draw(self, 0, seed=0)[:2]:
                raise BadImage("torn")
            return super().__getitem__(index)

    scores = list(dataclasses.replace(QUICK, proposals="selective_search").evaluate(encoder, squares(Torn(1, 24))))
    assert all(np.isfinite(score.value) for score in scores)


def test_no_object_to_find_is_an_error(encoder):
    with pytest.raises(UserError, match="no object to find in 10 test images"):
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
        {"most_proposals": 0},
        {"neck": "double"},
        {"proposals": "boxes.json"},
    ],
)
def test_fields_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)) + " is .*; allowed is"):
        Detection(**wrong)


def test_the_true_boxes_score_100(encoder):
    probe, data = QUICK, squares()

    class Oracle(torch.nn.Module):
        start = 0

        def forward(self, features, images, targets, proposals):
            assert targets is None and proposals is None
            targets = [data.split("test")[self.start + i][1] for i in range(len(images))]
            self.start += len(images)
            return [
                {"boxes": t["boxes"], "labels": t["labels"] + 1, "scores": torch.ones(len(t["labels"]))}
                for t in targets
            ], {}

    found = list(probe._detect(encoder.eval(), Oracle(), data.split("test"), np.arange(40), [4]))
    truths, detections = [f.truth for f in found], [f.detections for f in found]
    assert np.nanmean(coco_by_class(truths, detections, num_classes=3), axis=0) == pytest.approx([100, 100, 100])
    assert np.nanmean(voc07_by_class(truths, detections, num_classes=3)) == pytest.approx(100)


def blank(side):
    return ImageList(torch.zeros(2, 3, side, side), [(side, side)] * 2)


@pytest.mark.parametrize("side", [32, 64, 227])
def test_anchors_are_in_proportion_to_the_picture(side):
    first, second = Anchors(1)(blank(side), [torch.zeros(2, 4, 5, 6)])
    assert torch.equal(first, second) and first.shape == (5 * 6 * SCALES * len(RATIOS), 4)
    cells = (first.double() / side).reshape(5, 6, -1, 4)
    sides = cells[..., 2:] - cells[..., :2]
    sizes = SMALLEST * (LARGEST / SMALLEST) ** (np.arange(SCALES) / (SCALES - 1))
    areas = sides.prod(dim=-1).sqrt()[0, 0].tolist()
    np.testing.assert_allclose(sorted(areas), np.repeat(sizes, len(RATIOS)), rtol=1e-5)
    ratios = (sides[..., 1] / sides[..., 0])[0, 0].tolist()
    np.testing.assert_allclose(sorted(ratios), np.repeat(RATIOS, SCALES), rtol=1e-5)
    centres = (cells[..., :2] + cells[..., 2:]) / 2
    np.testing.assert_allclose(centres[..., 0], np.broadcast_to(np.arange(6)[:, None] / 6, (5, 6, 12)), atol=1e-6)
    np.testing.assert_allclose(centres[..., 1], np.broadcast_to(np.arange(5)[:, None, None] / 5, (5, 6, 12)), atol=1e-6)


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 6])
def test_a_pyramids_anchors_grow_from_level_to_level(levels):
    anchors = Anchors(levels)
    each = anchors.num_anchors_per_location()
    assert len(each) == levels and len(set(each)) == 1 and sum(each) >= SCALES * len(RATIOS)
    maps = [torch.zeros(2, 4, 1, 1)] * levels
    boxes = anchors(blank(1), maps)[0].double().reshape(levels, -1, 4)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1).sqrt()
    np.testing.assert_allclose([areas.min(), areas.max()], [SMALLEST, LARGEST], rtol=1e-5)
    assert (areas[1:].amin(dim=1) > areas[:-1].amax(dim=1)).all()


def test_a_box_is_read_from_the_coarsest_level_on_which_it_spans_the_pooled_cells():
    sides = torch.tensor([1.0, 15.9, 16, 20, 31.9, 32, 60, 64, 500])
    boxes = torch.stack([0 * sides, 0 * sides, sides, sides], dim=1)
    levels = levels_of([boxes[:4], boxes[4:]], pooled=4, cells_per_pixel=[1 / 4, 1 / 8, 1 / 16])
    strides = torch.tensor([4, 8, 16])[levels]
    assert strides.tolist() == [4, 4, 4, 4, 4, 8, 8, 16, 16]


@pytest.mark.parametrize(("side", "sizes"), [(64, SMALL), (224, LARGE)])
def test_numbers_of_regions_and_proposals_follow_the_size_of_the_pictures(side, sizes, monkeypatch):
    built = []
    monkeypatch.setattr("downstream.probes.detection.DetectionHead", lambda *_, **named: built.append(named["sizes"]))
    encoder = build_encoder("alexnet?width=0.0625&stem_stride=2", input_size=side, seed=0)
    with pytest.raises(AttributeError):  # there is no head to train
        QUICK._train(encoder, at_size(squares(), side, bad_images="stop", fit="pad"), stages=[4, 5])
    assert built == [sizes]
    head = DetectionHead([2], width=1, hidden=4, num_classes=1, sizes=sizes)
    assert head.rpn.post_nms_top_n() == sizes.proposals and head.rpn.pre_nms_top_n() == sizes.candidates
    pooled = head.pool.side, head.roi_heads.fg_bg_sampler.count
    assert pooled == (sizes.pooled, sizes.sampled_regions) and head.roi_heads.detections_per_img == sizes.detections


@pytest.mark.parametrize("neck", ["single", "fpn"])
def test_every_map_affects_the_neck(neck):
    torch.manual_seed(0)
    head = DetectionHead([3, 4, 5], width=8, hidden=4, num_classes=1, neck=neck).eval()
    maps = [torch.rand(1, channels, side, side) for channels, side in ((3, 8), (4, 4), (5, 2))]
    with torch.no_grad():
        finest = head.neck(maps)[0]
        for i in range(3):
            changed = [m + 1 if i == k else m for k, m in enumerate(maps)]
            assert not torch.allclose(head.neck(changed)[0], finest)


def test_pictures_are_mirrored_in_training(encoder, monkeypatch):
    curves = [QUICK._train(copy.deepcopy(encoder), squares(), stages=[4, 5])[1]]
    monkeypatch.setattr("downstream.probes.detection.flip_some", lambda images, targets: images)
    curves.append(QUICK._train(copy.deepcopy(encoder), squares(), stages=[4, 5])[1])
    assert curves[0] != curves[1]


def test_a_box_is_read_from_where_it_lies_whatever_the_stride():
    """torchvision's own rule would round the stride of 14 px, as some ViTs have, to 16."""
    head = DetectionHead([1], width=1, hidden=4, num_classes=1).eval()
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)  # a cell's value is its column
    head.neck = torch.nn.Identity()
    with torch.no_grad():
        head([ramp], torch.zeros(1, 3, 224, 224))
    pooled = head.pool({"0": ramp}, [torch.tensor([[14.0, 0, 14 * 13, 224]])], [(224, 224)])
    np.testing.assert_allclose(pooled[0, 0, 0], [2.5, 5.5, 8.5, 11.5], rtol=1e-5)


def test_the_deepest_map_with_enough_cells_and_the_coarser_ones_are_read():
    names = {}
    for size in (32, 48, 64):
        encoder = build_encoder("alexnet?width=0.125&stem_stride=2", input_size=size, seed=0)
        names[size] = [encoder.stages[i].name for i in stages_for(encoder, cells=8)]
    assert names == {32: ["conv2", "conv5", "pool5"], 48: ["conv2", "conv5", "pool5"], 64: ["conv5", "pool5"]}
    assert stages_for(encoder, cells=1000) == [0, 1, 4, 5]


def test_flipping_moves_image_boxes_proposals_and_mask_together():
    torch.manual_seed(0)
    image = torch.zeros(8, 3, 10, 10, dtype=torch.uint8)
    image[:, :, 2:5, 1:4] = 255
    targets = [
        {
            "boxes": tv_tensors.BoundingBoxes([[1.0, 2, 4, 5]], format="XYXY", canvas_size=(10, 10)),
            "proposals": tv_tensors.BoundingBoxes([[1.0, 0, 4, 1]], format="XYXY", canvas_size=(10, 10)),
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
        assert target["proposals"][0].tolist() == [x1, 0, x2, 1]
        lefts.add(x1)
    assert lefts == {1, 6}


def test_every_pass_sees_every_picture_once():
    indices = draw(Squares(0, 50), 10, seed=0)
    assert set(indices) < set(draw(Squares(0, 50), 20, seed=0))
    seen = np.concatenate(list(batches(indices, 4, 5, seed=1)))
    assert sorted(seen[:10]) == sorted(seen[10:]) == sorted(indices)
    assert len(draw(Squares(0, 50), 0, seed=0)) == 50

"""Proposals, matches and pooled regions of a whole batch are torchvision's of single images."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import MultiScaleRoIAlign, box_iou

from downstream.detector import Anchors, DetectionHead, levels_of
from downstream.rcnn import BoxHeads, ProposalNetwork, RegionPool, _Sampler, matched

SIDE = 32


def random_boxes(count: int, seed: int, side: float = SIDE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * side * 0.8
    return torch.cat([corners, corners + 1 + torch.rand(count, 2, generator=generator) * side * 0.5], dim=1)


def targets(counts: tuple[int, ...]) -> list[dict[str, torch.Tensor]]:
    return [
        {"boxes": random_boxes(count, 7 + i).clamp(max=SIDE), "labels": torch.arange(count) % 3 + 1}
        for i, count in enumerate(counts)
    ]


@pytest.mark.parametrize("most_weights", [2**24, 1])
@pytest.mark.parametrize("levels", [1, 3])
def test_pooled_regions_and_their_gradients_are_torchvisions(
    levels: int, most_weights: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("downstream.rcnn.MOST_WEIGHTS", most_weights)
    generator = torch.Generator().manual_seed(0)
    sides = (16, 8, 4)[:levels]
    maps = OrderedDict(
        (str(i), torch.randn(3, 5, side, side, generator=generator, dtype=torch.float64, requires_grad=True))
        for i, side in enumerate(sides)
    )
    boxes = [random_boxes(count, count).double() for count in (6, 0, 11)]
    boxes[0][0] = torch.tensor([-9.0, -20.0, 45.0, 3.0])  # beyond the picture on three sides
    boxes[0][1] = torch.tensor([5.0, 5.0, 5.1, 5.1])  # smaller than a cell
    scales = [side / SIDE for side in sides]

    def levels_by_size(given):  # type: ignore[no-untyped-def]
        return levels_of(given, pooled=4, cells_per_pixel=scales)

    mine, theirs = RegionPool(4), MultiScaleRoIAlign([*maps], output_size=4, sampling_ratio=1)
    mine.scales, mine.levels = scales, levels_by_size
    theirs.scales, theirs.map_levels = scales, levels_by_size
    found, gradients = [], []
    for pool in (mine, theirs):
        pooled = pool(maps, boxes, [(SIDE, SIDE)] * 3)
        weights = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        gradients.append(torch.autograd.grad((pooled * weights).sum(), [*maps.values()]))
        found.append(pooled)
    torch.testing.assert_close(*found)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("rule", "ties"), [(Matcher(0.5, 0.3, True), True), (Matcher(0.5, 0.5, False), False)])
def test_matches_are_torchvisions(rule: Matcher, ties: bool) -> None:
    truths = [target["boxes"] for target in targets((2, 1, 4))]
    boxes = torch.stack([random_boxes(200, 30 + i) for i in range(3)])
    if ties:
        boxes[0, 5] = boxes[0, 9] = truths[0][1] + torch.tensor([0.0, 0.0, 9.0, 9.0])
    known = torch.tensor([[True, True, False, False], [True, False, False, False], [True] * 4])
    padded = torch.nn.utils.rnn.pad_sequence(truths, batch_first=True)
    found = matched(boxes, padded, known, rule)
    for some, truth, mine in zip(boxes, truths, found, strict=True):
        assert torch.equal(mine, rule(box_iou(truth, some)))
    assert (found >= 0).any() and (found == Matcher.BELOW_LOW_THRESHOLD).any()


def test_an_image_without_objects_is_background() -> None:
    boxes, nothing = random_boxes(20, 1)[None], torch.zeros(1, 2, 4)
    found = matched(boxes, nothing, torch.zeros(1, 2, dtype=torch.bool), Matcher(0.5, 0.3, True))
    assert (found == Matcher.BELOW_LOW_THRESHOLD).all()


def networks(levels: int) -> tuple[RegionProposalNetwork, RegionProposalNetwork]:
    head = DetectionHead([8] * levels, width=8, hidden=16, num_classes=3, neck="fpn" if levels > 1 else "single").rpn
    assert isinstance(head, ProposalNetwork)
    settings = {
        "fg_iou_thresh": 0.5,
        "bg_iou_thresh": 0.3,
        "batch_size_per_image": 64,
        "positive_fraction": 0.5,
        "pre_nms_top_n": {"training": 200, "testing": 200},
        "post_nms_top_n": {"training": 64, "testing": 64},
        "nms_thresh": 0.7,
    }
    return head, RegionProposalNetwork(Anchors(levels), head.head, **settings)


@pytest.mark.parametrize("levels", [1, 3])
def test_proposals_and_anchors_labels_are_torchvisions(levels: int) -> None:
    mine, theirs = networks(levels)
    counts = [12 * side * side for side in (8, 4, 2)][:levels]
    boxes = torch.stack([random_boxes(sum(counts), 50 + i) for i in range(3)])
    boxes[0, :40, 2:] = boxes[0, :40, :2]  # of no size
    scores = torch.randn(3 * sum(counts), 1, generator=torch.Generator().manual_seed(2))
    for found, expected in zip(
        *(each.filter_proposals(boxes, scores, [(SIDE, SIDE)] * 3, counts) for each in (mine, theirs)), strict=True
    ):
        torch.testing.assert_close(found, expected)
    anchors = [random_boxes(300, 4)] * 3
    given = targets((2, 0, 3))
    (labels, aims), (their_labels, their_aims) = (
        each.assign_targets_to_anchors(anchors, given) for each in (mine, theirs)
    )
    torch.testing.assert_close(labels, their_labels)
    for aim, their_aim, label in zip(aims, their_aims, labels, strict=True):
        assert torch.equal(aim[label > 0], their_aim[label > 0])


def test_the_sampled_regions_have_torchvisions_labels_and_offsets() -> None:
    heads = DetectionHead([8], width=8, hidden=16, num_classes=3).roi_heads
    assert isinstance(heads, BoxHeads)
    given = targets((2, 0, 3))
    proposals = [random_boxes(count, 90 + count) for count in (40, 64, 9)]
    chosen, which, labels, offsets = heads.select_training_samples(proposals, given)
    assert [len(some) for some in chosen] == [16, 16, 12]  # 9 proposals and 3 true boxes
    for i, target in enumerate(given):
        pool = torch.cat([proposals[i], target["boxes"]])
        matches, classes = RoIHeads.assign_targets_to_proposals(heads, [pool], [target["boxes"]], [target["labels"]])
        for box, label, match in zip(chosen[i], labels[i], which[i], strict=True):
            row = int((pool == box).all(dim=1).nonzero()[0])
            assert label == classes[0][row] and (label == 0 or match == matches[0][row])
        positive = labels[i] > 0
        if positive.any():
            expected = heads.box_coder.encode([target["boxes"][which[i][positive]]], [chosen[i][positive]])[0]
            torch.testing.assert_close(offsets[i][positive], expected)


def test_the_sampler_draws_as_many_as_allowed_and_each_alike() -> None:
    sampler = _Sampler(8, 0.5)
    labels = torch.full((2, 40), -1)
    labels[0, :10], labels[0, 10:30] = 1, 0
    labels[1, :2], labels[1, 2:5] = 1, 0
    torch.manual_seed(0)
    drawn = torch.zeros(40)
    for _ in range(2000):
        positive, negative = sampler.masks(labels)
        assert positive.sum(dim=1).tolist() == [4, 2] and negative.sum(dim=1).tolist() == [4, 3]
        assert not (positive & (labels < 1)).any() and not (negative & (labels != 0)).any()
        drawn += (positive | negative)[0]
    assert (drawn[:10] / 2000 - 0.4).abs().max() < 0.06 and (drawn[10:30] / 2000 - 0.2).abs().max() < 0.05


@pytest.mark.parametrize("neck", ["single", "fpn"])
def test_a_batch_without_any_box_has_no_regions_and_losses_of_0(neck: str) -> None:
    head = DetectionHead([8, 8], width=8, hidden=16, num_classes=3, neck=neck, proposals_given=True)
    maps = [torch.randn(2, 8, side, side, requires_grad=True) for side in (8, 4)]
    images, nothing = torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8), [torch.zeros(0, 4)] * 2
    losses = head(maps, images, targets((0, 0)), nothing)[1]
    assert {name: loss.item() for name, loss in losses.items()} == {"loss_classifier": 0, "loss_box_reg": 0}
    sum(losses.values()).backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in head.parameters())
    found = head.eval()(maps, images, None, nothing)[0]
    assert [{name: values.shape for name, values in each.items()} for each in found] == [
        {"boxes": (0, 4), "labels": (0,), "scores": (0,)}
    ] * 2

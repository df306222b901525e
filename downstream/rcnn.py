"""torchvision's region proposal network and box heads, with the work of single images done for a whole batch at once.

On small maps torchvision's loops over images cost more than the layers. What is matched and how losses are computed is
torchvision's; which boxes a step samples differs, because all are drawn at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import nms

MOST_WEIGHTS = 2**24
"""Bilinear weights that are held at once; 64 MB."""
Levels = Callable[[list[Tensor]], Tensor]
"""Returns the level of each box, from the boxes of every image."""


class RegionPool(nn.Module):
    """RoIAlign with one sample per cell, as a product of each image's map with bilinear weights.

    Source: He et al. 2017, section 3; equal to torchvision's `roi_align` with `sampling_ratio=1` and `aligned=False`.
    """

    def __init__(self, side: int) -> None:
        """Set the side of the output in cells."""
        super().__init__()
        self.side = side
        self.output_size = (side, side)
        self.scales: Sequence[float] = ()
        """Cells per pixel of each level; set before every call."""
        self.levels: Levels = _first_level

    def forward(
        self, maps: Mapping[str, Tensor], boxes: list[Tensor], image_shapes: object = None
    ) -> Float[Tensor, "M C P P"]:
        """Return the cells of all boxes, image by image.

        Args:
            maps: The maps B×C×H×W, finest first.
            boxes: For each image, XYXY in pixels; M in total.
            image_shapes: Not used; torchvision passes it.
        """
        counts = torch.tensor([len(some) for some in boxes])
        padded = pad_sequence(boxes, batch_first=True)  # B×R×4
        padded = padded if padded.shape[1] else padded.new_zeros(len(boxes), 1, 4)
        there = torch.arange(padded.shape[1]) < counts[:, None]
        there = there.to(padded.device)
        level = torch.zeros(there.shape, dtype=torch.int64, device=padded.device)
        if len(maps) > 1:
            level[there] = self.levels(boxes)
        found: Tensor | None = None
        for i, (cells, scale) in enumerate(zip(maps.values(), self.scales, strict=True)):
            rows = bilinear(padded[..., 1::2], scale, self.side, cells.shape[2])
            columns = bilinear(padded[..., 0::2], scale, self.side, cells.shape[3])
            if len(maps) > 1:
                rows = rows * (level == i)[..., None, None]
            an_image = rows[0].numel() * columns[0, 0].numel()
            many = max(1, MOST_WEIGHTS // max(1, an_image))  # images whose weights are held at once
            pieces = zip(*(torch.split(each, many) for each in (rows, columns, cells)), strict=True)
            part = torch.cat([_pooled(*piece) for piece in pieces])
            found = part if found is None else found + part
        assert found is not None
        regions = found.reshape(*there.shape, self.side, self.side, -1)[there]
        return regions.permute(0, 3, 1, 2)


def _pooled(
    rows: Float[Tensor, "B R P H"], columns: Float[Tensor, "B R P W"], cells: Float[Tensor, "B C H W"]
) -> Float[Tensor, "B RPP C"]:
    weights = rows[..., :, None, :, None] * columns[..., None, :, None, :]  # B×R×P×P×H×W
    flat = weights.flatten(4).flatten(1, 3)
    return flat.to(cells.dtype) @ cells.permute(0, 2, 3, 1).flatten(1, 2)


def bilinear(ends: Float[Tensor, "B R 2"], scale: float, side: int, cells: int) -> Float[Tensor, "B R P N"]:
    """Return the weight of each of N cells at the P sample points between two ends in pixels, along one axis."""
    first, last = (ends * scale).unbind(-1)
    length = (last - first).clamp(min=1)
    steps = (torch.arange(side, device=ends.device) + 0.5) / side
    points = first[..., None] + length[..., None] * steps
    inside = (points >= -1) & (points <= cells)
    places = torch.arange(cells, device=ends.device)
    distance = (points.clamp(0, cells - 1)[..., None] - places).abs()
    return (1 - distance).clamp(min=0) * inside[..., None]


class ProposalNetwork(RegionProposalNetwork):  # type: ignore[misc]
    """See the module's docstring; for images of one size."""

    def __init__(self, *args: Any, batch_size_per_image: int, positive_fraction: float, **named: Any) -> None:
        super().__init__(*args, batch_size_per_image=batch_size_per_image, positive_fraction=positive_fraction, **named)
        self.fg_bg_sampler = _Sampler(batch_size_per_image, positive_fraction)

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the boxes of each image that stay after NMS within levels, and their scores."""
        objectness = objectness.detach().reshape(len(proposals), -1)
        top = self._get_top_n_idx(objectness, num_anchors_per_level)
        scores = objectness.gather(1, top).sigmoid()
        height, width = image_shapes[0]
        boxes = proposals.gather(1, top[..., None].expand(-1, -1, 4))
        boxes = torch.stack(
            [boxes[..., i].clamp(0, limit) for i, limit in enumerate((width, height, width, height))], dim=-1
        )
        sides = boxes[..., 2:] - boxes[..., :2]
        large = (sides >= self.min_size).all(dim=-1) & (scores >= self.score_thresh)
        level = torch.repeat_interleave(torch.tensor(num_anchors_per_level)).to(top.device)[top]
        apart = boxes + (2 * max(height, width) * level)[..., None]  # boxes of different levels do not overlap
        kept_boxes, kept_scores = [], []
        for box, moved, score, good in zip(boxes, apart, scores, large, strict=True):
            there = good.nonzero().flatten()
            keep = there[nms(moved[there], score[there], self.nms_thresh)[: self.post_nms_top_n()]]
            kept_boxes.append(box[keep])
            kept_scores.append(score[keep])
        return kept_boxes, kept_scores

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return each anchor's label (1 object, 0 background, -1 neither) and its object's box."""
        truth, known = _padded_boxes(targets)
        matches = matched(torch.stack(anchors), truth, known, self.proposal_matcher)
        labels = (matches >= 0).float()
        labels[matches == Matcher.BETWEEN_THRESHOLDS] = -1
        boxes = truth.gather(1, matches.clamp(min=0)[..., None].expand(-1, -1, 4))
        return [*labels.unbind()], [*boxes.unbind()]


class BoxHeads(RoIHeads):  # type: ignore[misc]
    """See the module's docstring."""

    def __init__(self, *args: Any, batch_size_per_image: int, positive_fraction: float, **named: Any) -> None:
        super().__init__(*args, batch_size_per_image=batch_size_per_image, positive_fraction=positive_fraction, **named)
        self.fg_bg_sampler = _Sampler(batch_size_per_image, positive_fraction)

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Return what torchvision's heads do; the losses of a batch without any box, which are means, are 0."""
        if not self.training or any(map(len, proposals)) or any(len(target["boxes"]) for target in targets or ()):
            return super().forward(features, proposals, image_shapes, targets)
        regions = self.box_roi_pool(features, proposals, image_shapes)
        logits, offsets = self.box_predictor(self.box_head(regions))
        return [], {"loss_classifier": logits.sum(), "loss_box_reg": offsets.sum()}

    def select_training_samples(
        self, proposals: list[Tensor], targets: list[dict[str, Tensor]] | None
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Return the sampled boxes of each image, the true objects that they match, their labels and their offsets."""
        assert targets is not None
        truth, known = _padded_boxes(targets)
        classes = pad_sequence([target["labels"] for target in targets], batch_first=True)
        classes = classes if classes.shape[1] else classes.new_zeros(len(targets), 1)
        given = [torch.cat([some, target["boxes"].to(some)]) for some, target in zip(proposals, targets, strict=True)]
        boxes = pad_sequence(given, batch_first=True)
        counts = torch.tensor([len(some) for some in given])
        there = (torch.arange(boxes.shape[1]) < counts[:, None]).to(boxes.device)
        matches = matched(boxes, truth, known, self.proposal_matcher)
        labels = torch.where(matches >= 0, classes.gather(1, matches.clamp(min=0)), 0)
        labels[~there] = -1
        positive, negative = self.fg_bg_sampler.masks(labels)
        sampled = positive | negative
        each = sampled.sum(dim=1).tolist()
        objects = truth.gather(1, matches.clamp(min=0)[..., None].expand(-1, -1, 4))
        chosen, aims, named, which = (
            [*torch.split(values[sampled], each)] for values in (boxes, objects, labels, matches.clamp(min=0))
        )
        return chosen, which, named, [*self.box_coder.encode(aims, chosen)]


class _Sampler:
    """Draws positive and negative boxes of every image at once, in place of torchvision's sampler."""

    def __init__(self, count: int, positive_fraction: float) -> None:
        self.count, self.positives = count, int(count * positive_fraction)

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        positive, negative = self.masks(torch.stack(labels))
        return [*positive.unbind()], [*negative.unbind()]

    def masks(self, labels: Tensor) -> tuple[Bool[Tensor, "B N"], Bool[Tensor, "B N"]]:
        """Return which boxes are drawn: at most `positives` with a label above 0, and of label 0 the rest of `count`.

        Args:
            labels: B×N; boxes with a label below 0 are not drawn.
        """
        drawn = torch.rand(labels.shape, device=labels.device).argsort(dim=1)  # each image's boxes in random order
        labels = labels.gather(1, drawn)
        positive = labels >= 1
        positive &= positive.cumsum(dim=1) <= self.positives
        negative = labels == 0
        negative &= negative.cumsum(dim=1) <= self.count - positive.sum(dim=1, keepdim=True)
        where = torch.zeros_like(positive)
        return where.scatter(1, drawn, positive), where.scatter(1, drawn, negative)


def matched(
    boxes: Float[Tensor, "B N 4"],
    truth: Float[Tensor, "B G 4"],
    known: Bool[Tensor, "B G"],
    rule: Matcher,
) -> Int[Tensor, "B N"]:
    """Return the object of each box, or torchvision's negative numbers for background and for neither.

    Args:
        boxes: XYXY.
        truth: The true boxes, padded to the same number for all images.
        known: Which of them are there.
        rule: Thresholds, and whether an object also takes the boxes that overlap it most.
    """
    overlaps = _iou(truth, boxes)
    overlaps = torch.where(known[..., None], overlaps, -1.0)
    best, matches = overlaps.max(dim=1)
    found = torch.where(best < rule.low_threshold, Matcher.BELOW_LOW_THRESHOLD, matches)
    between = (best >= rule.low_threshold) & (best < rule.high_threshold)
    found = torch.where(between, Matcher.BETWEEN_THRESHOLDS, found)
    if rule.allow_low_quality_matches:
        closest = (overlaps == overlaps.amax(dim=2, keepdim=True)) & known[..., None]
        found = torch.where(closest.any(dim=1), matches, found)
    return found


def _iou(first: Float[Tensor, "B G 4"], second: Float[Tensor, "B N 4"]) -> Float[Tensor, "B G N"]:
    one, other = first[:, :, None], second[:, None]
    sides = (torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])).clamp(min=0)
    shared = sides.prod(dim=-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(dim=-1) for box in (one, other)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-12)


def _padded_boxes(targets: list[dict[str, Tensor]]) -> tuple[Float[Tensor, "B G 4"], Bool[Tensor, "B G"]]:
    """Return the true boxes of all images, padded by zeros to at least one, and which of them are there."""
    boxes = pad_sequence([target["boxes"] for target in targets], batch_first=True)
    boxes = boxes if boxes.shape[1] else boxes.new_zeros(len(targets), 1, 4)
    counts = torch.tensor([len(target["boxes"]) for target in targets])
    known = (torch.arange(boxes.shape[1]) < counts[:, None]).to(boxes.device)
    return boxes, known


def _first_level(boxes: list[Tensor]) -> Int[Tensor, "M"]:
    return torch.zeros(sum(map(len, boxes)), dtype=torch.int64)

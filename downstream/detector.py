"""Faster R-CNN and Fast R-CNN heads on an encoder's maps, for images of any size."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import OrderedDict
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FeaturePyramidNetwork, box_area

from downstream.rcnn import BoxHeads, ProposalNetwork, RegionPool
from pretext.encoders.base import Encoder

Neck = Literal["single", "fpn"]
SMALLEST, LARGEST = 0.125, 0.8
"""Sides of the smallest and the largest square anchor, as shares of the image side."""
SCALES = 4
"""Number of anchor sizes between the two, geometrically spaced; on a pyramid the minimum over all levels."""
RATIOS = (0.5, 1.0, 2.0)
"""Aspect ratios (height / width) of the anchors of each size."""
LARGE_INPUT = 200
"""Encoders with an input of at least this side in pixels get `LARGE`; others `SMALL`."""


@dataclasses.dataclass(frozen=True)
class DetectorSizes:
    """Numbers of the detector that depend on the size of the images."""

    pooled: int
    """Side, in cells, of RoIAlign's output."""
    sampled_regions: int
    """Number of regions per training image that the box head learns from."""
    sampled_anchors: int
    """Number of anchors per training image that the region proposal network learns from."""
    candidates: int
    """Number of proposals per image before non-maximum suppression."""
    proposals: int
    """Maximum number of proposals per image after it."""
    detections: int
    """Maximum number of detections per image."""


SMALL = DetectorSizes(pooled=4, sampled_regions=16, sampled_anchors=64, candidates=200, proposals=64, detections=50)
LARGE = DetectorSizes(pooled=7, sampled_regions=64, sampled_anchors=256, candidates=1000, proposals=300, detections=100)


def sizes_for(side: int) -> DetectorSizes:
    """Return the sizes for images of a side in pixels.

    Source of `LARGE`: He et al. 2017, section 3.1 (7×7 cells, 64 regions), Ren et al. 2015, sections 3.1.3 and 3.3 (256
    anchors, 300 proposals).
    """
    return LARGE if side >= LARGE_INPUT else SMALL


def stages_for(encoder: Encoder, *, cells: int) -> list[int]:
    """Return the deepest stage whose map side has at least `cells` cells, and the deepest stage of each coarser stride.

    If every map has fewer cells, the first stage is the one with the finest map.

    Args:
        encoder: Its input size and strides decide.
        cells: Minimum side of the first map, in cells.
    """
    sides = [encoder.input_size / stage.stride for stage in encoder.stages]
    first = max((i for i, side in enumerate(sides) if side >= cells), default=sides.index(max(sides)))
    deepest = {stage.stride: i for i, stage in enumerate(encoder.stages)}
    return [first, *(i for stride, i in sorted(deepest.items()) if stride > encoder.stages[first].stride)]


class DetectionHead(nn.Module):
    """The detector without its encoder: a neck, the region proposal network, and the box head with NMS.

    Source: Faster R-CNN, Ren et al. 2015, with RoIAlign (He et al. 2017) and torchvision's modules and losses. With
    given proposals it is Fast R-CNN, Girshick 2015. The neck `fpn` is the feature pyramid of Lin et al. 2017, with
    proposals from every level, larger ones from coarser levels.
    Deviations: batch normalisation follows the necks' convolutions, so that the head suits encoders of any feature
    scale; the neck `single` adds the coarser maps to the finest and detects only on that one; anchors and numbers of
    proposals fit small images; in the pyramid a box is pooled from the coarsest level on which it spans at least as
    many cells as it is pooled to, instead of equation 1, which is for images of ImageNet's size.
    """

    def __init__(
        self,
        channels: list[int],
        *,
        width: int,
        hidden: int,
        num_classes: int,
        neck: Neck = "single",
        proposals_given: bool = False,
        sizes: DetectorSizes = SMALL,
    ) -> None:
        """Build it with random weights.

        Args:
            channels: Number of channels of each of the encoder's maps, finest first.
            width: Number of channels of the neck's output maps.
            hidden: Number of units in each of the box head's two layers.
            num_classes: Number of classes, without the background.
            neck: One map, or a pyramid with one level per map.
            proposals_given: Use given proposals instead of a region proposal network.
            sizes: See `sizes_for`.
        """
        super().__init__()
        self.neck: nn.Module = _Pyramid(channels, width) if neck == "fpn" else _Single(channels, width)
        levels = len(channels) if neck == "fpn" else 1
        self.rpn: nn.Module | None = None if proposals_given else _region_proposals(width, levels, sizes)
        self.pool = RegionPool(sizes.pooled)
        self.roi_heads = BoxHeads(
            self.pool,
            TwoMLPHead(width * sizes.pooled**2, hidden),
            FastRCNNPredictor(hidden, num_classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=sizes.sampled_regions,
            positive_fraction=0.5,
            bbox_reg_weights=None,
            score_thresh=0.02,
            nms_thresh=0.5,
            detections_per_img=sizes.detections,
        )

    def forward(
        self,
        features: list[Tensor],
        images: Shaped[Tensor, "B 3 S S"],
        targets: list[dict[str, Tensor]] | None = None,
        proposals: list[Tensor] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Return detections (in evaluation mode) and losses (in training mode).

        Args:
            features: The encoder's maps B×C_i×H_i×W_i, finest first.
            images: The images; only their size is read.
            targets: For each image, `boxes` N×4 XYXY in pixels and `labels` N, from 1; required in training mode.
            proposals: For each image, M×4 XYXY in pixels; required if `proposals_given`.
        """
        side = images.shape[-1]
        sizes = [(side, side)] * len(images)
        maps: OrderedDict[str, Tensor] = OrderedDict((str(i), m) for i, m in enumerate(self.neck(features)))
        losses: dict[str, Tensor] = {}
        if self.rpn is not None:
            proposals, losses = self.rpn(ImageList(images, sizes), maps, targets)
        self.pool.scales = [m.shape[-1] / side for m in maps.values()]
        self.pool.levels = functools.partial(levels_of, pooled=self.pool.side, cells_per_pixel=self.pool.scales)
        detections, box_losses = self.roi_heads(maps, proposals, sizes, targets)
        return detections, losses | box_losses


def levels_of(boxes: list[Tensor], *, pooled: int, cells_per_pixel: list[float]) -> Int[Tensor, "M"]:
    """Return the level each box is pooled from: the coarsest on which it spans `pooled` cells, else the finest.

    Args:
        boxes: For each image, XYXY in pixels; M in total.
        pooled: Side, in cells, of RoIAlign's output.
        cells_per_pixel: One value per level, finest first.
    """
    sides = box_area(torch.cat(boxes)).sqrt()
    spans = sides[:, None] * torch.tensor(cells_per_pixel, device=sides.device)
    return ((spans > pooled - 1e-4).sum(dim=1) - 1).clamp(min=0)


class Anchors(nn.Module):
    """Anchors of the region proposal network, as shares of the image.

    torchvision rounds its anchors to whole pixels, which distorts small ones.
    """

    def __init__(self, levels: int) -> None:
        """Split the sizes equally among `levels` maps, the smallest on the finest."""
        super().__init__()
        each = math.ceil(SCALES / levels)
        sizes = np.geomspace(SMALLEST, LARGEST, levels * each).reshape(levels, each)
        half = torch.tensor(sizes, dtype=torch.float32)[:, :, None] / 2
        ratios = torch.tensor(RATIOS).sqrt()
        corners = torch.stack([half / ratios, half * ratios], dim=-1).flatten(1, 2)
        self.register_buffer("shapes", torch.cat([-corners, corners], dim=-1), persistent=False)
        """Levels × anchors per cell × 4: corners relative to the anchor's centre, as shares of the image side."""

    shapes: Tensor

    def forward(self, images: ImageList, maps: list[Tensor]) -> list[Float[Tensor, "A 4"]]:
        """Return the same anchors for every image, ordered by level, row and cell."""
        every = []
        for shapes, level in zip(self.shapes, maps, strict=True):
            height, width = level.shape[-2:]
            y, x = torch.meshgrid(
                torch.arange(height, device=level.device) / height,
                torch.arange(width, device=level.device) / width,
                indexing="ij",
            )
            centres = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
            every.append((centres + shapes).reshape(-1, 4))
        anchors = torch.cat(every) * images.tensors.shape[-1]
        return [anchors] * len(images.image_sizes)

    def num_anchors_per_location(self) -> list[int]:
        """Return the number of anchors per cell of each level."""
        return [self.shapes.shape[1]] * len(self.shapes)


class _Single(nn.Module):
    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(count, width, 1, bias=False), nn.BatchNorm2d(width)) for count in channels
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        finest, *coarser = (lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True))
        for feature in coarser:
            finest = finest + F.interpolate(feature, finest.shape[-2:], mode="bilinear", align_corners=False)
        return [F.relu(finest)]


class _Pyramid(nn.Module):
    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        self.pyramid = FeaturePyramidNetwork(channels, width, norm_layer=nn.BatchNorm2d)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [*self.pyramid(OrderedDict((str(i), feature) for i, feature in enumerate(features))).values()]


def _region_proposals(width: int, levels: int, sizes: DetectorSizes) -> ProposalNetwork:
    anchors = Anchors(levels)
    return ProposalNetwork(
        anchors,
        RPNHead(width, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.3,
        batch_size_per_image=sizes.sampled_anchors,
        positive_fraction=0.5,
        pre_nms_top_n=dict.fromkeys(("training", "testing"), sizes.candidates),
        post_nms_top_n=dict.fromkeys(("training", "testing"), sizes.proposals),
        nms_thresh=0.7,
    )

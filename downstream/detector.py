"""Faster R-CNN, and Fast R-CNN, on an encoder's maps, in proportion to pictures of any size."""

from __future__ import annotations

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
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, box_area

from pretext.encoders.base import Encoder

Neck = Literal["single", "fpn"]
SMALLEST, LARGEST = 0.125, 0.8
"""Sides of the smallest and largest square anchor, as shares of the picture's."""
SCALES = 4
"""Sizes of anchors from the one to the other, in equal ratios; on a pyramid at least so many in all."""
RATIOS = (0.5, 1.0, 2.0)
"""Height over width of the anchors of each size."""
ROI_SIZE = 4
"""Side in cells to which a proposal's part of the map is brought."""


def stages_for(encoder: Encoder, *, cells: int) -> list[int]:
    """Return the deepest stage with at least `cells` cells a side, and the deepest of each coarser stride.

    Where every map has fewer cells, the finest takes the first one's place.

    Args:
        encoder: Its input size and strides decide.
        cells: Fewest a side.
    """
    sides = [encoder.input_size / stage.stride for stage in encoder.stages]
    first = max((i for i, side in enumerate(sides) if side >= cells), default=sides.index(max(sides)))
    deepest = {stage.stride: i for i, stage in enumerate(encoder.stages)}
    return [first, *(i for stride, i in sorted(deepest.items()) if stride > encoder.stages[first].stride)]


class DetectionHead(nn.Module):
    """All of the detector that is not the encoder: a neck, the region proposals, and the box head.

    Source: Faster R-CNN, Ren et al. 2015, on RoIAlign (He et al. 2017) and with torchvision's parts and losses;
    without region proposals of its own Fast R-CNN, Girshick 2015. The neck `fpn` is the feature pyramid of Lin et
    al. 2017: proposals are sought on every level, the larger the coarser.
    Deviations: batch normalisation follows the necks' convolutions, so that the head is the same for encoders of any
    scale; the neck `single` adds the coarser maps to the finest, which alone is searched; anchors and numbers of
    proposals fit small pictures; in the pyramid a box is read from the coarsest level on which it spans as many
    cells as it is pooled to, in place of a rule for pictures of ImageNet's size (equation 1).
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
    ) -> None:
        """Build it with random weights.

        Args:
            channels: Of each of the encoder's maps, the finest first.
            width: Channels of the maps that are made of them.
            hidden: Units of each of the box head's two layers.
            num_classes: Without the background.
            neck: One map, or a pyramid with as many levels as there are maps.
            proposals_given: Boxes to look at come with the pictures, and none are sought.
        """
        super().__init__()
        self.neck: nn.Module = _Pyramid(channels, width) if neck == "fpn" else _Single(channels, width)
        levels = len(channels) if neck == "fpn" else 1
        self.rpn: nn.Module | None = None if proposals_given else _region_proposals(width, levels)
        self.pool = MultiScaleRoIAlign([str(i) for i in range(levels)], output_size=ROI_SIZE, sampling_ratio=1)
        self.roi_heads = RoIHeads(
            self.pool,
            TwoMLPHead(width * ROI_SIZE**2, hidden),
            FastRCNNPredictor(hidden, num_classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=16,
            positive_fraction=0.5,
            bbox_reg_weights=None,
            score_thresh=0.02,
            nms_thresh=0.5,
            detections_per_img=50,
        )

    def forward(
        self,
        features: list[Tensor],
        images: Shaped[Tensor, "B 3 S S"],
        targets: list[dict[str, Tensor]] | None = None,
        proposals: list[Tensor] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Return detections (in evaluation) and losses (in training).

        Args:
            features: The encoder's maps B×C_i×H_i×W_i, the finest first.
            images: Its pictures; only their size is read.
            targets: Per picture `boxes` N×4 XYXY in pixels and `labels` N, 1 and up; needed in training.
            proposals: Per picture the boxes to look at, M×4 XYXY in pixels; only where they are given.
        """
        side = images.shape[-1]
        sizes = [(side, side)] * len(images)
        maps: OrderedDict[str, Tensor] = OrderedDict((str(i), m) for i, m in enumerate(self.neck(features)))
        losses: dict[str, Tensor] = {}
        if self.rpn is not None:
            proposals, losses = self.rpn(ImageList(images, sizes), maps, targets)
        # torchvision would take every stride for a power of two
        self.pool.scales = [m.shape[-1] / side for m in maps.values()]
        self.pool.map_levels = functools.partial(levels_of, cells_a_pixel=self.pool.scales)
        detections, box_losses = self.roi_heads(maps, proposals, sizes, targets)
        return detections, losses | box_losses


def levels_of(boxes: list[Tensor], *, cells_a_pixel: list[float]) -> Int[Tensor, "M"]:
    """Return the level that each box is read from: the coarsest on which it spans `ROI_SIZE` cells, or the finest.

    Args:
        boxes: Per picture, XYXY in pixels; M in all.
        cells_a_pixel: Of each level, the finest first.
    """
    sides = box_area(torch.cat(boxes)).sqrt()
    spans = sides[:, None] * torch.tensor(cells_a_pixel, device=sides.device)
    return ((spans > ROI_SIZE - 1e-4).sum(dim=1) - 1).clamp(min=0)


class Anchors(nn.Module):
    """The boxes that region proposals start from, in proportion to the picture.

    torchvision's own are rounded to whole pixels, which distorts the smallest.
    """

    def __init__(self, levels: int) -> None:
        """Share the sizes among `levels` maps, the smallest on the finest; each gets the same number."""
        super().__init__()
        each = math.ceil(SCALES / levels)
        sizes = np.geomspace(SMALLEST, LARGEST, levels * each).reshape(levels, each)
        half = torch.tensor(sizes, dtype=torch.float32)[:, :, None] / 2
        ratios = torch.tensor(RATIOS).sqrt()
        corners = torch.stack([half / ratios, half * ratios], dim=-1).flatten(1, 2)
        self.register_buffer("shapes", torch.cat([-corners, corners], dim=-1), persistent=False)
        """Levels × anchors of a cell × 4: corners as shares of the picture's side, seen from the anchor's centre."""

    shapes: Tensor

    def forward(self, images: ImageList, maps: list[Tensor]) -> list[Float[Tensor, "A 4"]]:
        """Return the same anchors for every picture: level by level, row by row, cell by cell."""
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
        """Return how many anchors each cell of a level has."""
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


def _region_proposals(width: int, levels: int) -> RegionProposalNetwork:
    anchors = Anchors(levels)
    return RegionProposalNetwork(
        anchors,
        RPNHead(width, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.3,
        batch_size_per_image=64,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 200, "testing": 200},
        post_nms_top_n={"training": 64, "testing": 64},
        nms_thresh=0.7,
    )

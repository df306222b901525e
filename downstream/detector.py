"""Faster R-CNN on an encoder's maps, in proportion to pictures of any size."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign

from pretext.encoders.base import Encoder

ANCHOR_SIDES = (0.125, 0.25, 0.5, 0.8)
"""Sides of the square anchors, as shares of the picture's; each also comes at half and twice that ratio."""
RATIOS = (0.5, 1.0, 2.0)
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
    """All of Faster R-CNN that is not the encoder: a neck, the region proposals, and the box head.

    Source: Ren et al. 2015, on RoIAlign (He et al. 2017) and with torchvision's parts and losses.
    Deviations: a 1×1 convolution and batch normalisation bring each of the encoder's maps to one width and
    scale, so that the head is the same for all; the coarser maps are added to the finest (Lin et al. 2017),
    which alone is searched; anchors and numbers of proposals fit small pictures.
    """

    def __init__(self, channels: list[int], *, width: int, hidden: int, num_classes: int) -> None:
        """Build it with random weights.

        Args:
            channels: Of each of the encoder's maps, the finest first.
            width: Channels of the one map that is made of them.
            hidden: Units of each of the box head's two layers.
            num_classes: Without the background.
        """
        super().__init__()
        self.necks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(count, width, 1, bias=False), nn.BatchNorm2d(width)) for count in channels
        )
        self._anchors_for: int | None = None
        self.rpn = RegionProposalNetwork(
            AnchorGenerator(sizes=((1,) * len(ANCHOR_SIDES),), aspect_ratios=(RATIOS,)),
            RPNHead(width, len(ANCHOR_SIDES) * len(RATIOS)),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.3,
            batch_size_per_image=64,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 200, "testing": 200},
            post_nms_top_n={"training": 64, "testing": 64},
            nms_thresh=0.7,
        )
        self.roi_heads = RoIHeads(
            MultiScaleRoIAlign(["map"], output_size=ROI_SIZE, sampling_ratio=1),
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
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Return detections (in evaluation) and losses (in training).

        Args:
            features: The encoder's maps B×C_i×H_i×W_i, the finest first.
            images: Its pictures; only their size is read.
            targets: Per picture `boxes` N×4 XYXY in pixels and `labels` N, 1 and up; needed in training.
        """
        side = images.shape[-1]
        self._scale_anchors(side)
        maps = OrderedDict(map=self._fused(features))
        sizes = [(side, side)] * len(images)
        proposals, losses = self.rpn(ImageList(images, sizes), maps, targets)
        detections, box_losses = self.roi_heads(maps, proposals, sizes, targets)
        return detections, losses | box_losses

    def _fused(self, features: list[Tensor]) -> Tensor:
        finest, *coarser = (neck(feature) for neck, feature in zip(self.necks, features, strict=True))
        for feature in coarser:
            finest = finest + F.interpolate(feature, finest.shape[-2:], mode="bilinear", align_corners=False)
        return F.relu(finest)

    def _scale_anchors(self, side: int) -> None:
        if self._anchors_for == side:
            return
        generator = self.rpn.anchor_generator
        areas = torch.tensor([share * side for share in ANCHOR_SIDES])[None, :]
        ratios = torch.tensor(RATIOS)[:, None]
        halves = torch.stack([areas / ratios.sqrt(), areas * ratios.sqrt()], dim=-1).reshape(-1, 2) / 2
        # torchvision's own are rounded to whole pixels, which distorts the smallest
        generator.cell_anchors = [torch.cat([-halves, halves], dim=1)]
        self._anchors_for = side

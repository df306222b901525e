"""An encoder as the backbone of torchvision's detectors and segmentation networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from pretext.encoders.base import Encoder, check_range
from pretext.encoders.trials import check_reads
from pretext.system.errors import UserError, did_you_mean

LEVELS = 4
"""Maps below a feature pyramid; with the pooled one, as many as `FasterRCNN` has anchor sizes."""
NOT_NORMALISED = "image_mean=(0, 0, 0), image_std=(1, 1, 1)"
"""Arguments by which torchvision's detectors leave the normalisation to the encoder."""


class TorchvisionBackbone(nn.Module):
    """Images in [0, 1] in, named maps out; see `Encoder.as_torchvision_backbone`.

    Attributes:
        encoder: The encoder; it is not copied.
        out_channels: Channels of the map `out`, or of every map of the pyramid.
    """

    def __init__(self, encoder: Encoder, *, fpn: int | None, stages: Sequence[str] | None) -> None:
        """See `Encoder.as_torchvision_backbone`."""
        super().__init__()
        self.encoder = encoder
        self._read = _chosen(encoder, stages, levels=1 if fpn is None else LEVELS)
        channels = [encoder.stages[i].channels for i in self._read]
        self.fpn: FeaturePyramidNetwork | None = None
        self.out_channels = channels[-1]
        self._names = ["aux", "out"][-len(channels) :]
        if fpn is not None:
            self.fpn, self.out_channels = FeaturePyramidNetwork(channels, fpn, extra_blocks=LastLevelMaxPool()), fpn
            self._names = [str(i) for i in range(len(channels))]
        elif len(channels) > 2:
            raise UserError(f"{len(channels)} stages are given; without fpn give one, or one for aux and one for out")
        self._checked = False

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> OrderedDict[str, Tensor]:
        """Return the maps by name, the finest first.

        Args:
            images: Images in [0, 1], not normalised. The first batch is checked.

        Raises:
            UserError: If values lie outside 0 to 1, or the encoder cannot read images of this size.
        """
        if not self._checked:
            self._check(images)
        maps = self.encoder(images)
        named = OrderedDict(zip(self._names, (maps[i] for i in self._read), strict=True))
        return named if self.fpn is None else self.fpn(named)

    def _check(self, images: Tensor) -> None:
        try:
            check_range(images)
        except UserError as error:
            raise UserError(f"{error}; build a torchvision detector with {NOT_NORMALISED}") from None
        height, width = images.shape[-2:]
        side = self.encoder.input_size
        remedy = f"give images of {side}×{side} px, or take a network that reads any size, such as torchvision:resnet50"
        check_reads(self.encoder, height, width, why="the size of this batch", remedy=remedy)
        self._checked = True


def _chosen(encoder: Encoder, stages: Sequence[str] | None, *, levels: int) -> list[int]:
    """Return the indices of the stages to read, finest first: those named, or the deepest of each of the last strides.

    Raises:
        UserError: If there is no such stage.
    """
    names = [stage.name for stage in encoder.stages]
    for name in stages or ():
        if name not in names:
            raise UserError(f"{encoder.spec} has no stage {name!r}; {did_you_mean(name, names)}")
    if stages:
        return sorted(names.index(name) for name in stages)
    deepest = {stage.stride: i for i, stage in enumerate(encoder.stages)}
    return [deepest[stride] for stride in sorted(deepest)][-levels:]

"""Decoders from an encoder's deepest map to an image, for reconstruction and inpainting tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pretext.encoders.base import Encoder, deepest_shape
from pretext.encoders.whole_map import WholeMapConvTranspose2d
from pretext.system.ranges import check_range
from pretext.transforms.augmentation import CropAndFlip

CHANNELS = (128, 64, 64, 32)
"""Output channels of the paper's up-convolutions, except the last, which has 3."""
UP_CONVOLUTIONS = 5
"""Up-convolutions in the paper, from 6×6 to 161×161; smaller images need fewer."""


@dataclass(frozen=True)
class Reconstruction(CropAndFlip):
    """Settings of a task that paints images with the paper's decoder."""

    decoder_width: float = 1.0
    """Multiplies the decoder's channel counts."""
    channelwise: bool = True
    """Use the channel-wise fully connected layer; the released decoder has none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "decoder_width", above=0)


class ChannelwiseLinear(nn.Module):
    """A fully connected layer within each channel; no weight connects two channels.

    m maps of n×n have m·n⁴ weights and m·n² biases.

    Source: Pathak et al. 2016, section 3.1 (channel-wise fully-connected layer).
    Deviations: weight decay applies to the biases too.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        cells = height * width
        self.weight = nn.Parameter(torch.empty(channels, cells, cells))
        self.bias = nn.Parameter(torch.zeros(channels, cells))
        nn.init.normal_(self.weight, std=cells**-0.5)

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return maps of the input's shape."""
        flat = maps.flatten(2).transpose(0, 1)  # C×B×HW
        return (torch.bmm(flat, self.weight) + self.bias[:, None]).transpose(0, 1).reshape(maps.shape)


class Decoder(nn.Module):
    """The paper's decoder: channel-wise fully connected layer, stride-1 convolution, up-convolutions, resize.

    A 5×5 up-convolution of stride 2 maps n×n to (2n - 1)×(2n - 1), so that five map 6 to the published 161, which is
    then resized to 227. The last layer is linear; images are in [-1, 1].

    Source: Pathak et al. 2016, section 3.1 and figure 9.
    Deviations: batch normalisation between the layers; as many up-convolutions as the image size needs, at most five;
    up-convolutions map n to 2n if that gives the image size exactly.
    """

    def __init__(self, encoder: Encoder, *, width: float, channelwise: bool, noise: int = 0) -> None:
        """Build a decoder for the encoder's deepest map.

        Args:
            encoder: Its deepest map and input size determine the shapes.
            width: Multiplies the published channel counts.
            channelwise: Use the channel-wise fully connected layer; without it, distant cells are not connected.
            noise: Number of noise maps that are concatenated to the deepest map; 0 is none.
        """
        super().__init__()
        channels, height, map_width = deepest_shape(encoder)
        self.size, self.noise = encoder.input_size, noise
        inputs = channels + noise
        self.across = ChannelwiseLinear(inputs, height, map_width) if channelwise else nn.Identity()
        ups = min(UP_CONVOLUTIONS, max(1, math.ceil(math.log2(self.size / height) - 1e-9)))
        exact = height * 2**ups == self.size
        widths = [max(8, round(count * width)) for count in CHANNELS[: ups - 1]]
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, inputs, 1, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
        ]
        for outputs in widths:
            layers += [_up(inputs, outputs, exact, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        layers.append(_up(inputs, 3, exact, bias=True))
        self.layers = nn.Sequential(*layers)

    def forward(
        self, deepest: Float[Tensor, "B C H W"], noise: Float[Tensor, "B N H W"] | None = None
    ) -> Float[Tensor, "B 3 S S"]:
        """Return images of the encoder's input size, in about [-1, 1].

        Args:
            deepest: The encoder's deepest map.
            noise: The noise maps, if the decoder was built with some.
        """
        if noise is not None:
            deepest = torch.cat([deepest, noise], dim=1)
        images = self.layers(self.across(deepest))
        if images.shape[-1] != self.size:
            images = F.interpolate(images, size=(self.size, self.size), mode="bilinear", align_corners=False)
        return images


class ReleasedDecoder(nn.Module):
    """The decoder of the released inpainting network, from the 4000-dimensional bottleneck to the 64×64 centre.

    4×4 transposed convolutions 512-256-128-64-3 with batch normalisation and ReLU, and a final tanh.
    The task draws the initial weights from N(0, 0.02).

    Source: the network that Pathak et al. 2016 released for inpainting.
    """

    def __init__(self, bottleneck: int, *, width: float) -> None:
        super().__init__()
        inputs = bottleneck
        layers: list[nn.Module] = []
        for i, count in enumerate((512, 256, 128, 64)):
            outputs = max(8, round(count * width))
            if i == 0:
                layers.append(WholeMapConvTranspose2d(inputs, outputs, 4))
            else:
                layers.append(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(inputs, 3, 4, stride=2, padding=1), nn.Tanh())

    def forward(self, deepest: Float[Tensor, "B C 1 1"]) -> Float[Tensor, "B 3 64 64"]:
        """Return image centres in [-1, 1]."""
        return self.layers(deepest)


def _up(inputs: int, outputs: int, exact: bool, *, bias: bool) -> nn.ConvTranspose2d:
    """Return an up-convolution from n×n to 2n×2n if `exact`, else to (2n - 1)×(2n - 1)."""
    return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1 if exact else 0, bias=bias)

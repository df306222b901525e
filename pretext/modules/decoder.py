"""From an encoder's deepest map back to a picture: the decoders that painting tasks share."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pretext.encoders.base import Encoder, deepest_shape

CHANNELS = (128, 64, 64, 32)
"""Of the paper's up-convolutions, before the last, which has three."""
UP_CONVOLUTIONS = 5
"""Of the paper, 6×6 to 161×161; smaller pictures need fewer."""


class ChannelwiseLinear(nn.Module):
    """Each map has a fully connected layer of its own; no weight crosses maps.

    m maps of n×n cost m·n⁴ weights, and m·n² biases.

    Source: Pathak et al. 2016, section 3.1 (channel-wise fully-connected layer).
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        cells = height * width
        self.weight = nn.Parameter(torch.empty(channels, cells, cells))
        self.bias = nn.Parameter(torch.zeros(channels, cells))
        nn.init.normal_(self.weight, std=cells**-0.5)

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return maps of the same shape."""
        flat = maps.flatten(2).transpose(0, 1)  # C×B×HW
        return (torch.bmm(flat, self.weight) + self.bias[:, None]).transpose(0, 1).reshape(maps.shape)


class Decoder(nn.Module):
    """The paper's: a channel-wise fully connected layer, a stride-1 convolution, up-convolutions, a resize.

    An up-convolution of 5×5 and stride 2 takes n to 2n - 1, so that five take 6 to the published 161, which is
    then brought to 227. Its last layer is linear; pictures are in [-1, 1].

    Source: Pathak et al. 2016, section 3.1 and figure 9.
    Deviations: batch normalisation between the layers; as many up-convolutions as the picture needs, at most five;
    where 2n fits the picture exactly, an up-convolution takes n to 2n.
    """

    def __init__(self, encoder: Encoder, *, width: float, channelwise: bool, noise: int = 0) -> None:
        """Build it on the encoder's deepest map.

        Args:
            encoder: Its deepest map and input size decide the shapes.
            width: Multiplies the published numbers of channels.
            channelwise: Whether there is a channel-wise layer; without it, no cell knows of a distant one.
            noise: Maps of noise beside the encoder's; 0 for none.
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
        """Return pictures in about [-1, 1], of the encoder's input size."""
        if noise is not None:
            deepest = torch.cat([deepest, noise], dim=1)
        painted = self.layers(self.across(deepest))
        if painted.shape[-1] != self.size:
            painted = F.interpolate(painted, size=(self.size, self.size), mode="bilinear", align_corners=False)
        return painted


class ReleasedDecoder(nn.Module):
    """The released inpainting network's: from the 4000-dimensional bottleneck to the 64×64 centre.

    4×4 transposed convolutions 512-256-128-64-3, batch normalisation and ReLU, Tanh at the end; N(0, 0.02).

    Source: the network that Pathak et al. 2016 released for inpainting.
    """

    def __init__(self, bottleneck: int, *, width: float) -> None:
        super().__init__()
        inputs, layers = bottleneck, []
        for i, count in enumerate((512, 256, 128, 64)):
            outputs = max(8, round(count * width))
            stride, padding = (1, 0) if i == 0 else (2, 1)
            layers += [
                nn.ConvTranspose2d(inputs, outputs, 4, stride=stride, padding=padding),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(inputs, 3, 4, stride=2, padding=1), nn.Tanh())

    def forward(self, deepest: Float[Tensor, "B C 1 1"]) -> Float[Tensor, "B 3 64 64"]:
        """Return centres in [-1, 1]."""
        return self.layers(deepest)


def _up(inputs: int, outputs: int, exact: bool, *, bias: bool) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1 if exact else 0, bias=bias)

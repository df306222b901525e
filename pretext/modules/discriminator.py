"""The network that tells real pictures from painted ones, and its loss.

Source: Pathak et al. 2016, equation 2; the network that its authors released for inpainting.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pretext.encoders.alexnet import gaussian
from pretext.encoders.whole_map import WholeMapConv2d


def adversarial_loss(logits: Tensor, label: float) -> Tensor:
    """Return the binary cross-entropy with one label for all logits: 1 is real, 0 is fake."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


class Discriminator(nn.Module):
    """Strided 4×4 convolutions with LeakyReLU 0.2, and batch normalisation on all but the first; one logit per image.

    At 64 px these are the released network's 64-128-256-512-1 channels; smaller images have fewer layers, and images of
    128 px one more of 512.
    """

    def __init__(self, size: int, *, channels: int, width: float, spectral: bool = False) -> None:
        """Build it, with weights from N(0, 0.02).

        Args:
            size: Side of the input in pixels.
            channels: Channels of the input.
            width: Multiplies the channel counts.
            spectral: Divide each kernel by its largest singular value (Miyato et al. 2018).
        """
        super().__init__()
        layers: list[nn.Module] = []
        count, inputs = 64, channels
        while size >= 8:
            outputs = max(8, round(count * width))
            layers.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1))
            if inputs != channels:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.LeakyReLU(0.2))
            size, inputs, count = size // 2, outputs, min(2 * count, 512)
        self.layers = nn.Sequential(*layers, WholeMapConv2d(inputs, 1, size))
        self.apply(partial(gaussian, std=0.02))
        if spectral:
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d):
                    spectral_norm(layer)

    def forward(self, images: Float[Tensor, "B C S S"]) -> Float[Tensor, "B"]:
        """Return the logit that each image is real."""
        return self.layers(images).flatten(1).mean(dim=1)

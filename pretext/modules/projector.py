"""Multi-layer perceptrons on top of an encoder: projectors and predictors."""

from __future__ import annotations

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from pretext.encoders.base import Encoder


def projector(
    inputs: int,
    hidden: int,
    outputs: int,
    *,
    layers: int,
    norm: bool = True,
    last_norm: bool = False,
    last_bias: bool = True,
) -> nn.Sequential:
    """Return a multi-layer perceptron with ReLU between its linear layers.

    Args:
        inputs: Length of the input.
        hidden: Width of the hidden layers.
        outputs: Length of the output.
        layers: Number of linear layers, 1 or more.
        norm: Batch normalisation before each ReLU; these linear layers have no bias.
        last_norm: Batch normalisation of the output, without learned scale and shift.
        last_bias: Bias in the last layer, unless `last_norm`. Set it to false before a predictor whose batch
            normalisation cancels the bias.

    Source: Chen et al. 2020, arXiv 2002.05709 (two layers); Chen and He 2021, arXiv 2011.10566, section 3 (three
        layers, output normalisation).
    """
    widths = [inputs, *[hidden] * (layers - 1), outputs]
    parts: list[nn.Module] = []
    for i in range(layers - 1):
        parts.append(nn.Linear(widths[i], widths[i + 1], bias=not norm))
        if norm:
            parts.append(nn.BatchNorm1d(widths[i + 1]))
        parts.append(nn.ReLU(inplace=True))
    parts.append(nn.Linear(widths[-2], outputs, bias=last_bias and not last_norm))
    if last_norm:
        parts.append(nn.BatchNorm1d(outputs, affine=False))
    return nn.Sequential(*parts)


class Projected(nn.Module):
    """An encoder and its projector as one network, for a `MomentumCopy` of both."""

    def __init__(self, encoder: Encoder, projector: nn.Module) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, projector

    def forward(self, images: Shaped[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Return one projection per image."""
        return self.projector(self.encoder.embed(images))

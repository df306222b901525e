"""The small multi-layer perceptrons that tasks put behind an encoder: projectors and predictors."""

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
    """Return `layers` linear layers, with ReLU between them.

    Args:
        inputs: Length of what goes in.
        hidden: Width between the layers.
        outputs: Length of what comes out.
        layers: How many, 1 or more.
        norm: Batch normalisation before each ReLU; such layers have no bias.
        last_norm: Batch normalisation of what comes out too, without scale and shift of its own.
        last_bias: A bias in the last layer, where no normalisation follows; before a predictor that begins with
            one, a bias would never move.

    Source: Chen et al. 2020, arXiv 2002.05709 (two layers); Chen and He 2021, arXiv 2011.10566, section 3 (three,
        and the last one's normalisation).
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
    """An encoder and the projector behind it as one network, for a slow copy of both to be made of and to follow."""

    def __init__(self, encoder: Encoder, projector: nn.Module) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, projector

    def forward(self, images: Shaped[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Return one projection a picture."""
        return self.projector(self.encoder.embed(images))

"""The small multi-layer perceptrons that tasks put behind an encoder: projectors and predictors."""

from __future__ import annotations

from torch import nn


def projector(
    inputs: int, hidden: int, outputs: int, *, layers: int, norm: bool = True, last_norm: bool = False
) -> nn.Sequential:
    """Return `layers` linear layers, with ReLU between them.

    Args:
        inputs: Length of what goes in.
        hidden: Width between the layers.
        outputs: Length of what comes out.
        layers: How many, 1 or more.
        norm: Batch normalisation before each ReLU; such layers have no bias.
        last_norm: Batch normalisation of what comes out too, without scale and shift of its own.

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
    parts.append(nn.Linear(widths[-2], outputs, bias=not last_norm))
    if last_norm:
        parts.append(nn.BatchNorm1d(outputs, affine=False))
    return nn.Sequential(*parts)

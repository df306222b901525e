"""Two networks in one: half of every layer's channels sees a picture's lightness, the other half its colours.

Where no weight leads from one half of a layer's channels to the other half of the next, an ordinary encoder is two
disjoint ones of half the width. It still is an ordinary encoder, with the same file and the same answers, one map per
stage.

Source: Zhang, Isola and Efros 2017, arXiv 1611.09842, section 3.2 (two disjoint sub-networks, concatenated).
Deviations: the first layer is linear in sRGB, so that lightness is luma, and colours are what is left when grey is
    added or taken away, where the paper feeds L and ab of CIE Lab; half of the encoder's weights are zero, where the
    paper leaves them out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pretext.encoders.base import Encoder, evaluating
from pretext.transforms.augmentation import LUMA


@torch.no_grad()
def keep_apart(encoder: Encoder) -> None:
    """Set to zero, in place, all by which one half would learn of the other: after every step that moves weights."""
    for module in encoder.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        weight, inputs = module.weight, module.weight.shape[1]
        half = len(weight) // 2
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            _see_one_side(weight, half, encoder)
        elif not (isinstance(module, nn.Conv2d) and module.groups > 1):  # groups are halves of halves already
            weight[:half, inputs // 2 :] = 0
            weight[half:, : inputs // 2] = 0


@torch.no_grad()
def part(encoder: Encoder) -> None:
    """Make an encoder two; each filter keeps its length, so that what flows through does not fade.

    Raises:
        ValueError: If its layers do not allow it.
    """
    kernels = [module.weight for module in encoder.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    before = [_lengths(kernel) for kernel in kernels]
    keep_apart(encoder)
    for kernel, length in zip(kernels, before, strict=True):
        kernel.mul_(length / _lengths(kernel).clamp(min=1e-12))
    if not are_apart(encoder):
        raise ValueError(
            "the encoder's layers mix all channels (by attention, normalisation across channels or unequal groups), "
            "so that its halves cannot be kept apart; take alexnet with norm=batch, or timm:resnet18"
        )


@torch.no_grad()
def are_apart(encoder: Encoder) -> bool:
    """Return whether, at every stage, more grey changes the first half of the channels only, more colour the second."""
    device = next(encoder.parameters()).device
    draw = torch.Generator().manual_seed(0)
    size = encoder.input_size
    picture = torch.rand(1, 3, size, size, generator=draw).to(device)
    grey, colour = (10 * torch.rand(1, n, size, size, generator=draw).to(device) for n in (1, 3))
    luma = colour.new_tensor(LUMA).view(1, 3, 1, 1)
    shown = (picture, picture + grey, picture + colour - (luma * colour).sum(1, keepdim=True))
    with evaluating(encoder):
        maps, brighter, tinted = map(encoder, shown)
    first, second = (lambda m: m[:, : m.shape[1] // 2]), (lambda m: m[:, m.shape[1] // 2 :])
    return _equal(maps, tinted, first) and _equal(maps, brighter, second)


def _see_one_side(weight: Tensor, half: int, encoder: Encoder) -> None:
    """Project the first layer's filters: the first half on luma, the second on what takes no notice of grey."""
    luma = (weight.new_tensor(LUMA) * weight.new_tensor(encoder.std)).view(1, 3, 1, 1)  # of normalised channels
    grey = (1 / weight.new_tensor(encoder.std)).view(1, 3, 1, 1)
    weight[:half] = luma * (weight[:half] * luma).sum(1, keepdim=True) / luma.square().sum()
    weight[half:] -= grey * (weight[half:] * grey).sum(1, keepdim=True) / grey.square().sum()


def _lengths(kernel: Tensor) -> Tensor:
    return kernel.flatten(1).norm(dim=1).view(-1, *[1] * (kernel.ndim - 1))


def _equal(maps: list[Tensor], others: list[Tensor], half: Callable[[Tensor], Tensor]) -> bool:
    return all(
        bool((half(a) - half(b)).abs().max() <= 1e-4 * half(b).abs().max() + 1e-6)
        for a, b in zip(maps, others, strict=True)
    )

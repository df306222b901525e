"""Split an encoder into two disjoint networks: half of each layer's channels sees lightness, the other half colour.

If all weights between the first half of one layer's channels and the second half of the next are zero, an encoder
consists of two disjoint encoders of half the width. It is still an ordinary encoder, with the same file format and one
map per stage.

Source: Zhang, Isola and Efros 2017, arXiv 1611.09842, section 3.2 (two disjoint sub-networks, concatenated).
Deviations: the first layer is linear in sRGB. Lightness is therefore luma, and colour is what does not change when
    grey is added; the paper feeds L and ab of CIE Lab. Half of the encoder's weights are zero; the paper omits them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pretext.encoders.base import Encoder, evaluating
from pretext.transforms.augmentation import LUMA


@torch.no_grad()
def zero_cross_weights(encoder: Encoder) -> None:
    """Zero the weights that connect the two halves, in place. Call after every optimiser step."""
    for module in encoder.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        weight, inputs = module.weight, module.weight.shape[1]
        half = len(weight) // 2
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            _project_first_layer(weight, half, encoder)
        elif not (isinstance(module, nn.Conv2d) and module.groups > 1):  # groups already separate the halves
            weight[:half, inputs // 2 :] = 0
            weight[half:, : inputs // 2] = 0


@torch.no_grad()
def split_in_halves(encoder: Encoder) -> None:
    """Split an encoder into two disjoint halves, in place.

    Each filter is rescaled to its former norm, so that activations keep their scale.

    Raises:
        ValueError: If the encoder's layers mix all channels.
    """
    kernels = [module.weight for module in encoder.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    before = [_filter_norms(kernel) for kernel in kernels]
    zero_cross_weights(encoder)
    for kernel, norm in zip(kernels, before, strict=True):
        kernel.mul_(norm / _filter_norms(kernel).clamp(min=1e-12))
    if not halves_are_disjoint(encoder):
        raise ValueError(
            f"{encoder.spec} cannot be split in halves, because its layers mix all channels (attention, normalisation "
            "across channels or unequal groups); give alexnet?norm=batch or timm:resnet18"
        )


@torch.no_grad()
def halves_are_disjoint(encoder: Encoder) -> bool:
    """Return whether lightness affects only the first half of the channels at every stage, and colour the second."""
    device = next(encoder.parameters()).device
    draw = torch.Generator().manual_seed(0)
    size = encoder.input_size
    image = torch.rand(1, 3, size, size, generator=draw).to(device)
    grey, colour = (10 * torch.rand(1, n, size, size, generator=draw).to(device) for n in (1, 3))
    luma = colour.new_tensor(LUMA).view(1, 3, 1, 1)
    inputs = (image, image + grey, image + colour - (luma * colour).sum(1, keepdim=True))
    with evaluating(encoder):
        maps, brighter, tinted = map(encoder, inputs)
    first, second = (lambda m: m[:, : m.shape[1] // 2]), (lambda m: m[:, m.shape[1] // 2 :])
    return _equal(maps, tinted, first) and _equal(maps, brighter, second)


def _project_first_layer(weight: Tensor, half: int, encoder: Encoder) -> None:
    """Project the first layer's filters: the first half onto luma, the second onto colours orthogonal to grey."""
    luma = (weight.new_tensor(LUMA) * weight.new_tensor(encoder.std)).view(1, 3, 1, 1)  # in normalised channels
    grey = (1 / weight.new_tensor(encoder.std)).view(1, 3, 1, 1)
    weight[:half] = luma * (weight[:half] * luma).sum(1, keepdim=True) / luma.square().sum()
    weight[half:] -= grey * (weight[half:] * grey).sum(1, keepdim=True) / grey.square().sum()


def _filter_norms(kernel: Tensor) -> Tensor:
    return kernel.flatten(1).norm(dim=1).view(-1, *[1] * (kernel.ndim - 1))


def _equal(maps: list[Tensor], others: list[Tensor], half: Callable[[Tensor], Tensor]) -> bool:
    return all(
        bool((half(a) - half(b)).abs().max() <= 1e-4 * half(b).abs().max() + 1e-6)
        for a, b in zip(maps, others, strict=True)
    )

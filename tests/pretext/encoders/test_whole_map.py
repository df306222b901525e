"""Convolutions as large as their map: PyTorch's own give the same maps and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pretext.encoders.whole_map import WholeMapConv2d, WholeMapConvTranspose2d


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("ours", "theirs", "sides"),
    [
        (WholeMapConv2d, nn.Conv2d, [(4, 4), (5, 6), (4, 7)]),
        (WholeMapConvTranspose2d, nn.ConvTranspose2d, [(1, 1), (2, 3), (1, 2)]),
    ],
)
def test_maps_and_gradients_are_those_of_the_convolution(ours, theirs, sides, layout):
    torch.manual_seed(0)
    one, other = ours(6, 5, 4), theirs(6, 5, 4)
    other.load_state_dict(one.state_dict())
    one, other = one.to(memory_format=layout), other.to(memory_format=layout)
    for side in sides:
        found = []
        for layer in (one, other):
            layer.zero_grad()
            maps = torch.randn(3, 6, *side, generator=torch.Generator().manual_seed(1))
            maps = maps.to(memory_format=layout).requires_grad_()
            out = layer(maps)
            (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
            found.append([out, maps.grad, layer.weight.grad, layer.bias.grad])
        for mine, expected in zip(*found, strict=True):
            torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-5)

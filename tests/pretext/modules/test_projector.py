"""Projectors and momentum copies."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pretext.modules.momentum_encoder import MomentumCopy, rising_momentum
from pretext.modules.projector import projector


@pytest.mark.parametrize(
    ("layers", "norm", "last_norm", "expected"),
    [
        (1, True, False, [nn.Linear]),
        (2, False, False, [nn.Linear, nn.ReLU, nn.Linear]),
        (2, True, True, [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d]),
        (3, True, False, [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]),
    ],
)
def test_a_projector_has_its_layers(layers, norm, last_norm, expected):
    made = projector(5, 7, 3, layers=layers, norm=norm, last_norm=last_norm)
    assert [type(part) for part in made] == expected
    assert made(torch.randn(4, 5)).shape == (4, 3)
    linears = [part for part in made if isinstance(part, nn.Linear)]
    assert [part.bias is None for part in linears] == [norm] * (layers - 1) + [last_norm]


def test_a_copy_follows_and_gets_no_gradient():
    network = nn.Linear(3, 2)
    slow = MomentumCopy(network)
    old = network.weight.detach().clone()
    with torch.no_grad():
        network.weight += 1
    slow.follow(network, 0.9)
    torch.testing.assert_close(slow.network.weight, 0.9 * old + 0.1 * (old + 1))
    assert not any(parameter.requires_grad for parameter in slow.parameters())
    assert not slow(torch.ones(1, 3)).requires_grad


def test_momentum_rises_as_a_cosine():
    assert rising_momentum(0.99, 0) == pytest.approx(0.99)
    assert rising_momentum(0.99, 1) == 1
    assert rising_momentum(0.99, 1 / 3) == pytest.approx(1 - 0.01 * (math.cos(math.pi / 3) + 1) / 2)

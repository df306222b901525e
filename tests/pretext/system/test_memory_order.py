"""A step in memory order has the weights and moments of a plain step, and copies no gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from pretext.system import memory_order
from pretext.system.memory_order import steps_in_memory_order

KINDS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "adam": lambda weights: torch.optim.Adam(weights, lr=1e-2, fused=True),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=1e-2, weight_decay=0.1, fused=True),
    "sgd": lambda weights: torch.optim.SGD(weights, lr=1e-2, momentum=0.9, fused=True),
}


@pytest.fixture(autouse=True)
def _turn_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_order, "LEAST", 1)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 6, 4), nn.ReLU(), nn.ConvTranspose2d(6, 5, 2), nn.Conv2d(5, 1, 1))
    return layers.to(memory_format=torch.channels_last)


def steps(optimizer: torch.optim.Optimizer, layers: nn.Module, count: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        images = torch.randn(2, 3, 9, 9, generator=generator).to(memory_format=torch.channels_last)
        optimizer.zero_grad(set_to_none=True)
        layers(images).square().mean().backward()
        optimizer.step()


def moments(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_moments_are_those_of_a_plain_step(kind: str) -> None:
    plain, turned = network(), network()
    one, other = KINDS[kind]([*plain.parameters()]), steps_in_memory_order(KINDS[kind]([*turned.parameters()]))
    steps(one, plain, 3)
    steps(other, turned, 3)
    for first, second in zip(plain.parameters(), turned.parameters(), strict=True):
        assert first.shape == second.shape
        assert first.stride() == second.stride()
        assert torch.equal(first, second)
    for first, second in zip(moments(one), moments(other), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_stored_before_goes_on(kind: str) -> None:
    plain, turned = network(), network()
    one, other = KINDS[kind]([*plain.parameters()]), steps_in_memory_order(KINDS[kind]([*turned.parameters()]))
    steps(one, plain, 2)
    turned.load_state_dict(plain.state_dict())
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    steps(one, plain, 2)
    steps(other, turned, 2)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), turned.parameters(), strict=True))


def test_a_weight_without_a_gradient_stays() -> None:
    layers = network()
    layers[0].weight.requires_grad_(False)
    before = layers[0].weight.clone()
    steps(steps_in_memory_order(torch.optim.Adam(layers.parameters(), lr=1e-2, fused=True)), layers, 2)
    assert torch.equal(layers[0].weight, before)


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_is_copied(kind: str) -> None:
    layers = network()
    optimizer = steps_in_memory_order(KINDS[kind]([*layers.parameters()]))
    steps(optimizer, layers, 1)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
        optimizer.step()
    clones = [event for event in found.events() or [] if event.name == "aten::clone"]
    assert not clones

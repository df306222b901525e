"""Processes that torchrun has not started: its variables set by hand, and gradients averaged with a pretended other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pretext.system import distributed
from pretext.system.distributed import average_gradients, join_processes, one_voice
from pretext.system.errors import UserError


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set, and RANK and MASTER_ADDR and MASTER_PORT not; start .* by torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "WORLD_SIZE is set, and MASTER_ADDR and MASTER_PORT not"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE is 'two'; torchrun sets a number"),
        ({"WORLD_SIZE": "2", "RANK": "x", "MASTER_ADDR": "h"}, "RANK is 'x'; torchrun sets a number"),
    ],
)
def test_variables_that_torchrun_did_not_set_are_one_line(monkeypatch, variables, says):
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=says), one_voice():
        join_processes(torch.device("cpu"))


def test_large_gradients_are_averaged_where_they_lie_and_small_ones_together(monkeypatch):
    exchanged = []

    def add_twice_the_same(tensor):
        assert tensor.is_contiguous()
        exchanged.append((tensor.data_ptr(), tensor.numel()))
        tensor.mul_(3)

    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setattr(distributed, "LARGE", 24)
    monkeypatch.setattr(distributed.dist, "all_reduce", add_twice_the_same)
    gradients = [
        torch.randn(2, 3, 2, 2).to(memory_format=torch.channels_last),
        torch.randn(5),
        torch.randn(6, 4),
        torch.randn(4, 12)[:, ::2],  # with gaps in memory
        torch.randn(3, 1, 1),
    ]
    parameters = [nn.Parameter(torch.zeros(gradient.shape)) for gradient in gradients]
    before = [gradient.clone() for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    average_gradients([*parameters, nn.Parameter(torch.zeros(99))])
    assert exchanged[:2] == [(gradients[0].data_ptr(), 24), (gradients[2].data_ptr(), 24)]
    assert [count for _, count in exchanged[2:]] == [5 + 24 + 3]
    for parameter, gradient in zip(parameters, before, strict=True):
        assert torch.equal(parameter.grad, 3 * gradient / 2)

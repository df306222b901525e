"""The number format of layers: what `auto` means on a CPU, and what is said where bfloat16 is slow."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pretext.system import precision
from pretext.system.precision import autocast, say_if_slow

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("asked", "found"), [("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_layers_compute_in_the_precision_that_was_asked_for(asked, found):
    layer = nn.Linear(4, 3)
    with autocast(asked, CPU):
        assert layer(torch.ones(2, 4)).dtype == found
    assert layer.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("asked", "capabilities", "lines"),
    [
        ("bfloat16", {"avx512_f": True, "avx512_bf16": False}, 1),
        ("bfloat16", {"avx512_bf16": True}, 0),
        ("bfloat16", {"amx_bf16": True}, 0),
        ("auto", {}, 0),
        ("float32", {}, 0),
    ],
)
def test_a_processor_without_the_instructions_is_named_once(asked, capabilities, lines, monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    precision._say_once.cache_clear()
    for _ in range(2):
        say_if_slow(asked, CPU)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == lines
    assert all("has no instructions for it" in line for line in said)


def test_nothing_is_said_where_torch_cannot_tell(monkeypatch, capsys):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    precision._say_once.cache_clear()
    say_if_slow("bfloat16", CPU)
    assert not capsys.readouterr().err

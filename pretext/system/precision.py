"""The number format in which a network's layers compute while it is trained: float32, or bfloat16 by autocast."""

from __future__ import annotations

import functools
import sys
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]
"""auto is bfloat16 on a GPU and float32 on a CPU."""
FAST_ON_CPU = ("avx512_bf16", "amx_bf16", "bf16")
"""Capabilities, as `torch.cpu.get_capabilities` names them, any of which multiplies bfloat16 in hardware."""


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return the context in which layers compute in a precision; weights, and what they are stored as, stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=used(precision, device) == "bfloat16")


def used(precision: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """Return the number format that a precision stands for on a device."""
    if precision == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    return precision


def say_if_slow(precision: Precision, device: torch.device) -> None:
    """Say on stderr, once per process, that a CPU without instructions for bfloat16 is to compute in it."""
    if precision == "bfloat16" and device.type == "cpu" and not _multiplies_bfloat16():
        _say_once()


@functools.cache
def _say_once() -> None:
    print(
        "precision bfloat16: this processor has no instructions for it and takes 2 to 11 times as long as with float32",
        file=sys.stderr,
        flush=True,
    )


def _multiplies_bfloat16() -> bool:
    """Return whether this CPU has instructions for products of bfloat16; True if this version of torch cannot say."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # torch 2.9 and later
    if capabilities is None:
        return True
    found = capabilities()
    return any(found.get(name, False) for name in FAST_ON_CPU)

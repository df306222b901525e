"""Encoders: pictures in, one map per stage out. One file a family; `build_encoder` finds it by name."""

from __future__ import annotations

import importlib
import pkgutil

import torch

from pretext.encoders.base import Encoder, Stage
from pretext.encoders.files import load_encoder, read_record, save_encoder
from pretext.system.errors import UserError, did_you_mean
from pretext.system.specs import options_into, parse_spec

__all__ = [
    "Encoder",
    "Stage",
    "build_encoder",
    "encoder_names",
    "load_encoder",
    "read_record",
    "save_encoder",
]


def encoder_names() -> list[str]:
    """Return the known families."""
    beside = ("base", "files", "foreign", "weights")
    return [info.name for info in pkgutil.iter_modules(__path__) if info.name not in beside]


def build_encoder(spec: str, *, input_size: int, seed: int) -> Encoder:
    """Build an encoder with random weights, unless the spec asks for others.

    The same spec, size and seed give the same weights, whatever was drawn before.

    Args:
        spec: `alexnet`, `alexnet?width=0.5&stem_stride=2`, `released`, `timm:NAME`, …; each with `weights=FILE` for
            weights from elsewhere.
        input_size: Side in pixels of the pictures it will see.
        seed: Of the initial weights.

    Raises:
        UserError: If the spec cannot be understood or built at this size.
    """
    parsed = parse_spec(spec)
    if parsed.kind not in encoder_names():
        raise UserError(f"unknown encoder {parsed.kind!r}; {did_you_mean(parsed.kind, encoder_names())}")
    family = importlib.import_module(f"pretext.encoders.{parsed.kind}")
    config = options_into(family.Config, parsed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return family.build(spec, parsed.path, config, input_size)
        except ValueError as error:
            raise UserError(f"{spec}: {error}") from None

"""Encoders: a batch of images in, one feature map per stage out.

To add a family, add one module with `Config` and `build`; `build_encoder` finds it by name.

base      `Encoder`, the interface of all families, and `Stage`
alexnet   family: the paper's AlexNet
released  family: encoder of the released inpainting network
timm      family: any timm model, as `timm:NAME`
pictures  pictures of any kind as batches: arrays, PIL pictures, paths and lists for `Encoder.embed`
files     encoder files: write, load, read the header, hash
weights   read the tensors of a .safetensors or .pth file
refusals  say what a refused weight file holds besides tensors
foreign   external checkpoints: find an encoder among their tensors
layouts   tables of the tensor names of other projects
translated torchvision's names of the networks that timm has too
"""

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
    """Return the names of the encoder families."""
    other = ("base", "files", "foreign", "layouts", "pictures", "refusals", "translated", "weights")
    return [info.name for info in pkgutil.iter_modules(__path__) if info.name not in other]


def build_encoder(spec: str, *, input_size: int, seed: int) -> Encoder:
    """Build an encoder with random weights, or with those that the spec names.

    The same spec, size and seed give the same weights; the global random state is neither used nor changed.

    Args:
        spec: For example `alexnet`, `alexnet?width=0.5&stem_stride=2`, `released` or `timm:NAME`. The option
            `weights=FILE` loads an external checkpoint.
        input_size: Side of the input images in pixels.
        seed: Seed of the initial weights.

    Raises:
        UserError: If the spec is invalid or cannot be built at this input size.
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

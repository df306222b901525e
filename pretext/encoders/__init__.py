"""Encoders: a batch of images in, one feature map per stage out.

To add a family, add one module with `Config` and `build`; `build_encoder` finds it by name. A user's own file,
`my_encoder.py`, has the same two and is found by its path.

base         `Encoder`, the interface of all families, and `Stage`
alexnet      family: the paper's AlexNet
released     family: encoder of the released inpainting network
hog          family without learning: histograms of oriented gradients
pixels       family without learning: the picture itself
timm         family: any timm model, as `timm:NAME`
torchvision  family: any classification network of torchvision, as `torchvision:NAME`
own          encoders in a user's own file
whole_map    convolutions as large as their map, as the matrix products that they are
wrapped      any module as an encoder: `Encoder.wrap`
tracing      find the maps inside a module
trials       run an encoder on blank images: what it returns and what it cannot read
torchvision_parts  an encoder as the backbone of torchvision's detectors and segmentation networks
pictures     pictures of any kind as batches: arrays, PIL pictures, paths and lists for `Encoder.embed`
files        encoder files: write, load, read the header, hash
weights      read the tensors of a .safetensors or .pth file
refusals     say what a refused weight file holds besides tensors
foreign      external checkpoints: find an encoder among their tensors
layouts      tables of the tensor names of other projects
translated   torchvision's names of the networks that timm has too
"""

from __future__ import annotations

import importlib

import torch

from pretext.encoders.base import Encoder, Stage
from pretext.encoders.files import load_encoder, read_record, save_encoder
from pretext.encoders.own import build_from_file
from pretext.encoders.trials import check_stages
from pretext.encoders.wrapped import KIND
from pretext.system.catalogue import encoder_names
from pretext.system.errors import UserError, did_you_mean
from pretext.system.plugins import is_file
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


def build_encoder(spec: str, *, input_size: int, seed: int) -> Encoder:
    """Build an encoder with random weights, or with those that the spec names.

    The same spec, size and seed give the same weights; the global random state is neither used nor changed.

    Args:
        spec: For example `alexnet`, `alexnet?width=0.5&stem_stride=2`, `released`, `timm:NAME`, `torchvision:NAME` or
            `my_encoder.py?key=value`. The option `weights=FILE` loads an external checkpoint.
        input_size: Side of the input images in pixels.
        seed: Seed of the initial weights.

    Raises:
        UserError: If the spec is invalid or cannot be built at this input size, or its maps are not those that its
            stages declare.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            encoder = build_from_file(spec, input_size) if is_file(spec) else _build_family(spec, input_size)
        except ValueError as error:
            raise UserError(f"{spec}: {error}") from None
    return check_stages(encoder)


def _build_family(spec: str, input_size: int) -> Encoder:
    parsed = parse_spec(spec)
    if parsed.kind == KIND:
        raise UserError(
            f"{spec} was wrapped by Encoder.wrap, and only Python can build it: load_encoder(FILE, module=…). Commands "
            "take a file of your own instead, my_encoder.py; CONTRIBUTING.md has an example"
        )
    if parsed.kind not in encoder_names():
        raise UserError(f"unknown encoder {parsed.kind!r}; {did_you_mean(parsed.kind, encoder_names())}")
    family = importlib.import_module(f"pretext.encoders.{parsed.kind}")
    return family.build(spec, parsed.path, options_into(family.Config, parsed), input_size)

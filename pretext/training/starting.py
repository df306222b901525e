"""The encoder that a training run starts with: random weights, given weights, or a module of the caller."""

from __future__ import annotations

import sys

from pretext.encoders import Encoder, build_encoder, load_encoder
from pretext.encoders.foreign import FILE_OPTIONS, loaded_line
from pretext.encoders.weights import is_spec
from pretext.system.distributed import rank
from pretext.system.errors import UserError
from pretext.system.plugins import absolute_file
from pretext.system.specs import Spec, parse_spec, without_options
from pretext.training.config import TrainConfig


def initial_encoder(encoder: str | Encoder | None, config: TrainConfig, image_size: int) -> Encoder:
    """Return the encoder of a run before its first step; print which weights `config.init` has loaded.

    Args:
        encoder: See `train`.
        config: Its `init` names the weights to start from; its `seed` draws random ones.
        image_size: Side of the images in pixels.

    Raises:
        UserError: If the weights cannot be loaded whole, are of another architecture, or are for another image size.
    """
    init = config.init
    if init is None:
        if encoder is None:
            raise UserError("no encoder is given; name one, or weights to start from (init)")
        if isinstance(encoder, str):
            return build_encoder(encoder, input_size=image_size, seed=config.seed)
        built = encoder
    elif isinstance(encoder, Encoder):
        raise UserError(f"the encoder has weights of its own, and init is {init}; give a spec or None as the encoder")
    else:
        built = load_encoder(init, input_size=image_size if is_spec(init) else None)
        if encoder is not None and _architecture(encoder) != _architecture(built.spec):
            raise UserError(f"init {init} is {built.spec}, not {encoder}; give the encoder {built.spec}, or none")
    if built.input_size != image_size:
        raise UserError(f"image_size is {image_size}, but the encoder was made for {built.input_size} px")
    if init is not None:
        if rank() == 0:
            print(f"starts from {loaded_line(built, init)}", file=sys.stderr, flush=True)
        built.record = {"weights": {"source": init, **built.record}}
    return built


def _architecture(spec: str) -> Spec:
    """Return a spec without what selects weights; the order of its options does not count."""
    return parse_spec(absolute_file(without_options(spec, "pretrained", *FILE_OPTIONS)))

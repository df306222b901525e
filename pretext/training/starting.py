"""What a training run starts with: the encoder (random weights, given ones, or a module), and what a task prepares."""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from pretext.datasets.base import ImageDataset
from pretext.encoders import Encoder, build_encoder, load_encoder
from pretext.encoders.foreign import FILE_OPTIONS, loaded_line
from pretext.encoders.weights import is_spec
from pretext.system.distributed import rank, world
from pretext.system.errors import UserError
from pretext.system.plugins import absolute_file
from pretext.system.specs import Spec, parse_spec, without_options
from pretext.tasks.base import Task
from pretext.training.config import TrainConfig
from pretext.training.left_out import LeftOut
from pretext.training.loading import load_batches
from pretext.training.micro_batches import seeded_generator
from pretext.training.stopwatch import Spent, stopwatch


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


def prepared(
    model: Task, data: ImageDataset, config: TrainConfig, device: torch.device, left_out: LeftOut
) -> tuple[Spent, int]:
    """Call `Task.prepare` on the same images in every process; return the time that it took, and their number."""
    spent = stopwatch(Spent(), processes=world())
    count = min(model.prepares_on, len(data))
    batch = next(
        load_batches(
            data,
            count,
            side=model.encoder.input_size,
            seed=config.seed,
            first=0,
            rank=0,
            world=1,
            labels=False,
            workers=0,
            left_out=left_out,
        )
    )
    if not left_out.share(len(batch), count):
        raise UserError(f"{data.spec}: cannot decode any of {count} images in a row; check the files")
    generator = seeded_generator(device, config.seed, 0, 0, 0, 1)
    model.prepare(replace(batch.to(device), generator=generator))
    return spent(), len(batch)


def _architecture(spec: str) -> Spec:
    """Return a spec without what selects weights; the order of its options does not count."""
    return parse_spec(absolute_file(without_options(spec, "pretrained", *FILE_OPTIONS)))

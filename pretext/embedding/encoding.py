"""Encode a batch of pictures, and pool a stage's map into one vector per picture."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pretext.encoders.base import Encoder, evaluating
from pretext.modules.pooling import averaged
from pretext.system.errors import UserError, did_you_mean

MIN_BATCH = 16
"""Smaller batches are padded to this size, so that features do not depend on the other images of a batch."""
MOST_CELLS = 64
"""Largest number of cells per side that a map is averaged to."""


def padded(images: UInt8[Tensor, "B 3 S S"]) -> UInt8[Tensor, "B2 3 S S"]:
    """Pad small batches with the last image: kernels for tiny batches differ in the last bits."""
    missing = MIN_BATCH - len(images)
    return torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing > 0 else images


def stage_maps(encoder: Encoder, images: UInt8[Tensor, "B 3 S S"]) -> dict[str, Float[Tensor, "B C H W"]]:
    """Return the map of every stage by name, on the encoder's device, in evaluation mode and without gradients.

    Args:
        encoder: The encoder; its mode is restored.
        images: At least one image, on any device.
    """
    device = next(encoder.parameters()).device
    with evaluating(encoder), torch.inference_mode():
        maps = encoder(padded(images).to(device))
    return {stage.name: each[: len(images)] for stage, each in zip(encoder.stages, maps, strict=True)}


def stage_named(encoder: Encoder, name: str | None) -> str:
    """Return `name` if the encoder has that stage; the deepest stage if it is None."""
    names = [stage.name for stage in encoder.stages]
    if name is not None and name not in names:
        raise UserError(f"encoder {encoder.spec} has no stage {name!r}; {did_you_mean(name, names)}")
    return names[-1] if name is None else name


def check_finite(encoder: Encoder, stage: str, values: Tensor) -> None:
    """Raise a `UserError` if features of a stage are not finite."""
    if not values.isfinite().all():
        raise UserError(
            f"encoder {encoder.spec}: features of stage {stage} are not finite; check the encoder's weights"
        )


def check_pooling(pool: str) -> None:
    """Raise a `ValueError` unless `pool` is mean, max or a number of cells."""
    if pool not in ("mean", "max") and not (pool.isdecimal() and 1 <= int(pool) <= MOST_CELLS):
        raise ValueError(f"pool is {pool}; allowed is mean, max, or a number of cells per side from 1 to {MOST_CELLS}")


def pooled_by(maps: Float[Tensor, "B C H W"], pool: str) -> Float[Tensor, "B D"]:
    """Return one vector per map.

    Args:
        maps: Maps of one stage.
        pool: `mean` or `max` over all cells of the map, D = C; or a number N: the means of N×N equal parts of the map,
            D = C·N², channel by channel, each row by row. A map that is smaller than N×N repeats its cells.
    """
    if pool == "max":
        return maps.amax(dim=(2, 3))
    return averaged(maps, 1 if pool == "mean" else int(pool)).flatten(1)

"""Reload a written file by the lines that a user types, and compare its outputs with the encoder's."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from pretext.encoders.base import Encoder, evaluating
from pretext.exporting.differences import NONE, Difference
from pretext.exporting.prepared import Prepared, run
from pretext.system.errors import UserError

BATCHES = (1, 3)
"""Sizes of the random batches: both differ from the one with which graphs are made."""


def compared(encoder: Encoder, prepared: Prepared, file: Path) -> Difference:
    """Load a file by its own lines and compare it with the encoder: vectors, and maps from the deepest on.

    Args:
        encoder: On the CPU.
        prepared: The format, with the lines.
        file: What was written; its name has the format's suffix.

    Raises:
        UserError: If the other library does not load the file, or gives outputs of another shape.
    """
    with warnings.catch_warnings(), torch.no_grad(), evaluating(encoder):
        warnings.simplefilter("ignore")  # of the other library
        try:
            loaded = run(prepared.load(str(file)))
            if not prepared.use:
                return _of_tensors(prepared, loaded["tensors"])
            found = NONE
            for batch in BATCHES:
                found = found.or_larger(_on_images(encoder, prepared, loaded, batch))
            return found
        except UserError:
            raise
        except Exception as error:  # of every kind, because it is another library's
            first = " ".join(str(error).split())[:300] or type(error).__name__
            raise UserError(
                f"{prepared.title}: its loader refuses the file ({first}), so nothing was written; give another --to"
            ) from error


def _on_images(encoder: Encoder, prepared: Prepared, loaded: dict[str, Any], batch: int) -> Difference:
    side = encoder.input_size
    images = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(batch))
    given = run(prepared.use, loaded | {"images": images.numpy() if prepared.takes_arrays else images})
    theirs = [torch.as_tensor(each) for each in (given["vectors"], *reversed(given["maps"]))]
    maps = encoder(images)
    ours = [maps[-1].mean(dim=(2, 3)), *reversed(maps)][: len(theirs)]
    found = NONE
    for their, our in zip(theirs, ours, strict=False):
        if their.shape != our.shape:
            raise UserError(
                f"{prepared.title} gives outputs of shape {tuple(their.shape)}, the encoder {tuple(our.shape)}, so "
                "nothing was written; give another --to"
            )
        found = found.or_larger(Difference.between(their, our))
    return found


def _of_tensors(prepared: Prepared, tensors: dict[str, torch.Tensor]) -> Difference:
    """Compare named tensors, where no lines say how to use them."""
    if set(tensors) != set(prepared.tensors):
        raise UserError(f"{prepared.title}: the file has other names than were written; nothing was written")
    found = NONE
    for name, value in prepared.tensors.items():
        found = found.or_larger(Difference.between(tensors[name].float(), value.float()))
    return found

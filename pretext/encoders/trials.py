"""Run a network on blank images: the shapes of what it returns, and what it cannot read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pretext.encoders.base import Encoder, evaluating
from pretext.system.errors import UserError

Result = TypeVar("Result")

COMPUTED = 64
"""Side in pixels of the largest images that are computed: up to it, that is faster than to find shapes alone."""


def on_blank_images(network: nn.Module, shape: tuple[int, int, int, int], run: Callable[[Tensor], Result]) -> Result:
    """Return `run(images)` on blank images, without changing the network or the random state.

    Where images are large, the network's tensors are replaced by ones without values meanwhile, so that nothing is
    computed. A network that needs values (one with tensors that are neither parameters nor buffers, say) is run as it
    is.

    Args:
        network: Its parameters and buffers are replaced while `run` runs.
        shape: Shape B×3×H×W of the images.
        run: Runs the network, or a part of it.

    Raises:
        Exception: Whatever the network raises.
    """
    call = _Call(network, run)
    parameters = {f"network.{name}": value for name, value in network.named_parameters()}
    buffers = {f"network.{name}": value for name, value in network.named_buffers()}
    device = next((value.device for value in (parameters | buffers).values()), torch.device("cpu"))
    with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if shape[2] * shape[3] > COMPUTED**2:
            try:
                empty = {name: torch.empty_like(value, device="meta") for name, value in (parameters | buffers).items()}
                return torch.func.functional_call(call, empty, (torch.zeros(shape, device="meta"),))
            except Exception:  # of every kind; if it is the network's, it comes again
                pass
        copies = {name: value.clone() for name, value in buffers.items()}
        return torch.func.functional_call(call, copies, (torch.zeros(shape, device=device),))


class _Call(nn.Module):
    """Makes a function of a network a module, as `functional_call` needs it."""

    def __init__(self, network: nn.Module, run: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.network = network
        self.runs = (run,)  # not as an attribute: a network would become a second module of the same tensors

    def forward(self, images: Tensor) -> Any:
        return self.runs[0](images)


def check_stages(encoder: Encoder) -> Encoder:
    """Check that an encoder reads images of its input size and returns the maps that its stages declare; return it.

    Raises:
        UserError: If it does not; the line names the stage.
    """
    side = encoder.input_size
    shapes = check_reads(encoder, side, side, why="its input size", remedy="give another image size")
    if not encoder.stages or len(shapes) != len(encoder.stages):
        raise UserError(f"{encoder.spec} returns {len(shapes)} maps and declares {len(encoder.stages)} stages")
    if len({stage.name for stage in encoder.stages}) != len(shapes):
        raise UserError(f"{encoder.spec}: two stages have one name; rename one")
    for stage, shape in zip(encoder.stages, shapes, strict=True):
        text = "×".join(map(str, shape))
        if len(shape) != 4:
            raise UserError(f"{encoder.spec}: stage {stage.name} returns {text}, not a map B×C×H×W")
        if shape[1] != stage.channels:
            raise UserError(f"{encoder.spec}: stage {stage.name} declares {stage.channels} channels and returns {text}")
        cells = side / stage.stride
        if any(abs(found - cells) > max(2, cells / 2) for found in shape[2:]):
            raise UserError(
                f"{encoder.spec}: stage {stage.name} declares stride {stage.stride}, and its map of a picture of "
                f"{side} px has {shape[2]}×{shape[3]} cells"
            )
    return encoder


def check_reads(encoder: Encoder, height: int, width: int, *, why: str, remedy: str) -> list[tuple[int, ...]]:
    """Check that an encoder, in evaluation mode, reads images of a size; return the shapes of its maps.

    Args:
        encoder: The encoder.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        why: What the size is, for the error.
        remedy: What to do, for the error.

    Raises:
        UserError: If it cannot.
    """
    try:
        with evaluating(encoder):
            maps = on_blank_images(encoder, (1, 3, height, width), encoder)
            return [tuple(each.shape) for each in maps]
    except Exception as error:  # whatever a network of somebody's own raises
        size = f"{height} px" if height == width else f"{height}×{width} px"
        raise UserError(
            f"{encoder.spec} cannot read images of {size}, {why} ({first_line(error)}); {remedy}"
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, without a full stop, or its class's name if it has none."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)  # a terminal's colours
    text = re.sub(r" but got Proxy\(.*?\)", "", text)  # in assertions of a traced network
    return text.rstrip(".!") or type(error).__name__

"""Which of an encoder's parameters lie how deep: for freezing the first stages, and for slowing them down."""

from __future__ import annotations

import copy
import re

import torch

from pretext.encoders.base import Encoder
from pretext.system.errors import UserError, did_you_mean

BLOCK = re.compile(r"(?:.*?\.)?\d+(?=\.)")
"""The name of a numbered part, `model.layer1.0` or `model.blocks.11`: the outermost one that a parameter lies in."""


def stage_of_parameters(encoder: Encoder) -> dict[str, int]:
    """Return the index of the first stage whose map depends on each parameter, by the parameter's name.

    What no map depends on counts as the deepest stage's.

    Args:
        encoder: Any; left as it was.
    """
    encoder = copy.deepcopy(encoder).eval().requires_grad_(True)
    names, parameters = zip(*encoder.named_parameters(), strict=True)
    side = encoder.input_size
    found: dict[str, int] = {}
    with torch.enable_grad():
        maps = encoder(torch.zeros(1, 3, side, side, device=parameters[0].device))
        for stage, read in enumerate(maps):
            gradients = torch.autograd.grad(read.sum(), parameters, retain_graph=True, allow_unused=True)
            for name, gradient in zip(names, gradients, strict=True):
                if gradient is not None:
                    found.setdefault(name, stage)
    return {name: found.get(name, len(maps) - 1) for name in names}


def depth_of_parameters(encoder: Encoder) -> dict[str, int]:
    """Return how many blocks lie before each parameter's, by the parameter's name: 0 for the stem.

    A block is a numbered part of a stage (a transformer's block, one of ResNet's, a convolution of AlexNet's). Blocks
    come stage by stage, within a stage as the encoder registers them; what is in no numbered part (a stem, the
    tokens, the embedding of patches) is a block of its own, before its stage's others.

    Args:
        encoder: Any; left as it was.
    """
    stages = stage_of_parameters(encoder)
    blocks: dict[tuple[int, str], list[str]] = {}
    for name, stage in stages.items():
        numbered = BLOCK.match(name)
        blocks.setdefault((stage, numbered[0] if numbered else ""), []).append(name)
    # sorted() keeps the order of registration where stage and kind are the same
    ordered = sorted(blocks, key=lambda block: (block[0], block[1] != ""))
    return {name: depth for depth, block in enumerate(ordered) for name in blocks[block]}


def learning_rate_factors(
    encoder: Encoder, *, factor: float, freeze_to: str = "", layer_decay: float = 1.0
) -> dict[str, float]:
    """Return each parameter's share of the head's learning rate, by the parameter's name; 0 is frozen.

    Args:
        encoder: Any; left as it was.
        factor: Of all parameters.
        freeze_to: Name of the last stage that is left as it is; none where empty.
        layer_decay: Factor from each block to the one before it; the head counts as the block after the last.

    Raises:
        UserError: If the encoder has no such stage.

    Source: Clark et al. 2020 (ELECTRA), layer-wise decay; Bao et al. 2021 (BEiT), for vision transformers.
    """
    names = [stage.name for stage in encoder.stages]
    if freeze_to and freeze_to not in names:
        raise UserError(f"freeze_to: {encoder.spec} has no stage {freeze_to!r}; {did_you_mean(freeze_to, names)}")
    factors = dict.fromkeys((name for name, _ in encoder.named_parameters()), factor)
    if layer_decay != 1:
        depths = depth_of_parameters(encoder)
        blocks = 1 + max(depths.values())
        factors = {name: factor * layer_decay ** (blocks - depths[name]) for name in factors}
    if freeze_to:
        stages = stage_of_parameters(encoder)
        factors = {name: value if stages[name] > names.index(freeze_to) else 0.0 for name, value in factors.items()}
    return factors

"""The depth of an encoder's parameters: for freezing stages, and for layer-wise learning rate decay."""

from __future__ import annotations

import copy
import re

import torch

from pretext.encoders.base import Encoder
from pretext.system.errors import UserError, did_you_mean

BLOCK = re.compile(r"(?:.*?\.)?\d+(?=\.)")
"""The outermost numbered module in a parameter's name: `model.layer1.0`, `model.blocks.11`."""


def stage_of_parameters(encoder: Encoder) -> dict[str, int]:
    """Return the index of the first stage whose map depends on each parameter, by parameter name.

    A parameter that no map depends on belongs to the deepest stage. The encoder is not changed.
    """
    encoder = copy.deepcopy(encoder).eval().requires_grad_(True)
    names, parameters = zip(*encoder.named_parameters(), strict=True)
    side = encoder.input_size
    found: dict[str, int] = {}
    with torch.enable_grad():
        maps = encoder(torch.zeros(1, 3, side, side, device=parameters[0].device))
        for stage, read in enumerate(maps):
            if not read.requires_grad:  # it depends on no parameter
                continue
            gradients = torch.autograd.grad(read.sum(), parameters, retain_graph=True, allow_unused=True)
            for name, gradient in zip(names, gradients, strict=True):
                if gradient is not None:
                    found.setdefault(name, stage)
    return {name: found.get(name, len(maps) - 1) for name in names}


def depth_of_parameters(encoder: Encoder) -> dict[str, int]:
    """Return the number of blocks before each parameter's block, by parameter name; 0 is the stem.

    A block is a numbered module of a stage (a transformer block, a ResNet block, an AlexNet convolution). Blocks are
    ordered by stage, then by registration. Parameters outside of numbered modules (a stem, tokens, the patch embedding)
    form a block before the others of their stage. The encoder is not changed.
    """
    stages = stage_of_parameters(encoder)
    blocks: dict[tuple[int, str], list[str]] = {}
    for name, stage in stages.items():
        numbered = BLOCK.match(name)
        blocks.setdefault((stage, numbered[0] if numbered else ""), []).append(name)
    # sorted() is stable: registration order within a stage
    ordered = sorted(blocks, key=lambda block: (block[0], block[1] != ""))
    return {name: depth for depth, block in enumerate(ordered) for name in blocks[block]}


def learning_rate_factors(
    encoder: Encoder, *, factor: float, freeze_to: str = "", layer_decay: float = 1.0
) -> dict[str, float]:
    """Return the learning rate of each parameter relative to the head's, by parameter name; 0 is frozen.

    Args:
        encoder: The encoder; not changed.
        factor: Factor of all parameters.
        freeze_to: Name of the last frozen stage; empty freezes none.
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

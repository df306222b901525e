"""I-JEPA: predict the features of masked blocks (Assran et al. 2023).

Assran, Duval, Misra, Bojanowski, Vincent, Rabbat, LeCun and Ballas, Self-Supervised Learning from Images with a
Joint-Embedding Predictive Architecture, CVPR 2023, arXiv 2301.08243, section 3: a momentum encoder reads the whole
picture and its tokens in each block are a target; the encoder sees one large block less the targets; a narrow
predictor gets its tokens and a learned one, with its position, at each place of a target. Published (recalled),
ImageNet linear: ViT-B/16 72.9 % (600 epochs), ViT-L/16 77.5 % (600), ViT-H/14 79.3 % (300).

Shortcuts: none has to be blocked by colour changes; a constant encoder would be a solution, and the momentum
encoder with the predictor, and targets that are normalised, are what keeps from it.

Deviations: the encoder's positions are timm's, learned, and a class token goes through it where timm has one; the
predictor has two blocks by default, not six (`ijepa:paper`, the paper's for ViT-B/16); the error is a mean over
values, of layer-normalised targets and smooth at 0 as in the authors' code (`loss=l2` is the paper's text); blocks
may touch all sides of small grids. As in the authors' code, a step's blocks are of one size, and all pictures show as
much context as the one that has least; which is left out is random here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pretext.encoders.base import Encoder
from pretext.modules.momentum_encoder import MomentumCopy
from pretext.modules.tokens import (
    FEWEST,
    FINER,
    PatchTokens,
    gather_tokens,
    scaled_width,
    sincos_positions,
    transformer,
)
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import Augmentation, augment, cropping

TRIES = 8
"""Placings of a picture's blocks that are drawn; the first is taken that leaves enough context."""


class Blocks(NamedTuple):
    """Which patches are shown, and which are to be predicted."""

    context: Int[Tensor, "B K"]
    targets: Int[Tensor, "B T N"]


def draw_blocks(count: int, grid: int, config: IJEPA.Config, generator: torch.Generator) -> Blocks:
    """Return the context and the targets of `count` pictures; no patch is in both.

    Source: section 3 (Targets, Context) and appendix A.1: targets of aspect 0.75 to 1.5, a square context.
    """
    device = generator.device
    area, aspect, around = torch.rand(3, generator=generator, device=device).tolist()
    area = config.target_min + (config.target_max - config.target_min) * area
    sizes = [block_size(area, 0.75 + 0.75 * aspect, grid)] * config.targets
    sizes.append(block_size(config.context_min + (1 - config.context_min) * around, 1.0, grid))
    height, width = torch.tensor(sizes, device=device).unbind(1)
    places = torch.rand(2, TRIES, count, len(sizes), generator=generator, device=device)
    top, left = (places[0] * (grid - height + 1)).long(), (places[1] * (grid - width + 1)).long()
    at = torch.arange(grid, device=device)
    rows = (at >= top[..., None]) & (at < (top + height)[..., None])
    columns = (at >= left[..., None]) & (at < (left + width)[..., None])
    inside = (rows[..., :, None] & columns[..., None, :]).flatten(3)  # TRIES × B × blocks × N
    context = inside[:, :, -1] & ~inside[:, :, :-1].any(dim=2)
    best = context.sum(dim=2).clamp(max=FEWEST).argmax(dim=0), torch.arange(count, device=device)
    context, top, left = context[best], top[best][:, :-1], left[best][:, :-1]

    shown = int(context.sum(dim=1).min().clamp(min=1))
    order = torch.rand(context.shape, generator=generator, device=device) - context.float()
    (rows_of, columns_of) = (torch.arange(side, device=device) for side in sizes[0])
    targets = (top[..., None] + rows_of)[..., :, None] * grid + (left[..., None] + columns_of)[..., None, :]
    return Blocks(order.argsort(dim=1)[:, :shown], targets.flatten(2))


def block_size(area: float, aspect: float, grid: int) -> tuple[int, int]:
    """Return a block's height and width in patches.

    Args:
        area: As a share of the picture's.
        aspect: Height over width.
        grid: Patches along the picture.
    """
    height, width = (round(grid * (area * ratio) ** 0.5) for ratio in (aspect, 1 / aspect))
    return min(max(height, 1), grid), min(max(width, 1), grid)


@final
class IJEPA(Task):
    """See the module."""

    @dataclass(frozen=True)
    class Config:
        """The blocks, the predictor, the momentum, and how pictures are cropped before."""

        targets: int = 4
        """Number of target blocks to predict in each image."""
        target_min: float = 0.15
        """Smallest area of a target, as a share of the picture's."""
        target_max: float = 0.2
        """Largest area of a target, as a share of the image's."""
        context_min: float = 0.85
        """Smallest area of the context before the targets are taken out of it; the largest is the picture."""
        predictor_width: float = 0.5
        """The predictor's channels, as a share of the encoder's; the paper's are 384 for ViT-B's 768."""
        predictor_depth: int = 2
        """Number of transformer blocks in the predictor."""
        momentum: float = 0.996
        """Share that the target encoder keeps of itself at each step; rises to 1, as a line, over the run."""
        loss: Literal["smooth_l1", "l2"] = "smooth_l1"
        """How predictions and targets are compared."""
        crop_min: float = 0.3
        """Smallest share of the picture's area that a crop shows."""

        def __post_init__(self) -> None:
            if not 1 <= self.targets <= 64:
                raise ValueError(f"targets is {self.targets}; allowed is from 1 to 64")
            for name in ("target_min", "target_max", "context_min"):
                if not 0 < getattr(self, name) <= 1:
                    raise ValueError(f"{name} is {getattr(self, name)}; allowed is above 0 and up to 1")
            if self.target_min > self.target_max:
                raise ValueError(f"target_min is {self.target_min}; allowed is up to target_max={self.target_max}")
            if not 0 < self.predictor_width <= 8:
                raise ValueError(f"predictor_width is {self.predictor_width}; allowed is above 0 and up to 8")
            if not 1 <= self.predictor_depth <= 100:
                raise ValueError(f"predictor_depth is {self.predictor_depth}; allowed is from 1 to 100")
            if not 0 <= self.momentum <= 1:
                raise ValueError(f"momentum is {self.momentum}; allowed is from 0 to 1")
            self.crops()

        def crops(self) -> Augmentation:
            """Return how pictures are cropped: neither mirrored nor recoloured."""
            return cropping(self.crop_min, flip=0.0)

    variants: ClassVar[Mapping[str, Any]] = {"paper": Config(predictor_depth=6)}
    variant_help: ClassVar[Mapping[str, str]] = {
        "paper": "predictor of 6 blocks, as published for ViT-B/16",
    }
    training_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "": {"encoder": "timm:vit_tiny_patch16_224?patch_size=8", "image_size": 64},
        "paper": {"batch_size": 2048},
    }
    """The paper's encoders are `timm:vit_base_patch16_224` and larger, at 224 px."""

    positions: Tensor

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config, self.tokens = config, PatchTokens(encoder)
        if self.tokens.count < 4 * FEWEST:
            raise ValueError(f"{self.tokens.count} patches have no room for the blocks, {4 * FEWEST} have; {FINER}")
        self.target = MomentumCopy(encoder)
        self.target_tokens = PatchTokens(cast("Encoder", self.target.network))
        width = scaled_width(self.tokens.width, config.predictor_width)
        self.enter = nn.Sequential(nn.LayerNorm(self.tokens.width), nn.Linear(self.tokens.width, width))
        self.wanted = nn.Parameter(0.02 * torch.randn(width))
        self.register_buffer("positions", sincos_positions(width, self.tokens.grid), persistent=False)
        self.predictor = transformer(width, config.predictor_depth)
        self.leave = nn.Linear(width, self.tokens.width)

    @torch.no_grad()
    def answers(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N D"]:
        """Return the target encoder's tokens of the whole pictures, each normalised."""
        tokens = self.target_tokens.encode(self.target_tokens.embed(images))
        return F.layer_norm(tokens.float(), tokens.shape[-1:])

    def predicted(self, images: Float[Tensor, "B 3 S S"], blocks: Blocks) -> Float[Tensor, "B T N D"]:
        """Return the tokens of each target as they are predicted from the context alone."""
        seen = self.enter(self.tokens.encode(self.tokens.embed(images), blocks.context))
        seen = seen + self.positions[blocks.context]
        asked = self.wanted + self.positions[blocks.targets]
        B, T, N, _ = asked.shape
        tokens = torch.cat([seen[:, None].expand(-1, T, -1, -1), asked], dim=2).flatten(0, 1)
        return self.leave(self.predictor(tokens)[:, -N:]).unflatten(0, (B, T))

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the distance of predicted and true tokens of the targets."""
        images = augment(batch.images, self.config.crops(), batch.generator)
        blocks = draw_blocks(len(images), self.tokens.grid, self.config, batch.generator)
        predicted = self.predicted(images, blocks).float()
        answers = gather_tokens(self.answers(images), blocks.targets.flatten(1)).view_as(predicted)
        compare = F.smooth_l1_loss if self.config.loss == "smooth_l1" else F.mse_loss
        yield "task", compare(predicted, answers)

    def after_step(self, progress: float) -> None:
        """Let the target encoder follow."""
        self.target.follow(self.encoder, self.config.momentum + (1 - self.config.momentum) * progress)

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each picture, its context, and what is to be predicted."""
        images = batch.images.float() / 255
        context, targets = draw_blocks(len(images), self.tokens.grid, self.config, batch.generator)
        return {"picture": images, "context": self._only(images, context), "targets": self._only(images, targets)}

    def _only(self, images: Float[Tensor, "B 3 S S"], at: Int[Tensor, "B ..."]) -> Float[Tensor, "B 3 S S"]:
        """Return pictures of which some patches are shown, and the others grey."""
        grid, patch = self.tokens.grid, self.tokens.patch
        shown = torch.zeros(len(images), grid**2, device=images.device).scatter(1, at.flatten(1), 1)
        pixels = F.interpolate(shown.view(-1, 1, grid, grid), scale_factor=patch)
        return torch.where(pixels > 0, images, 0.5)

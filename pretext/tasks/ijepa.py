"""I-JEPA: predict the features of masked blocks (Assran et al. 2023).

Assran, Duval, Misra, Bojanowski, Vincent, Rabbat, LeCun and Ballas, Self-Supervised Learning from Images with a
Joint-Embedding Predictive Architecture, CVPR 2023, arXiv 2301.08243, section 3. A momentum encoder reads the whole
image; its tokens in each of four blocks are a target. The encoder reads one large block without the targets. A narrow
predictor reads the encoder's tokens and, at each target position, a learned mask token with its position. Published
(recalled), ImageNet linear: ViT-B/16 72.9 % (600 epochs), ViT-L/16 77.5 % (600), ViT-H/14 79.3 % (300).

Shortcuts: none needs colour changes to block it. A constant encoder would be a solution; the momentum encoder, the
predictor and the normalised targets prevent it.

Deviations: the encoder's positions are timm's, learned, and it keeps timm's class token; the predictor has two blocks
by default, not six (`ijepa:paper`, the paper's for ViT-B/16); the error is a mean over values, with layer-normalised
targets and the smooth L1 loss of the authors' code (`loss=l2` is the paper's text); blocks may touch all sides of
small grids. As in the authors' code, all blocks of a step have one size, and all images keep as many context patches
as the image with the fewest; here the surplus patches are dropped at random.
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
from pretext.system.ranges import check_range
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import Augmentation, augment, cropping

TRIES = 8
"""Block placements drawn for each image; the first one that leaves enough context is used."""


class Blocks(NamedTuple):
    """Patch indices of the context, K for each image, and of the T targets, N each."""

    context: Int[Tensor, "B K"]
    targets: Int[Tensor, "B T N"]


@final
class IJEPA(Task):
    """Encoder and predictor; the target encoder is a momentum copy of the encoder."""

    @dataclass(frozen=True)
    class Config:
        """The blocks, the predictor, the momentum and the crops."""

        targets: int = 4
        """Number of target blocks to predict in each image."""
        target_min: float = 0.15
        """Smallest area of a target block, as a share of the image's."""
        target_max: float = 0.2
        """Largest area of a target block, as a share of the image's."""
        context_min: float = 0.85
        """Smallest area of the context block before the targets are removed; the largest is the whole image."""
        predictor_width: float = 0.5
        """Predictor width as a share of the encoder's; the paper has 384 channels for ViT-B's 768."""
        predictor_depth: int = 2
        """Number of transformer blocks in the predictor."""
        momentum: float = 0.996
        """Momentum of the target encoder at the first step, rising linearly to 1."""
        loss: Literal["smooth_l1", "l2"] = "smooth_l1"
        """Error between predicted and target tokens; the paper's text has `l2`, its code `smooth_l1`."""
        crop_min: float = 0.3
        """Smallest share of the image area that a random crop covers."""

        def __post_init__(self) -> None:
            check_range(self, "targets", least=1, most=64)
            check_range(self, "target_min", "target_max", "context_min", above=0, most=1)
            if self.target_min > self.target_max:
                raise ValueError(f"target_min is {self.target_min}; allowed is up to target_max={self.target_max}")
            check_range(self, "predictor_width", above=0, most=8)
            check_range(self, "predictor_depth", least=1, most=100)
            check_range(self, "momentum", least=0, most=1)
            self.crops()

        def crops(self) -> Augmentation:
            """Return random crops, without mirroring and colour changes."""
            return cropping(self.crop_min, flip=0.0)

    variants: ClassVar[Mapping[str, Any]] = {"paper": Config(predictor_depth=6)}
    variant_help: ClassVar[Mapping[str, str]] = {
        "paper": "predictor of 6 blocks, as published for ViT-B/16",
    }
    training_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "": {"encoder": "timm:vit_tiny_patch16_224?patch_size=8", "image_size": 64},
        "paper": {"batch_size": 2048},
    }
    """The paper's encoders are `timm:vit_base_patch16_224` and larger ones, at 224 px."""

    positions: Tensor

    def __init__(self, encoder: Encoder, config: Config) -> None:
        """Build the predictor and the target encoder.

        Raises:
            ValueError: If the encoder has no patch tokens, or too few.
        """
        super().__init__(encoder)
        self.config, self.tokens = config, PatchTokens(encoder)
        if self.tokens.count < 4 * FEWEST:
            raise ValueError(f"the encoder has {self.tokens.count} patches; allowed is {4 * FEWEST} or more; {FINER}")
        self.target = MomentumCopy(encoder)
        self.target_tokens = PatchTokens(cast("Encoder", self.target.network))
        width = scaled_width(self.tokens.width, config.predictor_width)
        self.enter = nn.Sequential(nn.LayerNorm(self.tokens.width), nn.Linear(self.tokens.width, width))
        self.wanted = nn.Parameter(0.02 * torch.randn(width))
        self.register_buffer("positions", sincos_positions(width, self.tokens.grid), persistent=False)
        self.predictor = transformer(width, config.predictor_depth)
        self.leave = nn.Linear(width, self.tokens.width)

    @torch.no_grad()
    def target_features(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N D"]:
        """Return the target encoder's tokens of the whole images, each layer-normalised."""
        tokens = self.target_tokens.encode(self.target_tokens.embed(images))
        return F.layer_norm(tokens.float(), tokens.shape[-1:])

    def predicted(self, images: Float[Tensor, "B 3 S S"], blocks: Blocks) -> Float[Tensor, "B T N D"]:
        """Return the tokens of each target, predicted from the context."""
        context = self.enter(self.tokens.encode(self.tokens.embed(images), blocks.context))
        context = context + self.positions[blocks.context]  # B × K × width
        masked = self.wanted + self.positions[blocks.targets]
        B, T, N, _ = masked.shape
        tokens = torch.cat([context[:, None].expand(-1, T, -1, -1), masked], dim=2).flatten(0, 1)
        return self.leave(self.predictor(tokens)[:, -N:]).unflatten(0, (B, T))

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the error between predicted and target tokens."""
        images = augment(batch.pictures, self.config.crops(), batch.generator)
        blocks = draw_blocks(len(images), self.tokens.grid, self.config, batch.generator)
        predicted = self.predicted(images, blocks).float()
        targets = gather_tokens(self.target_features(images), blocks.targets.flatten(1)).view_as(predicted)
        error = F.smooth_l1_loss if self.config.loss == "smooth_l1" else F.mse_loss
        yield "task", error(predicted, targets)

    def after_step(self, progress: float) -> None:
        """Update the target encoder, with rising momentum."""
        self.target.follow(self.encoder, self.config.momentum + (1 - self.config.momentum) * progress)

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each image, its context and its targets."""
        images = batch.images.float() / 255
        context, targets = draw_blocks(len(images), self.tokens.grid, self.config, batch.generator)
        return {
            "picture": images,
            "context": self._show_patches(images, context),
            "targets": self._show_patches(images, targets),
        }

    def _show_patches(self, images: Float[Tensor, "B 3 S S"], at: Int[Tensor, "B ..."]) -> Float[Tensor, "B 3 S S"]:
        """Return the images with all patches grey except the given ones."""
        grid, patch = self.tokens.grid, self.tokens.patch
        shown = torch.zeros(len(images), grid**2, device=images.device).scatter(1, at.flatten(1), 1)
        pixels = F.interpolate(shown.view(-1, 1, grid, grid), scale_factor=patch)
        return torch.where(pixels > 0, images, 0.5)


def draw_blocks(count: int, grid: int, config: IJEPA.Config, generator: torch.Generator) -> Blocks:
    """Return the context and the targets for `count` images; no patch is in both.

    Args:
        count: Number of images B.
        grid: Patches along a side of the image.
        config: Number and sizes of the blocks.
        generator: Source of all random draws.

    Source: section 3 (Targets, Context) and appendix A.1: targets of aspect 0.75 to 1.5, a square context.
    """
    device = generator.device
    area, aspect, context_area = torch.rand(3, generator=generator, device=device).tolist()
    area = config.target_min + (config.target_max - config.target_min) * area
    sizes = [block_size(area, 0.75 + 0.75 * aspect, grid)] * config.targets
    sizes.append(block_size(config.context_min + (1 - config.context_min) * context_area, 1.0, grid))
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

    fewest = int(context.sum(dim=1).min().clamp(min=1))
    order = torch.rand(context.shape, generator=generator, device=device) - context.float()
    (rows_of, columns_of) = (torch.arange(side, device=device) for side in sizes[0])
    targets = (top[..., None] + rows_of)[..., :, None] * grid + (left[..., None] + columns_of)[..., None, :]
    return Blocks(order.argsort(dim=1)[:, :fewest], targets.flatten(2))


def block_size(area: float, aspect: float, grid: int) -> tuple[int, int]:
    """Return a block's height and width in patches.

    Args:
        area: Area of the block, as a share of the image's.
        aspect: Height divided by width.
        grid: Patches along a side of the image.
    """
    height, width = (round(grid * (area * ratio) ** 0.5) for ratio in (aspect, 1 / aspect))
    return min(max(height, 1), grid), min(max(width, 1), grid)

"""MAE: reconstruct masked patches from the visible ones (He et al. 2022).

He, Chen, Xie, Li, Dollár and Girshick, Masked Autoencoders Are Scalable Vision Learners, CVPR 2022,
arXiv 2111.06377, section 3: the encoder runs on the visible patches alone; a light decoder gets its tokens, a
learned token at each hidden place, and fixed positions; the squared error is over hidden patches only, each
normalised by its own mean and deviation (table 1d). Published, ImageNet: ViT-L/16, 800 epochs, fine-tuned
84.9 % top-1, linear 73.5 % (table 1); 1600 epochs, fine-tuned ViT-B/16 83.6 %, ViT-L/16 85.9 %, ViT-H/14
86.9 %.

Deviations: the encoder's positions are timm's, learned; it ends before its last normalisation, which the
features are read without, so that one is the decoder's; the decoder has two blocks by default, not eight
(`mae:paper`). A hole cannot be filled by what predicts normalised patches, since their mean is not known: the
sample sheet borrows it from the original.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pretext.encoders.base import Encoder
from pretext.modules.tokens import (
    PatchTokens,
    gather_tokens,
    patches_to_hide,
    patchify,
    random_order,
    scaled_width,
    sincos_positions,
    transformer,
    unpatchify,
)
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import Augmentation, augment, cropping


def normalise_patches(patches: Float[Tensor, "B N P"]) -> Float[Tensor, "B N P"]:
    """Return each patch less its mean, over its standard deviation (section 4.1, reconstruction target)."""
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def hidden_error(
    painted: Float[Tensor, "B N P"], target: Float[Tensor, "B N P"], hidden: Bool[Tensor, "B N"]
) -> Float[Tensor, ""]:
    """Return the mean squared error of hidden patches; what is painted elsewhere does not count."""
    error = (painted.float() - target).square().mean(dim=2)
    return (error * hidden).sum() / hidden.sum()


@final
class MAE(Task):
    """See the module."""

    @dataclass(frozen=True)
    class Config:
        """How much is hidden, who paints it, and how pictures are cropped before."""

        mask_ratio: float = 0.75
        """Share of the patches that are hidden."""
        normalised: bool = True
        """Predict each patch's pixels minus their mean, over their deviation; without it, the pixels."""
        decoder_width: float = 0.5
        """The decoder's channels, as a share of the encoder's; the paper's are 512 for ViT-L's 1024."""
        decoder_depth: int = 2
        """The decoder's blocks; with one, the paper's linear accuracy is 8 points lower than with eight (table 1a)."""
        crop_min: float = 0.2
        """Smallest share of the picture's area that a crop shows."""
        flip: float = 0.5
        """Probability of mirroring left and right."""

        def __post_init__(self) -> None:
            if not 0 < self.mask_ratio < 1:
                raise ValueError(f"mask_ratio is {self.mask_ratio}; allowed is above 0 and below 1")
            if not 0 < self.decoder_width <= 8:
                raise ValueError(f"decoder_width is {self.decoder_width}; allowed is above 0 and up to 8")
            if not 1 <= self.decoder_depth <= 100:
                raise ValueError(f"decoder_depth is {self.decoder_depth}; allowed is from 1 to 100")
            self.crops()

        def crops(self) -> Augmentation:
            """Return what a step's pictures differ in from those on disk: no colour is changed."""
            return cropping(self.crop_min, flip=self.flip)

    variants: ClassVar[Mapping[str, Any]] = {"paper": Config(decoder_depth=8)}
    variant_help: ClassVar[Mapping[str, str]] = {
        "paper": "decoder of 8 blocks, as published",
    }
    training_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "": {"encoder": "timm:vit_tiny_patch16_224?patch_size=8", "image_size": 64, "beta2": 0.95},
        "paper": {"batch_size": 4096, "learning_rate": 2.4e-3},
    }
    """AdamW as published (table 8); the paper's encoder is `timm:vit_large_patch16_224`, at 224 px."""

    positions: Tensor

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config, self.tokens = config, PatchTokens(encoder)
        self.visible = self.tokens.count - patches_to_hide(self.tokens.count, config.mask_ratio)
        width = scaled_width(self.tokens.width, config.decoder_width)
        self.enter = nn.Sequential(nn.LayerNorm(self.tokens.width), nn.Linear(self.tokens.width, width))
        self.hidden = nn.Parameter(0.02 * torch.randn(width))
        self.register_buffer("positions", sincos_positions(width, self.tokens.grid), persistent=False)
        self.decoder = transformer(width, config.decoder_depth)
        self.paint = nn.Linear(width, 3 * self.tokens.patch**2)

    def painted(
        self, images: Float[Tensor, "B 3 S S"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "B N P"], Bool[Tensor, "B N"]]:
        """Return what the decoder makes of all patches, and which of them the encoder did not see."""
        order = random_order(len(images), self.tokens.count, generator)
        kept = order[:, : self.visible]
        seen = self.enter(self.tokens.encode(self.tokens.embed(images), kept))
        return self.paint(self.decoder(self._filled_up(seen, order) + self.positions)), _all_but(kept, order)

    def _filled_up(self, seen: Float[Tensor, "B K D"], order: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """Return tokens of all places: those that were seen, and else the one of what is hidden."""
        blank = self.hidden.to(seen.dtype).expand(len(seen), order.shape[1] - seen.shape[1], -1)
        return gather_tokens(torch.cat([seen, blank], dim=1), order.argsort(dim=1))

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the error of the hidden patches."""
        images = augment(batch.images, self.config.crops(), batch.generator)
        target = patchify(self.encoder.normalised(images), self.tokens.patch)
        if self.config.normalised:
            target = normalise_patches(target)
        painted, hidden = self.painted(images, batch.generator)
        yield "task", hidden_error(painted, target, hidden)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return what is visible, that with the hidden patches painted (see the module), and the original."""
        images, patch = batch.images.float() / 255, self.tokens.patch
        pixels = patchify(self.encoder.normalised(images), patch)
        painted, hidden = self.painted(images, batch.generator)
        if self.config.normalised:
            variance, mean = torch.var_mean(pixels, dim=2, keepdim=True)
            painted = painted * (variance + 1e-6).sqrt() + mean
        whole = self.encoder.denormalised(unpatchify(torch.where(hidden[..., None], painted, pixels), patch))
        grey = hidden[..., None].expand(pixels.shape)
        masked = torch.where(unpatchify(grey, patch), 0.5, images)
        return {"visible": masked, "painted": whole.clamp(0, 1), "original": images}


def _all_but(kept: Int[Tensor, "B K"], order: Int[Tensor, "B N"]) -> Bool[Tensor, "B N"]:
    return torch.ones_like(order, dtype=torch.bool).scatter(1, kept, False)

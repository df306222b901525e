"""MAE: reconstruct masked patches from the visible ones (He et al. 2022).

He, Chen, Xie, Li, Dollár and Girshick, Masked Autoencoders Are Scalable Vision Learners, CVPR 2022,
arXiv 2111.06377, section 3. The encoder reads the visible patches only. A light decoder reads the encoder's tokens, a
learned mask token at each masked position, and fixed positions. The squared error is over masked patches only, each
normalised by its own mean and standard deviation (table 1d). Published, ImageNet: ViT-L/16, 800 epochs, fine-tuned
84.9 % top-1, linear 73.5 % (table 1); 1600 epochs, fine-tuned ViT-B/16 83.6 %, ViT-L/16 85.9 %, ViT-H/14 86.9 %.

Deviations: the encoder's positions are timm's, learned; the encoder ends before its last normalisation, which the
features do not use either, and the decoder has that normalisation; the decoder has two blocks by default, not eight
(`mae:paper`). MAE is no `Inpainter`: it predicts normalised patches, and the mean of a masked patch is unknown. The
sample sheet takes mean and variance from the original.
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
from pretext.system.ranges import check_range
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import Augmentation, augment, cropping


@final
class MAE(Task):
    """Encoder on the visible patches, and a transformer decoder on all of them."""

    @dataclass(frozen=True)
    class Config:
        """The mask ratio, the decoder and the crops."""

        mask_ratio: float = 0.75
        """Share of the patches that are masked."""
        normalised: bool = True
        """Normalise each target patch by its mean and standard deviation, instead of predicting raw pixels."""
        decoder_width: float = 0.5
        """Decoder width as a share of the encoder's; the paper has 512 channels for ViT-L's 1024."""
        decoder_depth: int = 2
        """Number of decoder blocks; with one, the paper's linear accuracy is 8 points below eight (table 1a)."""
        crop_min: float = 0.2
        """Smallest share of the image area that a random crop covers."""
        flip: float = 0.5
        """Probability of a horizontal flip."""

        def __post_init__(self) -> None:
            check_range(self, "mask_ratio", above=0, below=1)
            check_range(self, "decoder_width", above=0, most=8)
            check_range(self, "decoder_depth", least=1, most=100)
            self.crops()

        def crops(self) -> Augmentation:
            """Return random crops and flips, without colour changes."""
            return cropping(self.crop_min, flip=self.flip)

    variants: ClassVar[Mapping[str, Any]] = {"paper": Config(decoder_depth=8)}
    variant_help: ClassVar[Mapping[str, str]] = {
        "paper": "decoder of 8 blocks, as published",
    }
    training_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "": {"encoder": "timm:vit_tiny_patch16_224?patch_size=8", "image_size": 64, "beta2": 0.95},
        "paper": {"batch_size": 4096, "learning_rate": 2.4e-3},
    }
    """AdamW as published (table 8). The paper's encoder is `timm:vit_large_patch16_224` at 224 px."""

    positions: Tensor

    def __init__(self, encoder: Encoder, config: Config) -> None:
        """Build the decoder.

        Raises:
            ValueError: If the encoder has no patch tokens, or too few.
        """
        super().__init__(encoder)
        self.config, self.tokens = config, PatchTokens(encoder)
        self.visible = self.tokens.count - patches_to_hide(self.tokens.count, config.mask_ratio)
        width = scaled_width(self.tokens.width, config.decoder_width)
        self.enter = nn.Sequential(nn.LayerNorm(self.tokens.width), nn.Linear(self.tokens.width, width))
        self.hidden = nn.Parameter(0.02 * torch.randn(width))
        self.register_buffer("positions", sincos_positions(width, self.tokens.grid), persistent=False)
        self.decoder = transformer(width, config.decoder_depth)
        self.paint = nn.Linear(width, 3 * self.tokens.patch**2)

    def predicted(
        self, images: Float[Tensor, "B 3 S S"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "B N P"], Bool[Tensor, "B N"]]:
        """Return the decoder's prediction of all patches, and which of them were masked."""
        order = random_order(len(images), self.tokens.count, generator)
        kept = order[:, : self.visible]
        visible = self.enter(self.tokens.encode(self.tokens.embed(images), kept))
        tokens = self._with_mask_tokens(visible, order)
        return self.paint(self.decoder(tokens + self.positions)), _all_but(kept, order)

    def _with_mask_tokens(self, visible: Float[Tensor, "B K D"], order: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """Return the tokens of all positions in image order, with the mask token at masked positions."""
        masked = self.hidden.to(visible.dtype).expand(len(visible), order.shape[1] - visible.shape[1], -1)
        return gather_tokens(torch.cat([visible, masked], dim=1), order.argsort(dim=1))

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the mean squared error of the masked patches."""
        images = augment(batch.pictures, self.config.crops(), batch.generator)
        target = patchify(self.encoder.normalised(images), self.tokens.patch)
        if self.config.normalised:
            target = normalise_patches(target)
        predicted, masked = self.predicted(images, batch.generator)
        yield "task", masked_error(predicted, target, masked)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return the visible patches, the image with predicted patches (see the module), and the original."""
        images, patch = batch.images.float() / 255, self.tokens.patch
        pixels = patchify(self.encoder.normalised(images), patch)
        predicted, masked = self.predicted(images, batch.generator)
        if self.config.normalised:
            variance, mean = torch.var_mean(pixels, dim=2, keepdim=True)
            predicted = predicted * (variance + 1e-6).sqrt() + mean
        whole = self.encoder.denormalised(unpatchify(torch.where(masked[..., None], predicted, pixels), patch))
        holes = unpatchify(masked[..., None].expand(pixels.shape), patch)
        visible = torch.where(holes, 0.5, images)
        return {"visible": visible, "painted": whole.clamp(0, 1), "original": images}


def normalise_patches(patches: Float[Tensor, "B N P"]) -> Float[Tensor, "B N P"]:
    """Return each patch minus its mean, divided by its standard deviation (section 4.1, reconstruction target)."""
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def masked_error(
    predicted: Float[Tensor, "B N P"], target: Float[Tensor, "B N P"], masked: Bool[Tensor, "B N"]
) -> Float[Tensor, ""]:
    """Return the mean squared error over the masked patches."""
    error = (predicted.float() - target).square().mean(dim=2)
    return (error * masked).sum() / masked.sum()


def _all_but(kept: Int[Tensor, "B K"], order: Int[Tensor, "B N"]) -> Bool[Tensor, "B N"]:
    """Return True at every position except the kept ones."""
    return torch.ones_like(order, dtype=torch.bool).scatter(1, kept, False)

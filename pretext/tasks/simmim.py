"""SimMIM: predict masked pixels with one linear layer (Xie et al. 2022).

Xie, Zhang, Cao, Lin, Bao, Yao, Dai and Hu, SimMIM: A Simple Framework for Masked Image Modeling, CVPR 2022,
arXiv 2111.09886, section 3. A learned mask token replaces masked patches, the encoder reads all positions, a linear
head predicts raw pixels, and the absolute error is over masked pixels only. Masked squares have 32 px at 192 px, with
mask ratio 0.6. Published, ImageNet, 800 epochs, fine-tuned: ViT-B 83.8 %, Swin-B 84.0 % top-1.

Deviations: squares are the same share of the image at any size, rounded to a power of two; in an encoder without patch
tokens, masked pixels get a learned colour; a vision transformer's positions are timm's, learned and absolute, and its
last normalisation, which the features do not use, belongs to the head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor, nn

from pretext.encoders.base import Encoder, deepest_shape
from pretext.modules.tokens import PatchTokens, has_tokens, patches_to_hide, random_order
from pretext.system.ranges import check_range
from pretext.tasks.base import Batch, Inpainter
from pretext.transforms.augmentation import Augmentation, augment, cropping

SQUARE = 32 / 192
"""Published side of a masked square, as a share of the image's."""


@final
class SimMIM(Inpainter):
    """Encoder on the masked image, and a linear head that predicts its pixels."""

    @dataclass(frozen=True)
    class Config:
        """The mask and the crops."""

        square: int = 0
        """Side of a masked square in pixels; 0 takes the published share (1/6) of the image's side."""
        mask_ratio: float = 0.6
        """Share of the squares that are masked."""
        crop_min: float = 0.67
        """Smallest share of the image area that a random crop covers."""
        flip: float = 0.5
        """Probability of a horizontal flip."""

        def __post_init__(self) -> None:
            check_range(self, "square", least=0, most=4096, unit="pixels")
            check_range(self, "mask_ratio", above=0, below=1)
            self.views()

        def views(self) -> Augmentation:
            """Return random crops and flips; colours are unchanged, since they are predicted."""
            return cropping(self.crop_min, flip=self.flip)

    def __init__(self, encoder: Encoder, config: Config) -> None:
        """Build the mask token and the head.

        Raises:
            ValueError: If the squares do not fit the encoder's patches, or are too few.
        """
        super().__init__(encoder)
        self.config = config
        self.tokens = PatchTokens(encoder) if has_tokens(encoder) else None
        patch = self.tokens.patch if self.tokens else 1
        self.size, self.square = encoder.input_size, config.square or square_side(encoder.input_size, patch)
        if self.square % patch:
            raise ValueError(f"square is {self.square}; allowed are multiples of the encoder's patch of {patch} px")
        self.across = math.ceil(self.size / self.square)
        self.hidden = patches_to_hide(self.across**2, config.mask_ratio)
        channels, side, _ = deepest_shape(encoder)
        self.blank = nn.Parameter(0.02 * torch.randn(channels) if self.tokens else torch.zeros(3, 1, 1))
        self.norm = nn.LayerNorm(channels) if self.tokens else nn.Identity()
        scale = math.ceil(self.size / side)
        self.head = nn.Sequential(nn.Conv2d(channels, 3 * scale**2, 1), nn.PixelShuffle(scale))

    def holes(self, count: int, generator: torch.Generator) -> Bool[Tensor, "B 1 S S"]:
        """Return the masks of `count` images: the same number of grid squares in each."""
        chosen = random_order(count, self.across**2, generator) < self.hidden
        squares = chosen.view(count, 1, self.across, self.across)
        pixels = squares.repeat_interleave(self.square, dim=2).repeat_interleave(self.square, dim=3)
        return pixels[..., : self.size, : self.size]

    def predicted(self, images: Float[Tensor, "B 3 S S"], holes: Bool[Tensor, "B 1 S S"]) -> Float[Tensor, "B 3 S S"]:
        """Return the head's output, in the encoder's normalised units; it does not depend on pixels in the holes."""
        if self.tokens is None:
            masked = torch.where(holes, self.blank, self.encoder.normalised(images))
            deepest = self.encoder.maps(masked)[-1]
        else:
            has_hole = F.max_pool2d(holes.float(), self.tokens.patch).flatten(1) > 0
            tokens = self.tokens.embed(images)
            tokens = torch.where(has_hole[..., None], self.blank.to(tokens.dtype), tokens)
            encoded = self.norm(self.tokens.encode(tokens)).transpose(1, 2)
            deepest = encoded.unflatten(2, (self.tokens.grid, self.tokens.grid))
        pixels = self.head(deepest)
        if pixels.shape[2:] == images.shape[2:]:
            return pixels
        return F.interpolate(pixels, size=images.shape[2:], mode="bilinear", align_corners=False)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the mean absolute error of the masked pixels."""
        images = augment(batch.pictures, self.config.views(), batch.generator)
        holes = self.holes(len(images), batch.generator)
        yield "task", masked_error(self.predicted(images, holes), self.encoder.normalised(images), holes)

    @torch.no_grad()
    def inpaint(self, images: UInt8[Tensor, "B 3 S S"], holes: Shaped[Tensor, "B 1 S S"]) -> Float[Tensor, "B 3 S S"]:
        """See `Inpainter.inpaint`; a vision transformer's patches that contain a hole are masked as a whole."""
        pixels = images.float() / 255
        predicted = self.encoder.denormalised(self.predicted(pixels, holes).float())
        return torch.where(holes, predicted, pixels).clamp(0, 1)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return the visible pixels, the image with filled holes, and the original."""
        holes = self.holes(len(batch), batch.generator)
        original = batch.images.float() / 255
        visible = torch.where(holes, 0.5, original)
        return {"visible": visible, "painted": self.inpaint(batch.images, holes), "original": original}


def masked_error(
    predicted: Float[Tensor, "B 3 S S"], target: Float[Tensor, "B 3 S S"], holes: Bool[Tensor, "B 1 S S"]
) -> Float[Tensor, ""]:
    """Return the mean absolute error over masked values (equation 1)."""
    return ((predicted.float() - target).abs() * holes).sum() / (3 * holes.sum())


def square_side(size: int, patch: int) -> int:
    """Return the side of a masked square in pixels: the power of two, in patches, nearest to the published share."""
    return patch * 2 ** max(0, round(math.log2(size * SQUARE / patch)))

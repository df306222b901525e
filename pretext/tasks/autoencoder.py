"""Autoencoder: reconstruct the whole image (Hinton and Salakhutdinov 2006).

The baseline of Pathak et al. 2016, arXiv 1604.07379, table 2: the context encoder's encoder and decoder without a
hole. Published: VOC 2007 classification 53.8 and detection 41.9, VOC 2012 segmentation 25.2.

Deviations: see `context_encoder`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from pretext.encoders.base import Encoder
from pretext.modules.decoder import Decoder, Reconstruction
from pretext.tasks.base import Batch, Inpainter
from pretext.transforms.masks import fill


@final
class Autoencoder(Inpainter):
    """Encoder and decoder, trained by the squared error of all pixels."""

    @dataclass(frozen=True)
    class Config(Reconstruction):
        """The crops and the decoder."""

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config = config
        self.decoder = Decoder(encoder, width=config.decoder_width, channelwise=config.channelwise)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the mean squared error of all pixels, in [-1, 1]."""
        images = batch.cropped(self.config)
        yield "task", F.mse_loss(self.decoder(self.encoder(images)[-1]), 2 * images - 1)

    @torch.no_grad()
    def inpaint(self, images: UInt8[Tensor, "B 3 S S"], holes: Shaped[Tensor, "B 1 S S"]) -> Float[Tensor, "B 3 S S"]:
        """See `Inpainter.inpaint`: reconstruct the image with the holes, and keep the pixels inside them."""
        images = images.float() / 255
        output = self.decoder(self.encoder(fill(images, holes))[-1]).float()
        return torch.where(holes, (output + 1) / 2, images).clamp(0, 1)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return input and output."""
        images = batch.images.float() / 255
        output = self.decoder(self.encoder(images)[-1]).float()
        return {"input": images, "output": ((output + 1) / 2).clamp(0, 1)}

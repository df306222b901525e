"""Denoising autoencoder: restore a corrupted image (Vincent et al. 2008).

Pathak et al. 2016, arXiv 1604.07379, section 2, contrast it with the context encoder: its corruption is local and
low-level, so that undoing it needs no understanding of the scene. They publish no number for it.

Deviations: Gaussian noise besides the masking noise of the first paper (both are in Vincent et al. 2010); the
architecture is the context encoder's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from pretext.encoders.base import Encoder
from pretext.modules.decoder import Decoder, Reconstruction
from pretext.system.ranges import check_range
from pretext.tasks.base import Batch, Inpainter
from pretext.transforms.masks import fill


@final
class DenoisingAutoencoder(Inpainter):
    """Encoder and decoder, trained by the squared error against the clean image."""

    @dataclass(frozen=True)
    class Config(Reconstruction):
        """The corruption and the decoder."""

        noise: Literal["gaussian", "masking"] = "masking"
        """`gaussian` adds noise to every value; `masking` replaces single pixels by the mean colour."""
        level: float = 0.25
        """Standard deviation of the Gaussian noise, for images in [0, 1]; or the share of masked pixels."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_range(self, "level", above=0, below=1)

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config = config
        self.decoder = Decoder(encoder, width=config.decoder_width, channelwise=config.channelwise)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the mean squared error of all pixels against the clean image, in [-1, 1]."""
        images = batch.cropped(self.config)
        corrupted = corrupt(images, self.config, batch.generator)
        yield "task", F.mse_loss(self.decoder(self.encoder(corrupted)[-1]), 2 * images - 1)

    @torch.no_grad()
    def inpaint(self, images: UInt8[Tensor, "B 3 S S"], holes: Shaped[Tensor, "B 1 S S"]) -> Float[Tensor, "B 3 S S"]:
        """See `Inpainter.inpaint`: a hole is treated as corruption to undo."""
        clean = images.float() / 255
        restored = self._restore(fill(clean, holes))
        return torch.where(holes, restored, clean)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return corrupted input, output and original."""
        clean = batch.images.float() / 255
        corrupted = corrupt(clean, self.config, batch.generator)
        return {"input": corrupted, "output": self._restore(corrupted), "original": clean}

    def _restore(self, corrupted: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 3 S S"]:
        """Return the decoder's output in [0, 1]."""
        return ((self.decoder(self.encoder(corrupted)[-1]).float() + 1) / 2).clamp(0, 1)


def corrupt(
    images: Float[Tensor, "B 3 S S"], config: DenoisingAutoencoder.Config, generator: torch.Generator
) -> Float[Tensor, "B 3 S S"]:
    """Return images in [0, 1] with noise on every value, or with masked pixels."""
    if config.noise == "gaussian":
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        return (images + config.level * noise).clamp(0, 1)
    masked = torch.rand(images[:, :1].shape, generator=generator, device=images.device) < config.level
    return fill(images, masked)

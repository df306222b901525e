"""Context encoder: fill a hole from its surroundings (Pathak et al. 2016).

Source: arXiv 1604.07379. L_rec (equation 1) is the squared error inside the hole; L_adv (equation 2) asks a
discriminator whether what was
painted is real; L = 0.999 L_rec + 0.001 L_adv (equation 3). Features are learned by L_rec alone with random
regions, as published: on VOC 2007 classification 56.5, detection 44.5, VOC 2012 segmentation 29.7, against 53.3,
43.4 and 19.8 from random weights (table 2).

Deviations: batch normalisation in encoder and decoder; the error is a mean over the hole's values, so that its
scale does not depend on the size of the hole; pictures are in [-1, 1]; the generator's adversarial loss is the
non-saturating one, -log D(G), as in the authors' released code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor, nn

from pretext.encoders.alexnet import gaussian
from pretext.encoders.base import Encoder, deepest_shape
from pretext.modules.decoder import Decoder, ReleasedDecoder
from pretext.tasks.base import Batch, Inpainter, Players
from pretext.transforms.masks import MaskKind, draw_holes, fill


@final
class ContextEncoder(Inpainter):
    """See the module."""

    @dataclass(frozen=True)
    class Config:
        """What is cut out, what is compared, and who judges."""

        mask: MaskKind = "random_region"
        """What is cut out; random regions are the paper's choice for features, central for inpainting."""
        loss: Literal["l2", "l1"] = "l2"
        """Reconstruction error; the paper found no significant difference."""
        reconstruction_weight: float = 0.999
        """λ_rec: weight of the reconstruction loss."""
        adversarial_weight: float = 0.0
        """λ_adv; 0.001 as published for inpainting, 0 for features (where the authors could not make it converge)."""
        overlap: int = 0
        """Pixels by which the prediction overlaps the context; the released code has 4 at 128 px, central."""
        overlap_weight: float = 10.0
        """Weight of the reconstruction error in the overlap."""
        decoder: Literal["paper", "released"] = "paper"
        """The paper's decoder of the whole picture, or the released network's of the central half at 128 px."""
        decoder_width: float = 1.0
        """Multiplies the decoder's numbers of channels."""
        channelwise: bool = True
        """The channel-wise fully connected layer; the released decoder has none."""
        discriminator_width: float = 1.0
        """Multiplies the discriminator's numbers of channels."""
        discriminator_rate: float = 0.1
        """The discriminator's learning rate, as a share of the generator's."""
        conditioned: bool = False
        """Show the discriminator the context too; the paper reports that it then sees the seam and wins at once."""
        noise: int = 0
        """Maps of noise beside the encoder's; the paper reports better results with none."""

        def __post_init__(self) -> None:
            for name in ("reconstruction_weight", "adversarial_weight", "overlap", "overlap_weight", "noise"):
                if not getattr(self, name) >= 0:
                    raise ValueError(f"{name} is {getattr(self, name)}; allowed is 0 or more")
            for name in ("decoder_width", "discriminator_width", "discriminator_rate"):
                if not getattr(self, name) > 0:
                    raise ValueError(f"{name} is {getattr(self, name)}; allowed is above 0")
            if self.decoder == "released" and (self.mask != "central" or self.noise):
                raise ValueError("decoder=released paints the centre, without noise; it needs mask=central and noise=0")

    variants: ClassVar[Mapping[str, Any]] = {
        "adversarial": Config(adversarial_weight=0.001),
        "released": Config(mask="central", adversarial_weight=0.001, overlap=4, decoder="released"),
    }
    variant_help: ClassVar[Mapping[str, str]] = {
        "adversarial": "adds the adversarial loss, weight 0.001",
        "released": "the authors' released network: central hole, 128 px",
    }
    training_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "released": {
            "encoder": "released",
            "image_size": 128,
            "batch_size": 64,
            "optimizer": "adam",
            "beta1": 0.5,
            "learning_rate": 2e-3,
            "weight_decay": 0.0,
            "schedule": "constant",
        },
    }
    """What a variant's published training differs in from the loop's defaults."""

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config = config
        channels, height, width = deepest_shape(encoder)
        if config.decoder == "released":
            if (height, width) != (1, 1) or encoder.input_size != 128:
                raise ValueError(
                    "decoder=released needs the encoder `released` at 128 px, whose deepest map is a single cell"
                )
            self.decoder: nn.Module = ReleasedDecoder(channels, width=config.decoder_width)
            self.decoder.apply(partial(gaussian, std=0.02))
        else:
            self.decoder = Decoder(
                encoder, width=config.decoder_width, channelwise=config.channelwise, noise=config.noise
            )
        self.discriminator: Discriminator | None = None
        if config.adversarial_weight > 0:
            self.discriminator = Discriminator(
                encoder.input_size // 2 if config.mask == "central" else encoder.input_size,
                channels=6 if config.conditioned else 3,
                width=config.discriminator_width,
            )
            self.discriminator.apply(partial(gaussian, std=0.02))
        self._noted: dict[str, float] = {}

    def players(self) -> Players:
        """Return the generator's parameters, and the discriminator's where there is one."""
        generator = [*self.encoder.parameters(), *self.decoder.parameters()]
        if self.discriminator is None:
            return {"generator": generator}
        return {"discriminator": [*self.discriminator.parameters()], "generator": generator}

    def rate_factors(self) -> Mapping[str, float]:
        """Return the discriminator's, where there is one."""
        return {} if self.discriminator is None else {"discriminator": self.config.discriminator_rate}

    def metrics(self) -> Mapping[str, float]:
        """Return the parts of the last step's loss."""
        return self._noted

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the discriminator's loss, where there is one, then the generator's."""
        config = self.config
        images = batch.images.float() / 255
        holes = draw_holes(config.mask, len(images), images.shape[-1], batch.generator)
        truth = 2 * images - 1
        hidden = eroded(holes, config.overlap)  # what is painted overlaps what is seen
        painted = self._paint(fill(images, hidden), batch.generator)
        weights = torch.where(holes & ~hidden, config.overlap_weight, holes.float())
        reconstruction = weighted_error(self._whole(painted, truth), truth, weights, loss=config.loss)
        total = config.reconstruction_weight * reconstruction
        self._noted = {"reconstruction": float(reconstruction.detach())}
        if self.discriminator is not None:
            judge = self.discriminator
            context = 2 * fill(images, hidden) - 1
            real, fake = (self._shown(picture, context) for picture in (truth, painted))
            on_real, on_fake = judge(real), judge(fake.detach())
            yield "discriminator", _says(on_real, 1.0) + _says(on_fake, 0.0)
            self._noted["discriminator_accuracy"] = float(torch.cat([on_real > 0, on_fake < 0]).float().mean())
            judge.requires_grad_(False)
            adversarial = _says(judge(fake), 1.0)
            judge.requires_grad_(True)
            self._noted["adversarial"] = float(adversarial.detach())
            total = total + config.adversarial_weight * adversarial
        yield "generator", total

    @torch.no_grad()
    def inpaint(self, images: UInt8[Tensor, "B 3 S S"], holes: Shaped[Tensor, "B 1 S S"]) -> Float[Tensor, "B 3 S S"]:
        """See `Inpainter.inpaint`; noise, where there is any, is drawn from a fixed seed."""
        images = images.float() / 255
        generator = torch.Generator(images.device).manual_seed(0)
        painted = self._whole(self._paint(fill(images, holes), generator), 2 * images - 1)
        return torch.where(holes, (painted.float() + 1) / 2, images).clamp(0, 1)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return input, output and original."""
        images = batch.images.float() / 255
        holes = draw_holes(self.config.mask, len(images), images.shape[-1], batch.generator)
        return {"input": fill(images, holes), "output": self.inpaint(batch.images, holes), "original": images}

    def _paint(self, masked: Float[Tensor, "B 3 S S"], generator: torch.Generator) -> Tensor:
        """Return the decoder's picture (the released one's: its central half) in [-1, 1]."""
        deepest = self.encoder(masked)[-1]
        if not self.config.noise:
            return self.decoder(deepest)
        shape = (len(deepest), self.config.noise, *deepest.shape[2:])
        return self.decoder(deepest, torch.randn(shape, generator=generator, device=deepest.device))

    def _whole(self, painted: Tensor, truth: Tensor) -> Tensor:
        """Return a picture of full size; around a painted centre is what was there."""
        if painted.shape == truth.shape:
            return painted
        start, side = truth.shape[-1] // 4, painted.shape[-1]
        whole = truth.to(painted.dtype).clone()
        whole[..., start : start + side, start : start + side] = painted
        return whole

    def _shown(self, picture: Tensor, context: Tensor) -> Tensor:
        """Return what the discriminator sees: the central half or all, and the context where it is conditioned."""
        parts = [picture, context] if self.config.conditioned else [picture]
        if self.config.mask == "central":
            side = context.shape[-1] // 2
            parts = [part if part.shape[-1] == side else _centre(part, side) for part in parts]
        return torch.cat(parts, dim=1)


class Discriminator(nn.Module):
    """4×4 convolutions of stride 2, LeakyReLU 0.2, batch normalisation on all but the first; one logit a picture.

    At 64 px these are the released network's 64-128-256-512-1; smaller pictures have fewer layers.
    """

    def __init__(self, size: int, *, channels: int, width: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        count, inputs = 64, channels
        while size >= 8:
            outputs = max(8, round(count * width))
            layers.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1))
            if inputs != channels:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.LeakyReLU(0.2))
            size, inputs, count = size // 2, outputs, min(2 * count, 512)
        self.layers = nn.Sequential(*layers, nn.Conv2d(inputs, 1, size))

    def forward(self, pictures: Float[Tensor, "B C S S"]) -> Float[Tensor, "B"]:
        """Return the log-odds that a picture is real."""
        return self.layers(pictures).flatten(1).mean(dim=1)


def eroded(holes: Bool[Tensor, "B 1 S S"], pixels: int) -> Bool[Tensor, "B 1 S S"]:
    """Return holes without the band of so many pixels inside their edge.

    Source: section 5.1 (the prediction overlaps the context by a few pixels, at ten times the weight).
    """
    if not pixels:
        return holes
    return F.max_pool2d((~holes).float(), 2 * pixels + 1, stride=1, padding=pixels) == 0


def weighted_error(
    painted: Float[Tensor, "B 3 S S"],
    truth: Float[Tensor, "B 3 S S"],
    weights: Float[Tensor, "B 1 S S"],
    *,
    loss: Literal["l2", "l1"],
) -> Float[Tensor, ""]:
    """Return the weighted error, over the number of values that have a weight (equation 1 as a mean)."""
    difference = painted - truth
    error = difference.square() if loss == "l2" else difference.abs()
    return (weights * error).sum() / (3 * (weights > 0).sum()).clamp(min=1)


def _says(logits: Tensor, answer: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, answer))


def _centre(picture: Tensor, side: int) -> Tensor:
    start = (picture.shape[-1] - side) // 2
    return picture[..., start : start + side, start : start + side]

"""Context encoder: fill a hole from its surroundings (Pathak et al. 2016).

Pathak, Krähenbühl, Donahue, Darrell and Efros, Context Encoders: Feature Learning by Inpainting, CVPR 2016,
arXiv 1604.07379. L_rec (equation 1) is the squared error inside the hole. L_adv (equation 2) is the adversarial
loss of a discriminator. L = 0.999 L_rec + 0.001 L_adv (equation 3). The paper learns features with L_rec alone and
random regions. Published, AlexNet: VOC 2007 classification 56.5 and detection 44.5, VOC 2012 segmentation 29.7;
random weights have 53.3, 43.4 and 19.8 (table 2).

Deviations: batch normalisation in encoder and decoder; the error is a mean over the values of the hole, so that its
scale does not depend on the size of the hole; images are in [-1, 1]; the generator's adversarial loss is the
non-saturating -log D(G), as in the authors' released code; whole images are seen, while the released code crops and
mirrors them (`crop_min`, `flip`; no gain by it was found on photographs, docs/ablations.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor, nn

from pretext.encoders.alexnet import gaussian
from pretext.encoders.base import Encoder, deepest_shape
from pretext.modules.decoder import Decoder, Reconstruction, ReleasedDecoder
from pretext.modules.discriminator import Discriminator, adversarial_loss
from pretext.system.errors import UserError
from pretext.system.ranges import check_range
from pretext.tasks.base import Batch, Inpainter, Players
from pretext.transforms.masks import MaskKind, central_like, dilated, draw_holes, eroded, fill, spread

BEATEN = 0.95
"""A discriminator that is right more often has won."""
RECENT = 50
"""Steps over which its accuracy is averaged."""


@final
class ContextEncoder(Inpainter):
    """Encoder, decoder and optional discriminator. The generator is the encoder with the decoder."""

    @dataclass(frozen=True)
    class Config(Reconstruction):
        """The mask, the loss weights, the decoder and the discriminator."""

        mask: MaskKind = "random_region"
        """Shape of the hole; the paper uses random regions for features and the centre for inpainting."""
        loss: Literal["l2", "l1"] = "l2"
        """Reconstruction error; the paper found no significant difference between the two."""
        reconstruction_weight: float = 0.999
        """λ_rec: weight of the reconstruction loss."""
        adversarial_weight: float = 0.0
        """λ_adv: weight of the adversarial loss; 0 trains no discriminator. Published: 0.001 for inpainting."""
        overlap: int = 0
        """Pixels around the hole that are predicted too, although they are seen; the released code has 4 at 128 px."""
        overlap_weight: float = 10.0
        """Weight of the reconstruction error in the overlap, relative to 1 in the hole."""
        decoder: Literal["paper", "released"] = "paper"
        """`paper` predicts the whole image; `released`, the authors' network, its central half at 128 px."""
        discriminator_width: float = 1.0
        """Multiplies the discriminator's channel counts."""
        discriminator_rate: float = 0.1
        """Discriminator learning rate, as a multiple of the generator's."""
        label_smoothing: float = 0.0
        """How far the discriminator's target for real pictures is below 1 (one-sided, Salimans et al. 2016)."""
        spectral_norm: bool = False
        """Divide each of the discriminator's kernels by its largest singular value (Miyato et al. 2018)."""
        conditioned: bool = False
        """Also feed the context to the discriminator; the paper reports that it then exploits the seam."""
        noise: int = 0
        """Noise maps concatenated to the deepest map; the paper reports better results without noise."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_range(
                self, "reconstruction_weight", "adversarial_weight", "overlap", "overlap_weight", "noise", least=0
            )
            check_range(self, "discriminator_width", "discriminator_rate", above=0)
            check_range(self, "label_smoothing", least=0, below=0.5)
            if self.decoder == "released" and (self.mask != "central" or self.noise):
                raise ValueError("decoder=released predicts the centre, without noise; set mask=central and noise=0")

    variants: ClassVar[Mapping[str, Any]] = {
        "adversarial": Config(adversarial_weight=0.001),
        "released": Config(mask="central", adversarial_weight=0.001, overlap=4, decoder="released"),
    }
    variant_help: ClassVar[Mapping[str, str]] = {
        "adversarial": "adds the adversarial loss, weight 0.001",
        "released": "the authors' released network: central hole, 128 px",
    }
    titles: ClassVar[Mapping[str, str]] = {"adversarial": "Context encoder + adversary"}
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

    def __init__(self, encoder: Encoder, config: Config) -> None:
        """Build the decoder, and the discriminator if it is used.

        Raises:
            ValueError: If the released decoder is used with another encoder than its own.
        """
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
                spectral=config.spectral_norm,
            )
        self._metrics: dict[str, float] = {}
        self._recognised = 0.5
        """Running mean of the discriminator's accuracy."""

    def players(self) -> Players:
        """Return the generator's parameters, and the discriminator's if there is one."""
        generator = [*self.encoder.parameters(), *self.decoder.parameters()]
        if self.discriminator is None:
            return {"generator": generator}
        return {"discriminator": [*self.discriminator.parameters()], "generator": generator}

    def rate_factors(self) -> Mapping[str, float]:
        """Return the discriminator's learning-rate multiplier, if there is a discriminator."""
        return {} if self.discriminator is None else {"discriminator": self.config.discriminator_rate}

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the discriminator's loss, if there is one, then the generator's loss."""
        config = self.config
        images = batch.cropped(config)  # B × 3 × S × S in [0, 1]
        target = 2 * images - 1
        holes = self._draw_holes(batch)
        prediction = self._predict(fill(images, holes), batch.generator)

        predicted = dilated(holes, config.overlap)
        weights = torch.where(predicted & ~holes, config.overlap_weight, holes.float())
        reconstruction = weighted_error(_paste_centre(prediction, target), target, weights, loss=config.loss)
        generator_loss = config.reconstruction_weight * reconstruction
        self._metrics = {"reconstruction": float(reconstruction.detach())}

        if self.discriminator is not None:
            context = 2 * fill(images, holes) - 1
            real = self._discriminator_input(target, context)
            fake = self._discriminator_input(prediction, context)
            real_logits, fake_logits = self.discriminator(real), self.discriminator(fake.detach())
            real_label = 1.0 - config.label_smoothing
            yield "discriminator", adversarial_loss(real_logits, real_label) + adversarial_loss(fake_logits, 0.0)
            correct = torch.cat([real_logits > 0, fake_logits < 0])
            self._metrics["discriminator_accuracy"] = float(correct.float().mean())
            self._recognised += (self._metrics["discriminator_accuracy"] - self._recognised) / RECENT

            self.discriminator.requires_grad_(False)  # the generator's loss updates the generator only
            adversarial = adversarial_loss(self.discriminator(fake), 1.0)
            self.discriminator.requires_grad_(True)
            self._metrics["adversarial"] = float(adversarial.detach())
            generator_loss = generator_loss + config.adversarial_weight * adversarial
        yield "generator", generator_loss

    def metrics(self) -> Mapping[str, float]:
        """Return the parts of the last step's loss and the discriminator's accuracy; chance is 0.5."""
        return self._metrics

    def can_fill(self, holes: Shaped[Tensor, "B 1 S S"]) -> bool:
        """Return whether the decoder predicts all pixels of the holes: the released one only the central half."""
        return self.config.decoder != "released" or not bool((holes & ~central_like(holes)).any())

    def warning(self) -> str | None:
        """See `Task.warning`: a discriminator that is nearly always right teaches the generator little."""
        if self._recognised < BEATEN:
            return None
        return (
            f"the discriminator is right about {self._recognised:.0%} of the pictures, so that the adversarial loss "
            "teaches little; lower discriminator_rate, or set label_smoothing or spectral_norm"
        )

    @torch.no_grad()
    def inpaint(self, images: UInt8[Tensor, "B 3 S S"], holes: Shaped[Tensor, "B 1 S S"]) -> Float[Tensor, "B 3 S S"]:
        """See `Inpainter.inpaint`; noise maps are drawn with a fixed seed.

        The released network is given the hole without the overlap, as in training; there it sees colours that are
        spread from the border of the hole.

        Raises:
            UserError: If the released decoder does not predict all of the holes.
        """
        images = images.float() / 255
        shown, hidden = images, holes
        if self.config.decoder == "released":
            if not self.can_fill(holes):
                half = images.shape[-1] // 2
                raise UserError(
                    f"decoder=released predicts the central {half}×{half} pixels, but a hole reaches beyond them; "
                    "use central holes"
                )
            hidden = eroded(holes, self.config.overlap)
            shown = spread(images, holes, self.config.overlap)
        generator = torch.Generator(images.device).manual_seed(0)
        prediction = _paste_centre(self._predict(fill(shown, hidden), generator), 2 * images - 1)
        return torch.where(holes, (prediction.float() + 1) / 2, images).clamp(0, 1)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return input, output and original."""
        images = batch.images.float() / 255
        holes = self._draw_holes(batch)
        return {"input": fill(images, holes), "output": self.inpaint(batch.images, holes), "original": images}

    def _draw_holes(self, batch: Batch) -> Bool[Tensor, "B 1 S S"]:
        """Return what is hidden. The released decoder predicts the central half, hole and overlap together."""
        holes = draw_holes(self.config.mask, len(batch), batch.side, batch.generator)
        return eroded(holes, self.config.overlap) if self.config.decoder == "released" else holes

    def _predict(self, masked: Float[Tensor, "B 3 S S"], generator: torch.Generator) -> Tensor:
        """Return the decoder's output in [-1, 1]: the whole image, or its central half (released decoder)."""
        deepest = self.encoder(masked)[-1]
        if not self.config.noise:
            return self.decoder(deepest)
        shape = (len(deepest), self.config.noise, *deepest.shape[2:])
        return self.decoder(deepest, torch.randn(shape, generator=generator, device=deepest.device))

    def _discriminator_input(self, images: Tensor, context: Tensor) -> Tensor:
        """Return images, cut to the centre for a central mask, with the context's channels if `conditioned`."""
        parts = [images, context] if self.config.conditioned else [images]
        if self.config.mask == "central":
            side = context.shape[-1] // 2
            parts = [_centre(part, side) for part in parts]
        return torch.cat(parts, dim=1)


def weighted_error(
    prediction: Float[Tensor, "B 3 S S"],
    target: Float[Tensor, "B 3 S S"],
    weights: Float[Tensor, "B 1 S S"],
    *,
    loss: Literal["l2", "l1"],
) -> Float[Tensor, ""]:
    """Return the weighted error, divided by the number of values with a weight above 0 (equation 1 as a mean)."""
    difference = prediction - target
    error = difference.square() if loss == "l2" else difference.abs()
    return (weights * error).sum() / (3 * (weights > 0).sum()).clamp(min=1)


def _paste_centre(prediction: Tensor, images: Tensor) -> Tensor:
    """Return the prediction at full size; a prediction of the central half is pasted into the images."""
    if prediction.shape == images.shape:
        return prediction
    start, side = images.shape[-1] // 4, prediction.shape[-1]
    whole = images.to(prediction.dtype).clone()
    whole[..., start : start + side, start : start + side] = prediction
    return whole


def _centre(images: Tensor, side: int) -> Tensor:
    """Return the square of `side` pixels that the central mask hides; all of a picture of this side."""
    start = images.shape[-1] // 4 if images.shape[-1] > side else 0
    return images[..., start : start + side, start : start + side]

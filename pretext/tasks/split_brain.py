"""Split-brain: predict colours from lightness and back (Zhang et al. 2017).

Zhang, Isola and Efros, Split-Brain Autoencoders: Unsupervised Learning by Cross-Channel Prediction, CVPR 2017, arXiv
1611.09842. Two disjoint halves of the encoder predict each other's channels of CIE Lab, and their features are
concatenated (section 3.2). `loss=classification` is over bins of ab and of L, `loss=regression` is the squared error.

Published, AlexNet, as listed by Gidaris et al. 2018 (arXiv 1803.07728): ImageNet linear conv1…conv5 17.7 29.3 35.4
35.2 32.8 % top-1; VOC 2007 classification 67.1 mAP and detection 46.7 mAP, VOC 2012 segmentation 36.0 mIoU.

Shortcuts: none is known. Near black and white hardly any colour is possible, so that each side reveals a little of
the other; this holds in any colour space.

Deviations: the halves are the channel halves of each layer of an ordinary encoder (see
`pretext.modules.split_encoder`), which reads the colour image in one pass, during and after training; fine-tuning may
connect the two halves. L has 101 bins with spacing 1, shared between neighbours like the colour bins; rare bins are
not weighted by default, and if they are, the prior is a running mean; predictions are for cells of 4 px, where the
paper has 12×12 on 180 px (`cell=15`). Encoders that mix channels by attention or by normalisation across channels
cannot be split and are refused: vision transformers, and AlexNet with local response normalisation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pretext.encoders.base import Encoder
from pretext.modules.cross_channel import Prediction, Predictor
from pretext.modules.split_encoder import split_in_halves, zero_cross_weights
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import augment
from pretext.transforms.colour import gamut, grey, lab_to_rgb, rgb_to_lab


@final
class SplitBrain(Task):
    """Encoder split into two halves, with a head on each that predicts the other half's channels."""

    @dataclass(frozen=True)
    class Config(Prediction):
        """The prediction of colours and lightness, and the crops."""

        uniform: float = 1.0

    def __init__(self, encoder: Encoder, config: Config) -> None:
        """Split the encoder and build the heads.

        Raises:
            ValueError: If the encoder cannot be split, or `cell` is larger than its images.
        """
        super().__init__(encoder)
        split_in_halves(encoder)
        self.crops = config.crops()
        channels = encoder.stages[-1].channels
        self.split_at = channels // 2
        self.colours = Predictor(encoder, self.split_at, gamut(), sigma=5.0, settings=config)
        levels = torch.arange(101.0)[:, None]
        self.lightness = Predictor(encoder, channels - self.split_at, levels, sigma=1.0, settings=config)
        self._parts = {"colours": torch.zeros(()), "lightness": torch.zeros(())}

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the sum of the two halves' losses; they share no weight."""
        views = augment(batch.pictures, self.crops, batch.generator)
        lab = rgb_to_lab(views)
        deepest = self.encoder(views)[-1]
        colours = self.colours.loss(deepest[:, : self.split_at], lab[:, 1:])
        lightness = self.lightness.loss(deepest[:, self.split_at :], lab[:, :1])
        self._parts = {"colours": colours.detach(), "lightness": lightness.detach()}
        yield "task", colours + lightness

    def after_step(self, progress: float) -> None:
        """Set the weights that connect the two halves back to 0."""
        zero_cross_weights(self.encoder)

    def metrics(self) -> Mapping[str, float]:
        """Return the two halves' losses of the last step."""
        return {name: float(value) for name, value in self._parts.items()}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each half's input and prediction, and the original; colours without lightness are shown at L = 60."""
        images = batch.images.float() / 255
        lab, size = rgb_to_lab(images), images.shape[-1]
        deepest = self.encoder(images)[-1]
        colours = self.colours.predict(deepest[:, : self.split_at], size)
        lightness = self.lightness.predict(deepest[:, self.split_at :], size)
        return {
            "lightness": grey(lab[:, :1]),
            "colours painted": lab_to_rgb(torch.cat([lab[:, :1], colours], dim=1)),
            "colours": lab_to_rgb(torch.cat([torch.full_like(lightness, 60), lab[:, 1:]], dim=1)),
            "lightness painted": lab_to_rgb(torch.cat([lightness, lab[:, 1:]], dim=1)),
            "original": images,
        }

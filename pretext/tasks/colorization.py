"""Colorization: predict colours from lightness (Zhang et al. 2016).

Zhang, Isola and Efros, Colorful Image Colorization, ECCV 2016, arXiv 1603.08511. The encoder reads L of CIE Lab. The
head predicts a and b at a quarter of the resolution, as one of 313 bins with spacing 10 (section 2.1). The target
spreads a colour over its 5 nearest bins with a Gaussian of σ = 5, and rare colours have larger weights (equations 2
to 4: λ = 1/2, prior smoothed with σ = 5). The predicted colour is the annealed mean at T = 0.38 (equation 5).
`loss=regression` is the squared error of equation 1, which favours grey.

Published, AlexNet, as listed by Gidaris et al. 2018 (arXiv 1803.07728): ImageNet linear conv1…conv5 12.5 24.5 30.4
31.5 30.3 % top-1; VOC 2007 classification 65.9 mAP and detection 46.9 mAP, VOC 2012 segmentation 35.6 mIoU.

Shortcuts: none is known. Chromatic aberration colours edges according to their place in the image, and the network
can reproduce that.

Deviations: the encoder has three input channels and reads L as a grey image of that lightness, so that the same file
takes colour images afterwards, although its first layer has never seen any; the head upsamples the deepest map by
sub-pixel convolution (the paper: dilated layers and one deconvolution); the prior over bins is a running mean over
the batches (the paper: counted on ImageNet beforehand), so that weights settle in the first steps; the loss is a mean
over cells; a regressed colour is in units of 105, the largest coordinate of a bin.
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
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import augment
from pretext.transforms.colour import gamut, grey, lab_to_rgb, rgb_to_lab


@final
class Colorization(Task):
    """Encoder on the lightness, and a head that predicts the colours."""

    @dataclass(frozen=True)
    class Config(Prediction):
        """The prediction of the colours, and the crops."""

    def __init__(self, encoder: Encoder, config: Config) -> None:
        """Build the head.

        Raises:
            ValueError: If `cell` is larger than the encoder's images.
        """
        super().__init__(encoder)
        self.crops = config.crops()
        self.colours = Predictor(encoder, encoder.stages[-1].channels, gamut(), sigma=5.0, settings=config)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the error of the colours predicted from the lightness."""
        lab = rgb_to_lab(augment(batch.pictures, self.crops, batch.generator))
        yield "task", self.colours.loss(self.encoder(grey(lab[:, :1]))[-1], lab[:, 1:])

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return the encoder's input, the input with predicted colours, and the original."""
        original = batch.images.float() / 255
        lightness = rgb_to_lab(original)[:, :1]
        inputs = grey(lightness)
        colours = self.colours.predict(self.encoder(inputs)[-1], original.shape[-1])
        return {
            "lightness": inputs,
            "painted": lab_to_rgb(torch.cat([lightness, colours], dim=1)),
            "original": original,
        }

"""Colorization: predict colours from lightness (Zhang et al. 2016).

Zhang, Isola and Efros, Colorful Image Colorization, ECCV 2016, arXiv 1603.08511. The encoder sees L of CIE Lab; a and
b are predicted at a quarter of the size as one of 313 bins, 10 apart (section 2.1). A colour is shared between its 5
nearest bins by a Gaussian of σ = 5, and cells of rare colours count for more (equations 2 to 4: λ = 1/2, the prior
smoothed by σ = 5); what is painted is the annealed mean at T = 0.38 (equation 5). `loss=regression` is the squared
error of equation 1, which prefers grey.

Published, AlexNet, as Gidaris et al. 2018 (arXiv 1803.07728) list them: ImageNet linear conv1…conv5 12.5 24.5 30.4
31.5 30.3 % top-1; VOC 2007 classification 65.9 mAP and detection 46.9 mAP, VOC 2012 segmentation 35.6 mIoU.

Shortcuts: none is known; chromatic aberration colours edges by their place in the picture, and can be painted so.

Deviations: the encoder has three channels, so L is shown to it as the grey picture of that lightness, and the same file
takes pictures in colour afterwards, its first layer never having seen any; the head makes the encoder's deepest map
finer by sub-pixel convolution, where the paper has dilated layers and one deconvolution; the prior over bins is a
running mean over the batches seen, where the paper counts ImageNet beforehand, so that weights settle in the first
steps; the loss is a mean over cells, and a regressed colour is in units of the bins' reach, 105.
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
    """See the module."""

    @dataclass(frozen=True)
    class Config(Prediction):
        """How colours are predicted."""

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.crops = config.crops()
        self.colours = Predictor(encoder, encoder.stages[-1].channels, gamut(), sigma=5.0, settings=config)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the error of the colours, given the lightness."""
        lab = rgb_to_lab(augment(batch.images, self.crops, batch.generator))
        yield "task", self.colours.loss(self.encoder(grey(lab[:, :1]))[-1], lab[:, 1:])

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return what is seen, the same painted, and the original."""
        original = batch.images.float() / 255
        lightness = rgb_to_lab(original)[:, :1]
        seen = grey(lightness)
        colours = self.colours.predict(self.encoder(seen)[-1], original.shape[-1])
        return {"lightness": seen, "painted": lab_to_rgb(torch.cat([lightness, colours], dim=1)), "original": original}

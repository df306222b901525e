"""Barlow Twins: decorrelate the features of two views (Zbontar et al. 2021).

Zbontar, Jing, Misra, LeCun and Deny, Barlow Twins: Self-Supervised Learning via Redundancy Reduction, ICML 2021,
arXiv 2103.03230: equations 1 and 2, algorithm 1. Each feature should correlate between the two views of an image,
and with no other feature. Published (recalled): ResNet-50, ImageNet, linear 73.2 % top-1 (1000 epochs, batch 2048,
three layers of 8192).

The loss is invariant to scaling and shifting a feature. A feature that is constant costs 1.

Deviations: projections of 512 channels by default, not 8192 (`barlow_twins:paper`); crops of 20 % of the area and
more by default; saturation varies as much as contrast (the paper: half as much); no LARS, the optimiser is the
training loop's; see also `pretext.transforms.augmentation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from pretext.encoders.base import Encoder
from pretext.modules.projector import projector
from pretext.system.distributed import gather
from pretext.system.ranges import MOST, check_range
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import Augmentation
from pretext.transforms.views import base_settings, two_views


@final
class BarlowTwins(Task):
    """Encoder and projector, trained by the cross-correlation of two views' projections."""

    @dataclass(frozen=True)
    class Config(Augmentation):
        """The loss, the projector and the views."""

        redundancy: float = 5e-3
        """λ: weight of the off-diagonal (redundancy) term; the diagonal (invariance) term has weight 1."""
        hidden: int = 512
        """Width of the projector's two hidden layers; published 8192."""
        projection: int = 512
        """Channels of a projection; published 8192, where the paper's results are still rising."""
        crop_min: float = 0.2
        """Smallest share of the image area that a crop covers; published 0.08 at 224 px."""
        colour_strength: float = 0.5
        blur: float = 1.0
        """Probability of blurring the first view."""
        other_blur: float = 0.1
        """Probability of blurring the second view."""
        other_solarize: float = 0.2
        """Probability of solarizing the second view."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_range(self, "redundancy", above=0, most=100)
            check_range(self, "hidden", least=2, most=MOST["hidden"])
            check_range(self, "projection", least=2, most=65536)
            check_range(self, "other_blur", "other_solarize", least=0, most=1)

    variants: ClassVar[Mapping[str, Any]] = {"paper": Config(crop_min=0.08, hidden=8192, projection=8192)}
    variant_help: ClassVar[Mapping[str, str]] = {
        "paper": "crops from 8 % of the area; projector of 8192 channels",
    }

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.first = base_settings(config)
        self.second = base_settings(config, blur=config.other_blur, solarize=config.other_solarize)
        self.redundancy = config.redundancy
        self.projector = projector(  # no output normalisation: the loss standardises over all processes
            encoder.stages[-1].channels, config.hidden, config.projection, layers=3, last_bias=False
        )
        self._metrics = torch.zeros(2)

    def views(self, batch: Batch) -> tuple[Float[Tensor, "B 3 S S"], Float[Tensor, "B 3 S S"]]:
        """Return two views of each image."""
        return two_views(batch.pictures, self.first, self.second, batch.generator)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the loss of equation 1."""
        z1, z2 = self.projector(self.encoder.embed(torch.cat(self.views(batch)))).chunk(2)
        invariance, redundancy = terms(cross_correlation(z1, z2))
        self._metrics = torch.stack([invariance, redundancy]).detach()
        yield "task", invariance + self.redundancy * redundancy

    def metrics(self) -> Mapping[str, float]:
        """Return the two unweighted terms of the last step's loss."""
        return dict(zip(("invariance", "redundancy"), self._metrics.tolist(), strict=True))

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each image and its two views."""
        return dict(zip(("picture", "first", "second"), (batch.images.float() / 255, *self.views(batch)), strict=True))


def cross_correlation(z1: Float[Tensor, "B D"], z2: Float[Tensor, "B D"]) -> Float[Tensor, "D D"]:
    """Return the correlation of each feature of z1 with each feature of z2, over the images of all processes.

    Source: Equation 2; each view's features are standardised over the batch.
    """
    with torch.autocast(z1.device.type, enabled=False):
        z1, z2 = (_standardised(gather(z.float())) for z in (z1, z2))
        return z1.T @ z2 / len(z1)


def terms(correlation: Float[Tensor, "D D"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the unweighted invariance and redundancy terms of equation 1."""
    diagonal = correlation.diagonal()
    return (1 - diagonal).square().sum(), (correlation - torch.diag(diagonal)).square().sum()


def _standardised(z: Tensor) -> Tensor:
    """Return features with mean 0 and standard deviation 1; a constant feature stays near 0."""
    centred = z - z.mean(dim=0)
    return centred * (centred.square().mean(dim=0) + 1e-5).rsqrt()

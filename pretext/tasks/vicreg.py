"""VICReg: regularise variance and covariance of views (Bardes et al. 2022).

Bardes, Ponce and LeCun, VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning,
ICLR 2022, arXiv 2105.04906: section 4.1 and algorithm 1. Published (recalled): ResNet-50, ImageNet, linear 73.2 % top-1
(1000 epochs, batch 2048, expander of three layers of 8192).

The three terms, with weights 25, 25 and 1: the mean squared difference of the views; for each view, by how much
the features' standard deviations fall short of 1; for each view, the sum of squared off-diagonal covariances, divided
by the number of features.

Deviations: an expander of 512 channels by default, not 8192 (`vicreg:paper`); crops of 20 % of the area and more by
default; saturation varies as much as contrast (the paper: half as much); both views have one distribution (the
paper's blur and solarize them differently, as BYOL); no LARS, the optimiser is the training loop's. The squared
difference is a mean over features, as in algorithm 1; the authors' released code halves the variance term, algorithm
1 and this code do not. See also `pretext.transforms.augmentation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pretext.encoders.base import Encoder
from pretext.modules.projector import projector
from pretext.system.distributed import gather
from pretext.system.ranges import MOST, check_range
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import Augmentation
from pretext.transforms.views import two_views

EPSILON = 1e-4
"""Added to a variance before its square root is taken."""


@final
class VICReg(Task):
    """Encoder and expander, trained by the three terms."""

    @dataclass(frozen=True)
    class Config(Augmentation):
        """The weights of the three terms, the expander and the views."""

        invariance: float = 25.0
        """λ: weight of the invariance term."""
        variance: float = 25.0
        """μ: weight of the variance term."""
        covariance: float = 1.0
        """ν: weight of the covariance term."""
        hidden: int = 512
        """Width of the expander's two hidden layers; published 8192."""
        projection: int = 512
        """Output channels of the expander; published 8192."""
        crop_min: float = 0.2
        """Smallest share of the image area that a crop covers; published 0.08 at 224 px."""
        colour_strength: float = 0.5
        solarize: float = 0.1

        def __post_init__(self) -> None:
            super().__post_init__()
            check_range(self, "invariance", "variance", "covariance", least=0, most=10_000)
            check_range(self, "hidden", least=2, most=MOST["hidden"])
            check_range(self, "projection", least=2, most=65536)

    variants: ClassVar[Mapping[str, Any]] = {"paper": Config(crop_min=0.08, hidden=8192, projection=8192)}
    variant_help: ClassVar[Mapping[str, str]] = {
        "paper": "crops from 8 % of the area; expander of 8192 channels",
    }

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config = config
        self.expander = (
            projector(  # output normalisation would fix the variance; an output bias has no effect on the loss
                encoder.stages[-1].channels, config.hidden, config.projection, layers=3, last_bias=False
            )
        )
        self._metrics = torch.zeros(3)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the loss of equation 6, over the images of all processes."""
        config, device = self.config, batch.device.type
        views = torch.cat(two_views(batch.pictures, config, config, batch.generator))
        z1, z2 = self.expander(self.encoder.embed(views)).chunk(2)
        with torch.autocast(device, enabled=False):
            z1, z2 = gather(z1.float()), gather(z2.float())
            parts = [invariance(z1, z2), variance(z1) + variance(z2), covariance(z1) + covariance(z2)]
        self._metrics = torch.stack(parts).detach()
        yield "task", config.invariance * parts[0] + config.variance * parts[1] + config.covariance * parts[2]

    def metrics(self) -> Mapping[str, float]:
        """Return the three unweighted terms of the last step's loss; a variance term near 2 is a collapse."""
        return dict(zip(("invariance", "variance", "covariance"), self._metrics.tolist(), strict=True))

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each image and its two views."""
        first, second = two_views(batch.pictures, self.config, self.config, batch.generator)
        return {"picture": batch.images.float() / 255, "view 1": first, "view 2": second}


def invariance(z1: Float[Tensor, "N D"], z2: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """Return the mean squared difference of two views (equation 5, but also a mean over features)."""
    return F.mse_loss(z1, z2)


def variance(z: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """Return the mean over features of max(0, 1 - standard deviation) (equations 1 and 2)."""
    return F.relu(1 - (z.var(dim=0) + EPSILON).sqrt()).mean()


def covariance(z: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """Return the sum of the squared off-diagonal covariances, divided by D (equations 3 and 4)."""
    centred = z - z.mean(dim=0)
    matrix = centred.T @ centred / (len(z) - 1)
    return (matrix - torch.diag(matrix.diagonal())).square().sum() / z.shape[1]

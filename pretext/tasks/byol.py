"""BYOL: predict a momentum encoder's projection (Grill et al. 2020).

Grill et al., Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning, NeurIPS 2020, arXiv 2006.07733:
equation 1 (momentum encoder), equation 2 (loss, in both directions), section 3 (projector, predictor and the rising
momentum), appendix B (views). Published (recalled): ResNet-50, ImageNet, linear 74.3 % top-1 (batch 4096, 1000
epochs).

There are no negatives: the loss also reaches its minimum 0 when all projections are equal. Read it together with the
spread of features, which the training loop logs.

Deviations: no LARS, the optimiser is the training loop's; narrower projector and predictor and a lower momentum by
default (`byol:paper` has the published ones); saturation varies as much as brightness (the paper: half as much);
projector and predictor end with a bias; views smaller than `blur_from` are not blurred. See also
`pretext.transforms.augmentation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pretext.encoders.base import Encoder
from pretext.modules.momentum_encoder import MomentumCopy, rising_momentum
from pretext.modules.projector import Projected, projector
from pretext.system.ranges import MOST, check_range
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import Augmentation
from pretext.transforms.views import two_views


@final
class BYOL(Task):
    """Online encoder, projector and predictor; the target is a momentum copy of encoder and projector."""

    @dataclass(frozen=True)
    class Config(Augmentation):
        """The views, the projector and predictor, and the momentum."""

        colour_strength: float = 0.5
        blur: float = 1.0
        """Probability of blurring the first view; `other_blur` applies to the second view."""
        other_blur: float = 0.1
        """Probability of blurring the second view."""
        other_solarize: float = 0.2
        """Probability of solarizing the second view; `solarize` applies to the first view."""
        momentum: float = 0.99
        """Momentum of the target encoder at the first step, rising to 1 as a cosine; published 0.996."""
        hidden: int = 512
        """Width of the hidden layer of projector and predictor; published 4096."""
        projection: int = 128
        """Channels of a projection and of a prediction; published 256."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_range(self, "other_blur", "other_solarize", "momentum", least=0, most=1)
            check_range(self, "hidden", least=1, most=MOST["hidden"])
            check_range(self, "projection", least=2, most=65536)

    variants: ClassVar[Mapping[str, Any]] = {
        "paper": Config(momentum=0.996, hidden=4096, projection=256),
        "small": Config(crop_min=0.2, blur=0.0, other_blur=0.0),
    }
    variant_help: ClassVar[Mapping[str, str]] = {
        "paper": "published momentum 0.996, hidden 4096, projection 256",
        "small": "for 32 px images: milder crops, no blur",
    }

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.first = config
        self.second = replace(config, blur=config.other_blur, solarize=config.other_solarize)
        self.projector = projector(
            encoder.stages[-1].channels, config.hidden, config.projection, layers=2, last_bias=False
        )
        self.predictor = projector(config.projection, config.hidden, config.projection, layers=2)
        self.target = MomentumCopy(Projected(encoder, self.projector))

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the loss of both directions; each view has its own batch-normalisation statistics."""
        views = two_views(batch.pictures, self.first, self.second, batch.generator)
        p1, p2 = (self.predictor(self.projector(self.encoder.embed(view))) for view in views)
        t1, t2 = (self.target(view) for view in views)
        yield "task", regression(p1, t2) + regression(p2, t1)

    def after_step(self, progress: float) -> None:
        """Update the target encoder (equation 1), with rising momentum."""
        online = Projected(self.encoder, self.projector)
        self.target.follow(online, rising_momentum(self.first.momentum, progress))

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each image and its two views."""
        first, second = two_views(batch.pictures, self.first, self.second, batch.generator)
        return {"picture": batch.images.float() / 255, "first view": first, "second view": second}


def regression(predicted: Float[Tensor, "B D"], target: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Return the mean squared distance of the normalised vectors, 2 - 2 cos (equation 2)."""
    with torch.autocast(predicted.device.type, enabled=False):
        return (F.normalize(predicted.float(), dim=1) - F.normalize(target.float(), dim=1)).square().sum(dim=1).mean()

"""BYOL: predict a momentum encoder's projection (Grill et al. 2020).

Grill et al., Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning, NeurIPS 2020, arXiv 2006.07733:
equation 1 (the slow copy), equation 2 (the loss, taken in both directions), section 3 (projector, predictor and
the copy's rising momentum), appendix B (views). Published (recalled): ResNet-50, ImageNet,
linear 74.3 % top-1 (batch 4096, 1000 epochs).

There are no negatives: the loss is at its least, 0, also where all projections are one. What counts is the loss
together with the spread of features, which the training loop logs.

Deviations: no LARS, the optimiser is the training loop's; narrower projector and predictor and a copy that
follows faster by default (variant `paper` has the published ones); saturation changes by as much as brightness,
where the paper's changes by half of it; batch normalisation sees the pictures of its own process. Views smaller
than `blur_from` are not blurred. For all else about them see `pretext.transforms.augmentation`.
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
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import Augmentation
from pretext.transforms.views import two_views


def regression(predicted: Float[Tensor, "B D"], target: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Return the mean squared distance of the normalised vectors, 2 - 2 cos (equation 2)."""
    with torch.autocast(predicted.device.type, enabled=False):
        return (F.normalize(predicted.float(), dim=1) - F.normalize(target.float(), dim=1)).square().sum(dim=1).mean()


@final
class BYOL(Task):
    """See the module."""

    @dataclass(frozen=True)
    class Config(Augmentation):
        """The views, the projector and predictor, and the momentum; `blur` and `solarize` are the first view's."""

        colour_strength: float = 0.5
        """s: brightness, contrast, saturation change by up to ±0.8·s, hue by ±0.2·s turns."""
        blur: float = 1.0
        """Probability of blurring the first view."""
        other_blur: float = 0.1
        """Probability of blurring the second view."""
        other_solarize: float = 0.2
        """Probability of solarizing the second view; `solarize` is the first one's."""
        momentum: float = 0.99
        """Share that the copy keeps of itself at the first step, rising to 1 as a cosine; published 0.996."""
        hidden: int = 512
        """Width of the projector's and the predictor's hidden layer; published 4096."""
        projection: int = 128
        """Length of what is compared; published 256."""

        def __post_init__(self) -> None:
            super().__post_init__()
            for name, least, most in (
                ("other_blur", 0, 1),
                ("other_solarize", 0, 1),
                ("momentum", 0, 1),
                ("hidden", 1, 65536),
                ("projection", 2, 65536),
            ):
                if not least <= getattr(self, name) <= most:
                    raise ValueError(f"{name} is {getattr(self, name)}; allowed is from {least} to {most}")

    variants: ClassVar[Mapping[str, Any]] = {
        "paper": Config(momentum=0.996, hidden=4096, projection=256),
        "small": Config(crop_min=0.2, blur=0.0, other_blur=0.0),
    }
    """`small` is for some 32 px: no blur, and milder crops."""
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
        """Yield the loss of both directions; each view is normalised by the statistics of its own batch."""
        views = two_views(batch.images, self.first, self.second, batch.generator)
        p1, p2 = (self.predictor(self.projector(self.encoder.embed(view))) for view in views)
        t1, t2 = (self.target(view) for view in views)
        yield "task", regression(p1, t2) + regression(p2, t1)

    def after_step(self, progress: float) -> None:
        """Let the target follow (equation 1), ever more slowly."""
        online = Projected(self.encoder, self.projector)
        self.target.follow(online, rising_momentum(self.first.momentum, progress))

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each picture, a first and a second view of it."""
        first, second = two_views(batch.images, self.first, self.second, batch.generator)
        return {"picture": batch.images.float() / 255, "first view": first, "second view": second}

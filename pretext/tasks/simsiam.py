"""SimSiam: predict one view's projection from the other's (Chen and He 2021).

Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021, arXiv 2011.10566: equations 1 to 4,
algorithm 1; section 3 for the projector and the predictor. Published (recalled): ResNet-50, ImageNet, linear 68.1 %
top-1 after 100 epochs, 71.3 % after 800 (batch 256).

What keeps all projections from becoming one is that no gradient flows through the view that is predicted
(section 4.1), and nothing in the loss: -1 is the best there is and also what a collapse gives, so that the
loss alone says nothing. The spread of features, which the training loop logs, has to be watched with it.

Deviations: narrower projector and predictor by default (variant `paper` has the published ones); the predictor's
learning rate falls with all others, where the paper's best row keeps it constant (table 1); weight decay spares
normalisation and biases; batch normalisation sees the pictures of its own process. For the views see
`pretext.transforms.augmentation`.
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
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import Augmentation
from pretext.transforms.views import two_views


def negative_cosine(predicted: Float[Tensor, "B D"], projected: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Return minus the mean cosine; `projected` is taken as it is, and gets no gradient (equations 1 and 3)."""
    with torch.autocast(predicted.device.type, enabled=False):
        return -F.cosine_similarity(predicted.float(), projected.detach().float(), dim=1).mean()


@final
class SimSiam(Task):
    """See the module."""

    @dataclass(frozen=True)
    class Config(Augmentation):
        """What the views differ in, the projector and the predictor."""

        crop_min: float = 0.2
        """Smallest share of the picture's area that a crop shows."""
        colour_strength: float = 0.5
        """s: brightness, contrast, saturation change by up to ±0.8·s, hue by ±0.2·s turns."""
        hidden: int = 512
        """Width of the projector's two hidden layers; published 2048."""
        projection: int = 512
        """Length of a projection, and of what is predicted; published 2048."""
        bottleneck: int = 128
        """Width of the predictor's hidden layer, a quarter of the projection; published 512."""

        def __post_init__(self) -> None:
            super().__post_init__()
            for name, least in (("hidden", 1), ("projection", 2), ("bottleneck", 1)):
                if not least <= getattr(self, name) <= 65536:
                    raise ValueError(f"{name} is {getattr(self, name)}; allowed is from {least} to 65536")

    variants: ClassVar[Mapping[str, Any]] = {"paper": Config(hidden=2048, projection=2048, bottleneck=512)}
    variant_help: ClassVar[Mapping[str, str]] = {
        "paper": "published widths: hidden 2048, bottleneck 512",
    }
    training_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"batch_size": 256, "optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 1e-4, "warmup": 0.0}
    }
    """Section 3, for a batch of 256 pictures."""

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config = config
        self.projector = projector(
            encoder.stages[-1].channels, config.hidden, config.projection, layers=3, last_norm=True
        )
        self.predictor = projector(config.projection, config.bottleneck, config.projection, layers=2)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the symmetric loss, equation 4; each view is normalised by the statistics of its own batch."""
        views = two_views(batch.images, self.config, self.config, batch.generator)
        z1, z2 = (self.projector(self.encoder.embed(view)) for view in views)
        yield "task", (negative_cosine(self.predictor(z1), z2) + negative_cosine(self.predictor(z2), z1)) / 2

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each picture and two views of it."""
        first, second = two_views(batch.images, self.config, self.config, batch.generator)
        return {"picture": batch.images.float() / 255, "first view": first, "second view": second}

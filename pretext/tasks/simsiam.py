"""SimSiam: predict one view's projection from the other's (Chen and He 2021).

Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021, arXiv 2011.10566: equations 1 to 4,
algorithm 1; section 3 for the projector and the predictor. There are no negatives and no momentum encoder. Published
(recalled): ResNet-50, ImageNet, linear 68.1 % top-1 after 100 epochs, 71.3 % after 800 (batch 256).

The stop-gradient on the predicted view prevents collapse (section 4.1). The loss does not: its minimum -1 is also
reached by a collapse, so that the loss alone says nothing. Read it together with the spread of features, which the
training loop logs.

Deviations: narrower projector and predictor by default (`simsiam:paper` has the published ones); the predictor's
learning rate decays like all others, where the paper's best row keeps it constant (table 1); weight decay is not
applied to normalisation and biases. See also `pretext.transforms.augmentation`.
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
from pretext.system.ranges import MOST, check_range
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import Augmentation
from pretext.transforms.views import two_views


@final
class SimSiam(Task):
    """Encoder, projector and predictor, trained by the negative cosine of two views."""

    @dataclass(frozen=True)
    class Config(Augmentation):
        """The views, the projector and the predictor."""

        crop_min: float = 0.2
        colour_strength: float = 0.5
        hidden: int = 512
        """Width of the projector's two hidden layers; published 2048."""
        projection: int = 512
        """Channels of a projection and of a prediction; published 2048."""
        bottleneck: int = 128
        """Width of the predictor's hidden layer, a quarter of `projection` in the paper; published 512."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_range(self, "hidden", least=1, most=MOST["hidden"])
            check_range(self, "projection", least=2, most=65536)
            check_range(self, "bottleneck", least=1, most=65536)

    variants: ClassVar[Mapping[str, Any]] = {"paper": Config(hidden=2048, projection=2048, bottleneck=512)}
    variant_help: ClassVar[Mapping[str, str]] = {
        "paper": "published widths: hidden 2048, bottleneck 512",
    }
    training_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"batch_size": 256, "optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 1e-4, "warmup": 0.0}
    }
    """Section 3, for a batch of 256 images."""

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config = config
        self.projector = projector(
            encoder.stages[-1].channels, config.hidden, config.projection, layers=3, last_norm=True
        )
        self.predictor = projector(config.projection, config.bottleneck, config.projection, layers=2)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the symmetric loss of equation 4; each view has its own batch-normalisation statistics."""
        views = two_views(batch.pictures, self.config, self.config, batch.generator)
        z1, z2 = (self.projector(self.encoder.embed(view)) for view in views)
        yield "task", (negative_cosine(self.predictor(z1), z2) + negative_cosine(self.predictor(z2), z1)) / 2

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each image and its two views."""
        first, second = two_views(batch.pictures, self.config, self.config, batch.generator)
        return {"picture": batch.images.float() / 255, "first view": first, "second view": second}


def negative_cosine(predicted: Float[Tensor, "B D"], projected: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Return minus the mean cosine, without a gradient into `projected` (equations 1 and 3)."""
    with torch.autocast(predicted.device.type, enabled=False):
        return -F.cosine_similarity(predicted.float(), projected.detach().float(), dim=1).mean()

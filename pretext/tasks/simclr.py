"""SimCLR: match two views among all others of the batch (Chen et al. 2020).

Chen, Kornblith, Norouzi and Hinton, A Simple Framework for Contrastive Learning of Visual Representations,
ICML 2020, arXiv 2002.05709. Published: ResNet-50, ImageNet, linear 69.3 % top-1 (batch 4096, 1000 epochs);
CIFAR-10, ResNet-50, linear 94.0 % (batch 1024, 1000 epochs, temperature 0.5).

Shortcut: without colour changes, two crops of an image are recognised by their colour histogram (section 3.1). The
features become invariant to what the views differ in, and to nothing else.

Deviations: no LARS, the optimiser is the training loop's; the projector ends in a linear layer, in the authors' code
in batch normalisation; see also `pretext.transforms.augmentation`.
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
from pretext.system.distributed import gather, rank
from pretext.system.ranges import MOST, check_range
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import Augmentation
from pretext.transforms.views import two_views


@final
class SimCLR(Task):
    """Encoder and projector, trained by the NT-Xent loss."""

    @dataclass(frozen=True)
    class Config(Augmentation):
        """The loss, the projector and the views."""

        temperature: float = 0.5
        """Temperature of the loss; in the paper 0.5 is best for CIFAR-10 and few epochs, 0.1 for ImageNet."""
        hidden: int = 512
        """Width of the projector's hidden layer; the paper has the encoder's own width, 2048."""
        projection: int = 128
        """Number of channels of a projection."""
        projector_norm: bool = True
        """Batch normalisation in the projector, as in the authors' code; the paper's text has none."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_range(self, "temperature", least=0.001, most=100)
            check_range(self, "hidden", least=1, most=MOST["hidden"])
            check_range(self, "projection", least=2, most=65536)

    # half the colour strength and no blur as in appendix B.9, and milder crops
    variants: ClassVar[Mapping[str, Any]] = {"small": Config(crop_min=0.2, colour_strength=0.5, blur=0.0)}
    variant_help: ClassVar[Mapping[str, str]] = {
        "small": "for 32 px images: milder crops, no blur, less colour",
    }

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config = config
        self.projector = projector(
            encoder.stages[-1].channels, config.hidden, config.projection, layers=2, norm=config.projector_norm
        )

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the NT-Xent loss of two views of each image."""
        views = torch.cat(two_views(batch.pictures, self.config, self.config, batch.generator))
        projections = self.projector(self.encoder.embed(views))
        z1, z2 = projections.chunk(2)
        yield "task", nt_xent(z1, z2, temperature=self.config.temperature)

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each image and its two views."""
        first, second = two_views(batch.pictures, self.config, self.config, batch.generator)
        return {"picture": batch.images.float() / 255, "first view": first, "second view": second}


def nt_xent(z1: Float[Tensor, "B D"], z2: Float[Tensor, "B D"], *, temperature: float) -> Float[Tensor, ""]:
    """Return the normalised temperature-scaled cross-entropy, over the images of all processes.

    Each view classifies the other view of its image among the 2N - 1 other views, by cosine similarity.

    Args:
        z1: Projections of the first views; need not be normalised.
        z2: Projections of the second views of the same images.
        temperature: Divides the similarities.

    Source: Equation 1, algorithm 1.
    """
    with torch.autocast(z1.device.type, enabled=False):  # half precision is too coarse for similarities
        z1, z2 = F.normalize(z1.float(), dim=1), F.normalize(z2.float(), dim=1)
        all1, all2 = gather(z1), gather(z2)
        index = torch.arange(len(z1), device=z1.device) + rank() * len(z1)
        itself, partner = torch.cat([index, index + len(all1)]), torch.cat([index + len(all1), index])
        similarity = torch.cat([z1, z2]) @ torch.cat([all1, all2]).T / temperature  # 2B × 2N
        return F.cross_entropy(similarity.scatter(1, itself[:, None], float("-inf")), partner)

"""SwAV: predict a view's cluster assignment from another (Caron et al. 2020).

Caron, Misra, Mairal, Goyal, Bojanowski and Joulin, Unsupervised Learning of Visual Features by Contrasting
Cluster Assignments, NeurIPS 2020, arXiv 2006.09882: equations 1 to 6, section 3.2 and appendix A. Published (recalled):
ResNet-50, ImageNet, linear 75.3 % top-1 (800 epochs, batch 4096, 3000 prototypes, 2×224 + 6×96 px).

The Sinkhorn iterations distribute a batch equally over all prototypes, which excludes the solution of one prototype
for all images.

Deviations: no queue, so that a batch should hold at least as many images as there are prototypes, hence 64 prototypes
by default (`swav:paper` has 3000, and the paper's batch of 4096); crops for small images, half the colour strength and
four small crops of half the side by default; prototypes are frozen over 2 % of the run (the paper: one epoch), and
normalised in the forward pass; no LARS, the optimiser is the training loop's; see also
`pretext.transforms.augmentation`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from pretext.encoders.base import Encoder
from pretext.modules.projector import projector
from pretext.modules.prototypes import Prototypes, cross_view_entropy
from pretext.system.distributed import gather, rank, world
from pretext.system.ranges import MOST, check_range
from pretext.tasks.base import Batch, Task
from pretext.transforms.views import MultiCrop, embed_crops, local_side, multi_crop, show_crops


@final
class SwAV(Task):
    """Encoder, projector and prototypes, trained by swapped prediction of cluster assignments."""

    @dataclass(frozen=True)
    class Config(MultiCrop):
        """The prototypes, the assignments, the projector and the crops."""

        prototypes: int = 64
        """Number of prototypes (clusters); published 3000 for ImageNet."""
        temperature: float = 0.1
        """Temperature of the prediction: divides its cosines with the prototypes."""
        epsilon: float = 0.05
        """ε of the Sinkhorn algorithm; smaller values give harder assignments."""
        iterations: int = 3
        """Number of iterations of the Sinkhorn algorithm."""
        freeze: float = 0.02
        """Share of the run over which the prototypes are frozen."""
        hidden: int = 512
        """Width of the projector's hidden layer; published 2048."""
        projection: int = 128
        """Channels of a projection and of a prototype."""
        colour_strength: float = 0.5
        """Strength s of the colour changes, see `Augmentation`; published 1."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_range(self, "prototypes", "projection", least=2, most=1_000_000)
            check_range(self, "iterations", least=1, most=1_000_000)
            check_range(self, "hidden", least=1, most=MOST["hidden"])
            check_range(self, "temperature", "epsilon", least=0.001, most=100)
            check_range(self, "freeze", least=0, below=1)

    variants: ClassVar[Mapping[str, Any]] = {
        "paper": Config(
            crop_min=0.14,
            local_min=0.05,
            local_crops=6,
            local_size=0.42857142857142855,  # 96 / 224
            prototypes=3000,
            freeze=0.00125,  # one of 800 epochs
            hidden=2048,
            colour_strength=1.0,
        )
    }
    variant_help: ClassVar[Mapping[str, str]] = {
        "paper": "3000 prototypes, published crops and projector",
    }
    training_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"batch_size": 4096}}
    revision: ClassVar[int] = 1

    def __init__(self, encoder: Encoder, config: Config) -> None:
        """Build the projector and the prototypes.

        Raises:
            ValueError: If the small crops are too small for the encoder.
        """
        super().__init__(encoder)
        self.config = config
        self.side = local_side(encoder, config.local_size)
        self.projector = projector(encoder.stages[-1].channels, config.hidden, config.projection, layers=2)
        self.prototypes = Prototypes(config.projection, config.prototypes, frozen=config.freeze > 0)
        self._metrics = torch.zeros(2)
        self._assigned = config.prototypes  # images over which the last step's assignments were computed

    def crops(self, batch: Batch) -> list[Float[Tensor, "V B 3 _ _"]]:
        """Return large and small crops; they differ in size and covered area only."""
        config = self.config
        return multi_crop(
            batch.pictures, (config, config), config.local(), batch.generator, count=config.local_crops, side=self.side
        )

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield each crop's cross-entropy with the assignments of the other large crops (equation 6)."""
        projections = self.projector(embed_crops(self.encoder, self.crops(batch)))
        scores = self.prototypes(projections).unflatten(0, (-1, len(batch)))
        epsilon, iterations = self.config.epsilon, self.config.iterations
        assignments = torch.stack([assigned(view, epsilon=epsilon, iterations=iterations) for view in scores[:2]])
        loss = cross_view_entropy(assignments, scores / self.config.temperature)
        minimum = _entropy(assignments).mean()  # the loss of a perfect prediction
        self._metrics = torch.stack([_entropy(assignments.mean(dim=(0, 1))).exp(), loss.detach() - minimum])
        self._assigned = len(batch) * world()
        yield "task", loss

    def after_step(self, progress: float) -> None:
        """Unfreeze the prototypes after the share `freeze` of the run."""
        self.prototypes.frozen.fill_(progress < self.config.freeze)

    def metrics(self) -> Mapping[str, float]:
        """Return the effective number of prototypes, the divergence from the assignments, and the loss at chance."""
        used, divergence = self._metrics.tolist()
        return {"prototypes_used": used, "divergence": divergence, "chance": math.log(self.config.prototypes)}

    def warning(self) -> str | None:
        """See `Task.warning`: fewer images than prototypes cannot be distributed equally over them."""
        count = self.config.prototypes
        if self._assigned >= count:
            return None
        return (
            f"{self._assigned} images at a time are assigned to {count} prototypes, which cannot get equally many; "
            "raise --batch-size, lower --accumulate, or set fewer prototypes"
        )

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each image, its large crops and one small crop."""
        return show_crops(batch.images, self.crops(batch))


@torch.no_grad()
def sinkhorn(scores: Float[Tensor, "N K"], *, epsilon: float, iterations: int) -> Float[Tensor, "N K"]:
    """Return each image's distribution over the prototypes, such that each prototype receives about N/K images.

    Rows sum to 1; the column sums are equal once the iterations have converged. Computed in logarithms, which do not
    overflow.

    Args:
        scores: Cosines with the prototypes, for the images of all processes.
        epsilon: Divides the scores.
        iterations: Number of iterations; each normalises columns, then rows.

    Source: Equations 3 to 5 (Cuturi 2013).
    """
    shares = scores.float() / epsilon
    for _ in range(iterations):
        shares = shares.log_softmax(dim=0).log_softmax(dim=1)
    return shares.exp()


def assigned(scores: Float[Tensor, "B K"], *, epsilon: float, iterations: int) -> Float[Tensor, "B K"]:
    """Return the assignments of this process's images, computed over those of all processes. See `sinkhorn`."""
    assignments = sinkhorn(gather(scores.detach()), epsilon=epsilon, iterations=iterations)
    return assignments[rank() * len(scores) : (rank() + 1) * len(scores)]


def _entropy(shares: Tensor) -> Tensor:
    """Return the entropy of distributions over the last dimension, in nats."""
    return -(shares * shares.clamp(min=1e-12).log()).sum(dim=-1)

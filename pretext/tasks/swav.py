"""SwAV: predict a view's cluster assignment from another (Caron et al. 2020).

Caron, Misra, Mairal, Goyal, Bojanowski and Joulin, Unsupervised Learning of Visual Features by Contrasting
Cluster Assignments, NeurIPS 2020, arXiv 2006.09882: equations 1 to 6, section 3.2 and appendix A. Published (recalled):
ResNet-50, ImageNet, linear 75.3 % top-1 (800 epochs, batch 4096, 3000 prototypes, 2×224 + 6×96 px).

The assignments of a batch are spread over all prototypes by Sinkhorn's iterations, so that one prototype for
all is no solution.

Deviations: no queue: there should be no more prototypes than pictures in a batch, hence 64 of them by default
(`swav:paper` has 3000, and wants batches to match); crops for small pictures, half the colour strength and four
small crops by default, small ones half as large; prototypes fixed over 2 % of the run, where the paper has an
epoch; prototypes are normalised in the forward pass; no LARS, the optimiser is the training loop's; batch
normalisation sees the pictures of its own process, the assignments are made over those of all; see also
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
from pretext.system.distributed import gather, rank
from pretext.tasks.base import Batch, Task
from pretext.transforms.views import MultiCrop, embed_crops, local_side, multi_crop, show_crops


@torch.no_grad()
def sinkhorn(scores: Float[Tensor, "N K"], *, epsilon: float, iterations: int) -> Float[Tensor, "N K"]:
    """Return each picture's distribution over prototypes, all of which get about N/K of the pictures in total.

    Rows sum to 1; columns are equal when the iterations have converged. In logarithms, where nothing overflows.

    Args:
        scores: Of the pictures of all processes.
        epsilon: What scores are divided by.
        iterations: Of scaling columns, then rows.

    Source: Equations 3 to 5 (Cuturi 2013).
    """
    shares = scores.float() / epsilon
    for _ in range(iterations):
        shares = shares.log_softmax(dim=0).log_softmax(dim=1)
    return shares.exp()


def assigned(scores: Float[Tensor, "B K"], *, epsilon: float, iterations: int) -> Float[Tensor, "B K"]:
    """Return the assignments of this process's pictures, made among those of all; arguments as for `sinkhorn`."""
    everyone = sinkhorn(gather(scores.detach()), epsilon=epsilon, iterations=iterations)
    return everyone[rank() * len(scores) : (rank() + 1) * len(scores)]


@final
class SwaV(Task):
    """See the module."""

    @dataclass(frozen=True)
    class Config(MultiCrop):
        """The prototypes, how pictures are assigned to them, and what crops differ in."""

        prototypes: int = 64
        """Clusters; the paper has 3000 for ImageNet."""
        temperature: float = 0.1
        """What the cosines of the predicting view are divided by."""
        epsilon: float = 0.05
        """What the cosines of the assigned view are divided by; the smaller, the harder the assignment."""
        iterations: int = 3
        """Iterations of the Sinkhorn algorithm."""
        freeze: float = 0.02
        """Share of the run over which the prototypes stay as they are."""
        hidden: int = 512
        """Width of the projector's hidden layer; the paper has 2048."""
        projection: int = 128
        """Length of a projection and of a prototype."""
        colour_strength: float = 0.5
        """s of the colour changes, see `Augmentation`; the paper has 1."""

        def __post_init__(self) -> None:
            super().__post_init__()
            for name, least in (("prototypes", 2), ("iterations", 1), ("hidden", 1), ("projection", 2)):
                if not least <= getattr(self, name) <= 1_000_000:
                    raise ValueError(f"{name} is {getattr(self, name)}; allowed is from {least} to 1000000")
            for name in ("temperature", "epsilon"):
                if not 0.001 <= getattr(self, name) <= 100:
                    raise ValueError(f"{name} is {getattr(self, name)}; allowed is from 0.001 to 100")
            if not 0 <= self.freeze < 1:
                raise ValueError(f"freeze is {self.freeze}; allowed is from 0 to below 1")

    variants: ClassVar[Mapping[str, Any]] = {
        "paper": Config(
            crop_min=0.14,
            local_min=0.05,
            local_crops=6,
            local_size=0.42857142857142855,
            prototypes=3000,
            freeze=0.00125,
            hidden=2048,
            colour_strength=1.0,
        )
    }
    variant_help: ClassVar[Mapping[str, str]] = {
        "paper": "3000 prototypes, published crops and projector",
    }

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config = config
        self.side = local_side(encoder, config.local_size)
        self.projector = projector(encoder.stages[-1].channels, config.hidden, config.projection, layers=2)
        self.prototypes = Prototypes(config.projection, config.prototypes, frozen=config.freeze > 0)
        self._noted = torch.zeros(2)

    def crops(self, batch: Batch) -> list[Float[Tensor, "V B 3 _ _"]]:
        """Return large and small crops; they differ in size and share alone."""
        config = self.config
        return multi_crop(
            batch.images, (config, config), config.local(), batch.generator, count=config.local_crops, side=self.side
        )

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield how badly each crop tells the assignments of the other large ones (equation 6)."""
        projections = self.projector(embed_crops(self.encoder, self.crops(batch)))
        scores = self.prototypes(projections).unflatten(0, (-1, len(batch.images)))
        epsilon, iterations = self.config.epsilon, self.config.iterations
        assignments = torch.stack([assigned(view, epsilon=epsilon, iterations=iterations) for view in scores[:2]])
        loss = cross_view_entropy(assignments, scores / self.config.temperature)
        least = _entropy(assignments).mean()  # what the best prediction would cost
        self._noted = torch.stack([_entropy(assignments.mean(dim=(0, 1))).exp(), loss.detach() - least])
        yield "task", loss

    def after_step(self, progress: float) -> None:
        """Let the prototypes go when their time has come."""
        self.prototypes.frozen.fill_(progress < self.config.freeze)

    def metrics(self) -> Mapping[str, float]:
        """Return how many prototypes were used, how far predictions are from assignments, and the loss at chance."""
        used, divergence = self._noted.tolist()
        return {"prototypes_used": used, "divergence": divergence, "chance": math.log(self.config.prototypes)}

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each picture, its large crops and a small one."""
        return show_crops(batch.images, self.crops(batch))


def _entropy(shares: Tensor) -> Tensor:
    return -(shares * shares.clamp(min=1e-12).log()).sum(dim=-1)

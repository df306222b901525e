"""K-means: filters are centroids of image patches (Coates and Ng 2012).

Coates and Ng, Learning Feature Representations with K-means, Neural Networks: Tricks of the Trade, 2nd edition, 2012,
sections 3 and 4 (contrast normalisation, whitening, spherical k-means with damped centroids), and Krähenbühl,
Doersch, Donahue and Darrell, ICLR 2016, arXiv 1511.06856, section 3 (layer by layer, each rescaled by algorithm 1).
The honest baseline that is not deep learning: it sees the pictures, and takes no gradient.

Published: one layer of 4000 filters, CIFAR-10 79.6 % (Coates, Lee and Ng, AISTATS 2011). AlexNet, recalled: ImageNet
linear conv1…conv5 17.5 23.0 24.5 23.2 20.6 % top-1, against 11.6 17.1 16.9 16.3 14.1 of Gaussian weights (as Zhang et
al. 2017, arXiv 1611.09842, table 1 lists them); VOC 2007 classification 56.6, detection 45.6, VOC 2012 segmentation
32.6.

Deviations: contrast is normalised of the patches that filters are learned from, while the network, which cannot
divide, sees the plain ones; patches are whitened in their leading principal components only; 256 pictures and 20,000
patches a layer, few against the chapter's hundreds of thousands; no scaling between layers (see `data_dependent`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pretext.encoders.base import Encoder
from pretext.modules.initialisation import Affine, Sample, standardise
from pretext.tasks.base import Batch, Fitted

CONTRAST_FLOOR = 0.003
"""Variance added to a patch's own: the chapter's 10 for pixels up to 255, in units of normalised pixels."""
POWER_ITERATIONS = 4
"""Rounds that the principal directions of long patches are searched for."""


def sample_patches(
    layer: Affine, maps: Float[Tensor, "B ..."], count: int, generator: torch.Generator
) -> Float[Tensor, "G N D"]:
    """Return patches of the size that a layer sees, at random places, by the layer's groups.

    They lie within the map where it is large enough, so that no border of zeros is learned.
    """

    def draw(below: int) -> Tensor:
        return torch.randint(below, (count,), generator=generator, device=maps.device)

    if isinstance(layer, nn.Linear):
        rows = maps.flatten(0, -2)
        return rows[draw(len(rows))][None]
    reach = [step * (size - 1) + 1 for step, size in zip(layer.dilation, layer.kernel_size, strict=True)]
    margin = [max(0, (wanted - side + 1) // 2) for wanted, side in zip(reach, maps.shape[2:], strict=True)]
    maps = F.pad(maps, (margin[1], margin[1], margin[0], margin[0]))
    which = draw(len(maps))
    rows, columns = (
        draw(side - wanted + 1)[:, None] + step * torch.arange(size, device=maps.device)
        for side, wanted, step, size in zip(maps.shape[2:], reach, layer.dilation, layer.kernel_size, strict=True)
    )
    found = maps[which[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # N × height × width × C
    return torch.stack([group.flatten(1) for group in found.permute(0, 3, 1, 2).chunk(layer.groups, dim=1)])


def normalise_contrast(patches: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Return each patch less its mean, over its standard deviation."""
    variance, mean = torch.var_mean(patches, dim=1, correction=0, keepdim=True)
    return (patches - mean) / (variance + CONTRAST_FLOOR).sqrt()


def whitening(
    centred: Float[Tensor, "N D"], *, components: int, floor: float, generator: torch.Generator
) -> Float[Tensor, "D Q"]:
    """Return the matrix behind which the leading principal components of centred rows have variance (nearly) 1.

    Args:
        centred: Their mean is 0.
        components: How many at most.
        floor: Added to each variance, as a share of the mean variance of all columns.
        generator: Draws the directions that the search starts from.
    """
    length = centred.shape[1]
    basis = torch.randn(length, min(components, length), generator=generator, device=centred.device)
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(centred.T @ (centred @ basis)).Q
    projected = centred @ basis
    variances, turn = torch.linalg.eigh(projected.T @ projected / len(centred))
    return basis @ turn / (variances.clamp(min=0) + floor * centred.square().mean() + 1e-12).sqrt()


def spherical_kmeans(
    points: Float[Tensor, "N Q"], count: int, *, iterations: int, generator: torch.Generator
) -> Float[Tensor, "K Q"]:
    """Return unit centroids, such that each point is near to a multiple, of either sign, of one of them.

    A centroid to which nothing belongs starts again from a point.

    Source: Coates and Ng 2012, section 3, the three steps of spherical k-means.
    """
    sizes = points.square().sum(dim=1) + 1e-12

    def seeds(number: int) -> Tensor:
        drawn = torch.multinomial(sizes, number, replacement=number > len(points), generator=generator)
        return F.normalize(points[drawn], dim=1)

    centroids = seeds(count)
    for _ in range(iterations):
        similarity = points @ centroids.T
        nearest = similarity.abs().argmax(dim=1, keepdim=True)
        codes = torch.zeros_like(similarity).scatter_(1, nearest, similarity.gather(1, nearest))
        centroids = F.normalize(codes.T @ points + centroids, dim=1)
        unused = torch.bincount(nearest[:, 0], minlength=count) == 0
        centroids = torch.where(unused[:, None], seeds(count), centroids)
    return centroids


@final
class KMeans(Fitted):
    """See the module."""

    @dataclass(frozen=True)
    class Config(Sample):
        """The pictures, the patches of them, and the clustering."""

        patches: int = 20_000
        """Patches that each layer's filters are learned from."""
        components: int = 256
        """Principal components of a patch that are kept, at most."""
        whitening: float = 0.1
        """Added to the components' variances, as a share of the patches' mean variance."""
        iterations: int = 10
        """Rounds of k-means; ten are enough, says the chapter."""

        def __post_init__(self) -> None:
            super().__post_init__()
            for name in ("patches", "components", "iterations"):
                if not 1 <= getattr(self, name) <= 10_000_000:
                    raise ValueError(f"{name} is {getattr(self, name)}; allowed is from 1 to 10000000")
            if not 0 < self.whitening <= 100:
                raise ValueError(f"whitening is {self.whitening}; allowed is above 0 and up to 100")

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config, self.prepares_on = config, config.images

    def prepare(self, batch: Batch) -> None:
        """Learn each layer's filters from what the layers before it, learned already, make of the pictures."""

        def learn(layer: Affine, given: Tensor) -> None:
            patches = sample_patches(layer, given, self.config.patches, batch.generator)
            filters = torch.cat([self._filters(group, len(layer.weight) // len(patches), batch) for group in patches])
            found = filters.square().sum(dim=1, keepdim=True) > 0  # none where all patches are flat
            layer.weight.copy_(torch.where(found, filters, layer.weight.flatten(1)).view_as(layer.weight))

        standardise(self.encoder, batch.images, centre=self.config.centre, redraw=learn)

    def _filters(self, patches: Float[Tensor, "N D"], count: int, batch: Batch) -> Float[Tensor, "K D"]:
        """Return filters whose product with a patch is its whitened likeness to a centroid."""
        config, patches = self.config, normalise_contrast(patches)
        centred = patches - patches.mean(dim=0)
        whiten = whitening(centred, components=config.components, floor=config.whitening, generator=batch.generator)
        points = centred @ whiten
        return spherical_kmeans(points, count, iterations=config.iterations, generator=batch.generator) @ whiten.T

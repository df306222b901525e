"""K-means: filters are centroids of image patches (Coates and Ng 2012).

Coates and Ng, Learning Feature Representations with K-means, Neural Networks: Tricks of the Trade, 2nd edition, 2012,
sections 3 and 4 (contrast normalisation, whitening, spherical k-means with damped centroids), and Krähenbühl,
Doersch, Donahue and Darrell, ICLR 2016, arXiv 1511.06856, section 3 (layer by layer, each rescaled by algorithm 1).
Each layer's filters are the centroids of whitened patches of its input. This is the baseline without deep learning:
it sees the images, and computes no gradient.

Published: one layer of 4000 filters, CIFAR-10 79.6 % (Coates, Lee and Ng, AISTATS 2011). AlexNet, recalled: ImageNet
linear conv1…conv5 17.5 23.0 24.5 23.2 20.6 % top-1, against 11.6 17.1 16.9 16.3 14.1 with Gaussian weights (as listed
by Zhang et al. 2017, arXiv 1611.09842, table 1); VOC 2007 classification 56.6, detection 45.6, VOC 2012 segmentation
32.6.

Deviations: contrast is normalised in the patches from which filters are learned, while the network, which cannot
divide, sees the original ones; patches are whitened in their leading principal components only; 256 images and 20,000
patches per layer, against hundreds of thousands in the chapter; no scaling between layers (see `data_dependent`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pretext.encoders.base import Encoder
from pretext.modules.initialisation import Affine, Sample, standardise
from pretext.system.ranges import check_range
from pretext.tasks.base import Batch, Fitted

CONTRAST_FLOOR = 0.003
"""Added to a patch's variance: the chapter's 10 for pixels up to 255, in units of normalised pixels."""
POWER_ITERATIONS = 4
"""Iterations of the search for the principal components of patches."""


@final
class KMeans(Fitted):
    """Learn the encoder's filters layer by layer on `images` training images."""

    @dataclass(frozen=True)
    class Config(Sample):
        """The images, their patches, the whitening and the clustering."""

        patches: int = 20_000
        """Number of patches from which each layer's filters are learned."""
        components: int = 256
        """Largest number of principal components of the patches to keep."""
        whitening: float = 0.1
        """Added to the components' variances before whitening, as a share of the patches' mean variance."""
        iterations: int = 10
        """Iterations of k-means; ten suffice according to the chapter."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_range(self, "patches", "components", "iterations", least=1, most=10_000_000)
            check_range(self, "whitening", above=0, most=100)

    titles: ClassVar[Mapping[str, str]] = {"": "K-means filters"}

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config, self.prepares_on = config, config.images

    def prepare(self, batch: Batch) -> None:
        """Learn each layer's filters from its input, the output of the layers learned before it."""

        def learn(layer: Affine, maps: Tensor) -> None:
            patches = sample_patches(layer, maps, self.config.patches, batch.generator)
            filters = torch.cat([self._filters(group, len(layer.weight) // len(patches), batch) for group in patches])
            found = filters.square().sum(dim=1, keepdim=True) > 0  # all 0 if every patch is constant
            layer.weight.copy_(torch.where(found, filters, layer.weight.flatten(1)).view_as(layer.weight))

        standardise(self.encoder, batch.images, centre=self.config.centre, redraw=learn)

    def _filters(self, patches: Float[Tensor, "N D"], count: int, batch: Batch) -> Float[Tensor, "K D"]:
        """Return filters whose product with a patch is the similarity of the whitened patch to a centroid."""
        config, patches = self.config, normalise_contrast(patches)
        centred = patches - patches.mean(dim=0)
        whiten = whitening(centred, components=config.components, floor=config.whitening, generator=batch.generator)
        points = centred @ whiten
        return spherical_kmeans(points, count, iterations=config.iterations, generator=batch.generator) @ whiten.T


def sample_patches(
    layer: Affine, maps: Float[Tensor, "B ..."], count: int, generator: torch.Generator
) -> Float[Tensor, "G N D"]:
    """Return patches with the size of a layer's kernel at random positions, separately for each group of channels.

    Patches lie inside the map if it is large enough, so that no zero padding is learned.

    Args:
        layer: The layer whose filters are learned.
        maps: Its input.
        count: Number of patches N.
        generator: Source of all random draws.
    """

    def draw(below: int) -> Tensor:
        return torch.randint(below, (count,), generator=generator, device=maps.device)

    if isinstance(layer, nn.Linear):
        rows = maps.flatten(0, -2)
        return rows[draw(len(rows))][None]
    reach = [step * (size - 1) + 1 for step, size in zip(layer.dilation, layer.kernel_size, strict=True)]
    margin = [max(0, (extent - side + 1) // 2) for extent, side in zip(reach, maps.shape[2:], strict=True)]
    maps = F.pad(maps, (margin[1], margin[1], margin[0], margin[0]))
    which = draw(len(maps))
    rows, columns = (
        draw(side - extent + 1)[:, None] + step * torch.arange(size, device=maps.device)
        for side, extent, step, size in zip(maps.shape[2:], reach, layer.dilation, layer.kernel_size, strict=True)
    )
    patches = maps[which[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # N × height × width × C
    return torch.stack([group.flatten(1) for group in patches.permute(0, 3, 1, 2).chunk(layer.groups, dim=1)])


def normalise_contrast(patches: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Return each patch minus its mean, divided by its standard deviation."""
    variance, mean = torch.var_mean(patches, dim=1, correction=0, keepdim=True)
    return (patches - mean) / (variance + CONTRAST_FLOOR).sqrt()


def whitening(
    centred: Float[Tensor, "N D"], *, components: int, floor: float, generator: torch.Generator
) -> Float[Tensor, "D Q"]:
    """Return a matrix that projects rows onto their leading principal components, with variance close to 1.

    Args:
        centred: Rows whose mean is 0.
        components: Largest number of components Q.
        floor: Added to each variance, as a share of the mean variance of all columns.
        generator: Draws the initial directions of the search.
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
    """Return unit centroids such that each point is close to a positive or negative multiple of one of them.

    A centroid without points is replaced by a random point.

    Args:
        points: The points to cluster.
        count: Number of centroids K.
        iterations: Iterations of k-means.
        generator: Source of all random draws.

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

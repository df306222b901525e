"""Feature quality without labels: rank, effective dimension, and the distances between views of an image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from downstream.features import image_batches, pooled, split_features
from downstream.probes.linear import Linear
from downstream.reading import draw
from pretext.datasets import at_size
from pretext.datasets.base import ImageDataset
from pretext.encoders.base import Encoder, evaluating
from pretext.judging import Probe, Score
from pretext.system.errors import UserError
from pretext.system.ranges import check_range
from pretext.training.collapse import rank_me
from pretext.transforms.augmentation import Augmentation
from pretext.transforms.views import two_views

BLOCK = 1024
"""Number of vectors compared with all others at once; limits the memory."""
VIEWS = Augmentation(crop_min=0.2, colour_strength=0.5)
"""SimCLR's augmentation for small images."""


@final
@dataclass(frozen=True)
class LabelFree(Probe):
    """RankMe, effective dimension, alignment and uniformity of every stage, without labels.

    The headline is RankMe of the deepest stage. A stage's vector is the mean over its map. RankMe lies between 1 and
    the smaller of the numbers of images and channels. Compare it only between encoders of one architecture, on the same
    number of images. No single metric shows that an encoder is good: random weights can have a high rank, and collapsed
    ones have perfect alignment. Read them together.

    Source: Garrido et al. 2023, arXiv 2210.02885 (RankMe); Wang and Isola 2020, arXiv 2005.10242 (alignment with
        exponent 2, uniformity with t = 2).
    Deviations: RankMe on test images, fewer than the published 25,600 training images; uniformity of the images
        themselves, not of their views; the mean is over the pooled cells that the linear probe reads, which overlap if
        the grid does not divide the map.
    """

    title: ClassVar[str] = "Feature rank"
    needs: ClassVar[tuple[frozenset[str], ...]] = (frozenset(),)

    images: int = 2000
    """Number of test images, drawn by the seed; 0 uses all."""
    features: int = Linear.features
    """Maximum number of features per image after pooling; if equal to the linear probe's, both share the cache."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "images", least=0)
        check_range(self, "features", least=1)

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Yield `RankMe`, `effective dimension`, `alignment` and `uniformity` for every stage. See `Probe.evaluate`."""
        test = split_features(encoder, data, "test", most=self.features)
        order = torch.randperm(len(test.targets), generator=torch.Generator().manual_seed(self.seed))
        chosen = order[: self.images or None]
        if len(chosen) < 2:
            raise UserError(f"{data.spec}: {len(chosen)} test image; at least 2 are needed, give more data")
        distances = self._view_distances(encoder, data)
        for stage in encoder.stages:
            vectors = averaged(test.stages[stage.name][chosen], stage.channels)
            n, items = len(vectors), distances[stage.name]
            last = stage is encoder.stages[-1]
            for metric, value, up in (
                ("RankMe", float(rank_me(vectors)), True),
                ("effective dimension", effective_dimension(vectors), True),
                ("uniformity", uniformity(vectors), False),
            ):
                headline = last and metric == "RankMe"
                yield Score(metric, value, "", up, None, n, stage=stage.name, headline=headline)
            mean = float(items.mean())
            yield Score("alignment", mean, "", False, None, len(items), stage=stage.name, items=items.numpy())

    def _view_distances(self, encoder: Encoder, data: ImageDataset) -> dict[str, Float[Tensor, "N"]]:
        """Return the squared distance between two views of each image, by stage."""
        part = at_size(data.split("test"), encoder.input_size, bad_images="skip", fit="crop")
        indices = draw(part, self.images, seed=self.seed)
        device = next(encoder.parameters()).device
        generator = torch.Generator(device).manual_seed(self.seed)
        found: dict[str, list[Tensor]] = {stage.name: [] for stage in encoder.stages}
        with evaluating(encoder), torch.inference_mode():
            for images, _ in image_batches(part, indices):
                both = [encoder(view) for view in two_views(images.to(device), VIEWS, VIEWS, generator)]
                for stage, *maps in zip(encoder.stages, *both, strict=True):
                    first, second = (averaged(pooled(each, self.features), stage.channels) for each in maps)
                    found[stage.name].append(squared_distances(first, second).cpu())
        return {name: torch.cat(parts) for name, parts in found.items()}


def averaged(features: Float[Tensor, "B D"], channels: int) -> Float[Tensor, "B C"]:
    """Return the mean over the cells of pooled features."""
    return features.view(len(features), channels, -1).mean(dim=2)


def squared_distances(first: Float[Tensor, "N D"], second: Float[Tensor, "N D"]) -> Float[Tensor, "N"]:
    """Return the squared distances, 0 to 4, of two views' normalised vectors; their mean is the alignment.

    Source: Wang and Isola 2020, section 4.1, exponent 2.
    """
    first, second = (F.normalize(vectors.double(), dim=1) for vectors in (first, second))
    return (first - second).square().sum(dim=1)


def uniformity(vectors: Float[Tensor, "N D"]) -> float:
    """Return the logarithm of the mean Gaussian potential over all pairs: from 0 (all vectors equal) down to -8.

    Source: Wang and Isola 2020, section 4.1, t = 2, on normalised vectors.
    """
    vectors = F.normalize(vectors.double(), dim=1)
    total, count, lengths = 0.0, len(vectors), vectors.square().sum(dim=1)
    for block in torch.split(vectors, BLOCK):
        distances = block.square().sum(dim=1, keepdim=True) + lengths - 2 * block @ vectors.T
        total += float((-2 * distances).exp().sum())
    return math.log((total - count) / (count * (count - 1)))  # the potential of a vector with itself is 1


def effective_dimension(vectors: Float[Tensor, "N D"]) -> float:
    """Return the participation ratio of the covariance's eigenvalues: (Σλ)² / Σλ², 1 to D; 0 without variance."""
    vectors = vectors.double()
    centred = vectors - vectors.mean(dim=0)
    total = centred.square().sum()
    if total <= 1e-12 * vectors.square().sum():
        return 0.0
    return float(total.square() / (centred.T @ centred).square().sum())

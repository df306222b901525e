"""Descriptors without a network: raw pixels, colour histogram, and histogram of oriented gradients (HOG).

They see the same windows as an encoder. Hidden pixels and the area outside the picture have the mean colour. That is 0
for raw pixels, is not counted in the histogram, and gives all queries the same outline in HOG. Raw pixels and HOG keep
the layout of a window; an object's encoder vector, averaged over space, does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pretext.datasets.base import ImageDataset
from pretext.transforms.masks import MEAN_COLOUR
from retrieval.patches import pictures_in, windows
from retrieval.regions import Regions

NAMES = ("raw pixels", "colour histogram", "HOG")
LARGEST = 64
"""Maximum side of a window in pixels."""
TINY = 32
"""Maximum side at which raw pixels are compared (Torralba et al. 2008)."""
BINS = 8
"""Bins per colour channel of the joint histogram."""
HOG_CELLS = 8
"""HOG cells along each side of the picture."""


def describe_without_network(
    data: ImageDataset, table: NDArray[Any], regions: Regions, *, side: int
) -> dict[str, NDArray[np.float32]]:
    """Return the vectors of the regions in a patch table, one N×D array per name in `NAMES`.

    Args:
        data: The split of the table, with square pictures of one size.
        table: Rows of `PATCH`; the rows of one picture are consecutive.
        regions: Window of a region.
        side: The encoder's input size in pixels; capped at `LARGEST`.
    """
    side = min(side, LARGEST)
    found: dict[str, list[Tensor]] = {name: [] for name in NAMES}
    white = ((torch.full_like(picture, 255), rows) for picture, rows in pictures_in(data, table))
    for (crops, _), (mask, _) in zip(
        windows(pictures_in(data, table), regions, side=side), windows(white, regions, side=side), strict=True
    ):
        visible = (mask > 1 - 1e-4).all(dim=1)  # no interpolation with the mean colour
        for name, vectors in zip(
            NAMES, (raw_pixels(crops), colour_histograms(crops, visible), hog(crops)), strict=True
        ):
            found[name].append(vectors)
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def raw_pixels(pictures: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N D"]:
    """Return the pixels minus the mean colour, averaged to at most `TINY`×`TINY`, as vectors of length 1."""
    centred = pictures - torch.tensor(MEAN_COLOUR).view(3, 1, 1)
    return F.normalize(F.adaptive_avg_pool2d(centred, min(TINY, pictures.shape[-1])).flatten(1), dim=1)


def colour_histograms(pictures: Float[Tensor, "N 3 S S"], visible: Bool[Tensor, "N S S"]) -> Float[Tensor, "N D"]:
    """Return the square roots of an 8×8×8 colour histogram of the visible pixels; zeros if no pixel is visible.

    The vectors have length 1. The cosine of two is the Bhattacharyya coefficient of their histograms.

    Source: Swain and Ballard 1991.
    Deviations: they use histogram intersection and opponent colours.
    """
    red, green, blue = (pictures * BINS).long().clamp(max=BINS - 1).flatten(2).unbind(dim=1)
    counts = torch.zeros(len(pictures), BINS**3)
    counts.scatter_add_(1, (red * BINS + green) * BINS + blue, visible.flatten(1).float())
    return F.normalize(counts, p=1, dim=1).sqrt()


def hog(pictures: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N D"]:
    """Return histograms of oriented gradients: 8×8 cells of 9 directions, blocks of 2×2 cells, length 1.

    scikit-image computes the cell histograms with the whole picture as one block, because its many-block path is slow.
    The blocks are then normalised as scikit-image does (L2-Hys): to length 1, clipped at 0.2, to length 1.

    Source: Dalal and Triggs 2005.
    """
    from skimage.feature import hog as histograms

    side = max(1, pictures.shape[-1] // HOG_CELLS)
    cells = pictures.shape[-1] // side
    counted = np.stack(
        [
            histograms(  # type: ignore[no-untyped-call]
                picture,
                pixels_per_cell=(side, side),
                cells_per_block=(cells, cells),
                block_norm="L1",
                channel_axis=-1,
            )
            for picture in pictures.mul(255).round().byte().permute(0, 2, 3, 1).numpy()  # uint8: no rounding noise
        ]
    ).reshape(len(pictures), cells, cells, -1)
    blocks = torch.from_numpy(counted).unfold(1, 2, 1).unfold(2, 2, 1).permute(0, 1, 2, 4, 5, 3).flatten(3)
    normalised = F.normalize(F.normalize(blocks, dim=3, eps=1e-9).clamp(max=0.2), dim=3, eps=1e-9)
    return F.normalize(normalised.flatten(1).float(), dim=1)

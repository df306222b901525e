"""What needs no network: regions described by their pixels, their colours and their gradients.

They see the same windows as an encoder does. What is hidden, or lies beyond the picture, shows the mean colour: it is
0 among the pixels, is not counted among the colours, and has the same outline for all among the gradients. Pixels and
gradients say where in the window something is, which an object's vector by an encoder, averaged over space, does not.
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
"""Pixels of a window's side, at most."""
TINY = 32
"""Side at which pixels are compared, at most (Torralba et al. 2008)."""
BINS = 8
"""Of each colour channel; the histogram is a joint one."""
HOG_CELLS = 8
"""Cells of the histograms of gradients along each side of the picture."""


def describe_plainly(
    data: ImageDataset, table: NDArray[Any], regions: Regions, *, side: int
) -> dict[str, NDArray[np.float32]]:
    """Return the vectors of the regions that a patch table lists, one array N×D a name of `NAMES`.

    Args:
        data: The split that the table is of, its pictures square and all of one size.
        table: Rows of `PATCH`, a picture's rows next to one another.
        regions: What is seen of a box.
        side: Pixels of what an encoder sees; at most `LARGEST` of them are seen here.
    """
    side = min(side, LARGEST)
    found: dict[str, list[Tensor]] = {name: [] for name in NAMES}
    white = ((torch.full_like(picture, 255), rows) for picture, rows in pictures_in(data, table))
    for (crops, _), (shown, _) in zip(
        windows(pictures_in(data, table), regions, side=side), windows(white, regions, side=side), strict=True
    ):
        visible = (shown > 1 - 1e-4).all(dim=1)  # nothing of the mean colour was mixed in
        for name, vectors in zip(
            NAMES, (raw_pixels(crops), colour_histograms(crops, visible), hog(crops)), strict=True
        ):
            found[name].append(vectors)
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def raw_pixels(pictures: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N D"]:
    """Return the pixels less the mean colour, averaged to `TINY`×`TINY` where there are more, at length 1."""
    centred = pictures - torch.tensor(MEAN_COLOUR).view(3, 1, 1)
    return F.normalize(F.adaptive_avg_pool2d(centred, min(TINY, pictures.shape[-1])).flatten(1), dim=1)


def colour_histograms(pictures: Float[Tensor, "N 3 S S"], visible: Bool[Tensor, "N S S"]) -> Float[Tensor, "N D"]:
    """Return the roots of the shares of the visible pixels that have each of 8×8×8 colours; zeros where none is.

    The vectors have length 1, and the cosine of two is the Bhattacharyya coefficient of their histograms.

    Source: Swain and Ballard 1991.
    Deviations: they compare by intersection, and bin opponent colours.
    """
    red, green, blue = (pictures * BINS).long().clamp(max=BINS - 1).flatten(2).unbind(dim=1)
    counts = torch.zeros(len(pictures), BINS**3)
    counts.scatter_add_(1, (red * BINS + green) * BINS + blue, visible.flatten(1).float())
    return F.normalize(counts, p=1, dim=1).sqrt()


def hog(pictures: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N D"]:
    """Return the histograms of oriented gradients: 8×8 cells of 9 directions, 2×2 of them a block, at length 1.

    scikit-image counts; all of a picture is one block to it, since it takes longer over many blocks than over the rest
    together. Blocks are then normalised as it would: to length 1, cut at 0.2, to length 1.

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
            for picture in pictures.mul(255).round().byte().permute(0, 2, 3, 1).numpy()  # flat is flat to the last bit
        ]
    ).reshape(len(pictures), cells, cells, -1)
    blocks = torch.from_numpy(counted).unfold(1, 2, 1).unfold(2, 2, 1).permute(0, 1, 2, 4, 5, 3).flatten(3)
    normalised = F.normalize(F.normalize(blocks, dim=3, eps=1e-9).clamp(max=0.2), dim=3, eps=1e-9)
    return F.normalize(normalised.flatten(1).float(), dim=1)

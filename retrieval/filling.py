"""Holes filled from the nearest other picture: what needs neighbours, and no decoder.

Of all pictures with the same hole, the one whose surroundings are the most like the query's gives its pixels, which
are then blended in. By features of an encoder it says what they are good for; by HOG it is the baseline.

Source: Pathak et al. 2016, section 5.1 and table 1 (nearest-neighbour inpainting by HOG and by the encoder's
    features, cosine); Hays and Efros 2007 (filling from other pictures); Pérez et al. 2003, equation 7 (blending).
Deviations: one nearest picture, cut at the same place; HOG is of the picture with the mean colour in its hole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from pretext.encoders.base import Encoder, evaluating
from pretext.inpainting.measuring import HoledPictures
from pretext.system.errors import UserError
from retrieval.baselines import hog
from retrieval.patches import encode

Describe = Callable[[HoledPictures], Float[Tensor, "N D"]]
"""Vectors of length 1 of what surrounds the holes."""

Pixels = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Rows and columns."""

BATCH = 128
CELLS = 4
"""Side of the grid that maps are averaged to: coarser ones forget where in the surroundings something is."""


def by_stages(encoder: Encoder, pictures: HoledPictures) -> dict[str, Float[Tensor, "N D"]]:
    """Return vectors of the surroundings by every stage; the hole shows the mean colour.

    Raises:
        UserError: If they are not finite.
    """
    names = [stage.name for stage in encoder.stages]
    device = next(encoder.parameters()).device
    parts: list[dict[str, Tensor]] = []
    with evaluating(encoder), torch.inference_mode():
        for shown in torch.split(pictures.shown(), BATCH):
            encoded = encode(encoder, shown.to(device).float() / 255, names, cells=CELLS)
            parts.append({name: vectors.cpu() for name, vectors in encoded.items()})
    found = {name: torch.cat([part[name] for part in parts]) for name in names}
    for name, vectors in found.items():
        if not vectors.isfinite().all():
            raise UserError(f"encoder {encoder.spec}: its stage {name} is not finite; check the encoder's weights")
    return found


def by_hog(pictures: HoledPictures) -> Float[Tensor, "N D"]:
    """Return the histograms of oriented gradients of the surroundings; see `retrieval.baselines.hog`."""
    return hog(pictures.shown().float() / 255)


def nearest_rows(queries: Float[Tensor, "Q D"], database: Float[Tensor, "N D"]) -> Int[Tensor, "Q"]:
    """Return the database's most similar row by cosine, for each query; all vectors are of length 1."""
    return torch.cat([(some @ database.T).argmax(dim=1) for some in torch.split(queries, BATCH)])


def fill_from(
    pictures: HoledPictures, sources: UInt8[Tensor, "N 3 S S"], *, blended: bool = True
) -> Float[Tensor, "N 3 S S"]:
    """Return pictures whose holes show what other pictures show there, in [0, 1].

    Args:
        pictures: With holes.
        sources: One a picture.
        blended: Keep the source's gradients and meet the surroundings at the border; else its plain values.
    """
    truth, given = pictures.images.float() / 255, sources.float() / 255
    if not blended:
        return torch.where(pictures.holes, given, truth)
    result = truth.clone()
    holes, which = torch.unique(pictures.holes, dim=0, return_inverse=True)
    for number, hole in enumerate(holes):
        of_hole = which == number
        result[of_hole] = _blend(truth[of_hole], given[of_hole], hole[0])
    return result.clamp(0, 1)


def _blend(
    around: Float[Tensor, "N 3 S S"], source: Float[Tensor, "N 3 S S"], hole: Bool[Tensor, "S S"]
) -> Float[Tensor, "N 3 S S"]:
    """Solve Poisson's equation in one hole, for all channels of all pictures at once."""
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    inside = hole.numpy()
    if not inside.any() or inside.all():  # nothing to fill, or no border to meet
        return torch.where(hole, source, around)
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(inside.sum())
    degree = np.zeros(inside.sum())
    known = np.zeros((inside.sum(), len(around) * 3))
    target, guide = (x.permute(2, 3, 0, 1).flatten(2).double().numpy() for x in (around, source))
    rows: list[NDArray[np.int64]] = []
    columns: list[NDArray[np.int64]] = []
    for here, there in _neighbours(inside):
        pixel, neighbour = number[here], number[there]
        np.add.at(degree, pixel, 1)
        np.add.at(known, pixel, guide[here] - guide[there])
        border = neighbour < 0
        np.add.at(known, pixel[border], target[there[0][border], there[1][border]])
        rows.append(pixel[~border])
        columns.append(neighbour[~border])
    ends = np.arange(len(degree))
    row, column = np.concatenate([*rows, ends]), np.concatenate([*columns, ends])
    values = np.concatenate([-np.ones(len(row) - len(ends)), degree])
    solved = splu(coo_array((values, (row, column)), shape=(len(ends), len(ends))).tocsc()).solve(known)
    result = around.clone()
    result[:, :, hole] = torch.from_numpy(solved.T).float().view(len(around), 3, -1)
    return result


def _neighbours(inside: NDArray[np.bool_]) -> Iterable[tuple[Pixels, Pixels]]:
    """Yield, for each of four directions, the hole's pixels and their neighbours, where the picture has one."""
    y, x = np.nonzero(inside)
    height, width = inside.shape
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        there = (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
        yield (y[there], x[there]), (y[there] + dy, x[there] + dx)

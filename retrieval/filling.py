"""Fill holes by nearest-neighbour inpainting: paste from the most similar other picture; no decoder is needed.

Among all pictures with the same hole, the one whose surroundings are most similar supplies the pixels, which are then
blended in. With an encoder's features this measures the features; with HOG it is the baseline.

Source: Pathak et al. 2016, section 5.1 and table 1 (nearest-neighbour inpainting by HOG and by the encoder's
    features, cosine); Hays and Efros 2007 (filling from other pictures); Pérez et al. 2003, equation 7 (blending).
Deviations: only the nearest picture is used, cut at the same place; HOG sees the picture with its hole filled with the
    mean colour.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pretext.embedding.encoding import check_finite
from pretext.encoders import build_encoder
from pretext.encoders.base import Encoder, evaluating
from pretext.inpainting.measuring import HoledPictures
from retrieval.patches import encode

Pixels = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Row and column indices."""

BATCH = 128
CELLS = 4
"""Maps are averaged to this many cells per side; fewer cells would lose the layout of the surroundings."""


def by_stages(encoder: Encoder, pictures: HoledPictures) -> dict[str, Float[Tensor, "N D"]]:
    """Return the vectors of the surroundings for every stage; the hole is filled with the mean colour.

    Raises:
        UserError: If a vector is not finite.
    """
    names = [stage.name for stage in encoder.stages]
    device = next(encoder.parameters()).device
    parts: list[dict[str, Tensor]] = []
    with evaluating(encoder), torch.inference_mode():
        for shown in torch.split(pictures.shown(), BATCH):
            encoded = encode(encoder, shown.to(device).float() / 255, [(name, CELLS) for name in names])
            parts.append({name: vectors.cpu() for (name, _), vectors in encoded.items()})
    found = {name: torch.cat([part[name] for part in parts]) for name in names}
    for name, vectors in found.items():
        check_finite(encoder, name, vectors)
    return found


def by_hog(pictures: HoledPictures) -> Float[Tensor, "N D"]:
    """Return the HOG vectors of the surroundings, of length 1."""
    encoder = build_encoder("hog", input_size=pictures.images.shape[-1], seed=0)
    with torch.inference_mode():
        parts = [encoder(shown)[0].flatten(1) for shown in torch.split(pictures.shown(), BATCH)]
    return F.normalize(torch.cat(parts), dim=1)


def nearest_rows(queries: Float[Tensor, "Q D"], database: Float[Tensor, "N D"]) -> Int[Tensor, "Q"]:
    """Return the database row of highest cosine for each query; vectors have length 1."""
    return torch.cat([(some @ database.T).argmax(dim=1) for some in torch.split(queries, BATCH)])


def fill_from(
    pictures: HoledPictures, sources: UInt8[Tensor, "N 3 S S"], *, blended: bool = True
) -> Float[Tensor, "N 3 S S"]:
    """Return pictures in [0, 1] whose holes are filled from other pictures.

    Args:
        pictures: Pictures with holes.
        sources: One source picture per picture.
        blended: Keep the source's gradients and match the surroundings at the border (Poisson blending); False pastes
            the source's pixels.
    """
    truth, given = pictures.images.float() / 255, sources.float() / 255
    if not blended:
        return torch.where(pictures.holes, given, truth)
    result = truth.clone()
    holes, which = torch.unique(pictures.holes, dim=0, return_inverse=True)
    for number, hole in enumerate(holes):
        same_hole = which == number
        result[same_hole] = _blend(truth[same_hole], given[same_hole], hole[0])
    return result.clamp(0, 1)


def fill_from_nearest(
    pictures: HoledPictures,
    database: UInt8[Tensor, "N 3 S S"],
    queries: Float[Tensor, "Q D"],
    vectors: Float[Tensor, "N D"],
    *,
    blended: bool = True,
) -> Float[Tensor, "Q 3 S S"]:
    """Return pictures in [0, 1] whose holes are filled from the nearest picture of a database.

    Args:
        pictures: Q pictures with holes.
        database: Pictures to fill from.
        queries: Vectors of the surroundings of `pictures`, of length 1.
        vectors: Vectors of the surroundings of `database`, of length 1.
        blended: See `fill_from`.
    """
    return fill_from(pictures, database[nearest_rows(queries, vectors)], blended=blended)


def _blend(
    around: Float[Tensor, "N 3 S S"], source: Float[Tensor, "N 3 S S"], hole: Bool[Tensor, "S S"]
) -> Float[Tensor, "N 3 S S"]:
    """Solve Poisson's equation in one hole, for all pictures and channels at once."""
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    inside = hole.numpy()
    if not inside.any() or inside.all():  # nothing to fill, or no border to match
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
    """Yield the hole's pixels and their neighbours for each of four directions, within the picture."""
    y, x = np.nonzero(inside)
    height, width = inside.shape
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        there = (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
        yield (y[there], x[there]), (y[there] + dy, x[there] + dx)

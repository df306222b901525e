"""Draw some of the pictures by a seed, and project their vectors onto two dimensions."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, Int64
from numpy.typing import NDArray

from pretext.embedding.parts import Parts
from pretext.system.errors import UserError

Projection = Literal["pca", "umap"]
NEIGHBOURS = 15
"""Neighbours of each picture in UMAP's graph, as published."""
FEWEST = 4
"""UMAP needs at least this many pictures."""


@dataclass(frozen=True)
class Drawn:
    """Pictures drawn from the parts, in the order of the data. See `Part`."""

    numbers: Int64[np.ndarray, "M"]
    paths: NDArray[np.str_]
    splits: NDArray[np.str_]
    labels: NDArray[np.str_]
    vectors: Float32[np.ndarray, "M D"]


def draw_pictures(parts: Parts, total: int, most: int, *, seed: int) -> Drawn:
    """Return at most `most` pictures, drawn with equal chances; all of them if there are no more.

    Args:
        parts: Finished parts.
        total: Number of pictures in them.
        most: Number of pictures to draw.
        seed: Seed of the draw.
    """
    chosen = np.arange(total)
    if total > most:
        chosen = np.sort(np.random.default_rng(seed).choice(total, most, replace=False, shuffle=False))
    return Drawn(*(_rows(parts, name, chosen) for name in ("numbers", "paths", "splits", "labels", "vectors")))


def check_projection(projection: Projection) -> None:
    """Raise a `UserError` if the package for a projection is not installed."""
    if projection == "umap" and importlib.util.find_spec("umap") is None:
        raise UserError(
            "--projection umap: umap-learn is not installed; run pip install 'pretext-bench[umap]', or take pca"
        )


def project(
    vectors: Float[np.ndarray, "M D"], projection: Projection, *, seed: int
) -> tuple[Float[np.ndarray, "M 2"], str]:
    """Return the points, and a sentence that says how they were made.

    Args:
        vectors: The vectors.
        projection: `pca`, or `umap` with cosine distances.
        seed: Seed of UMAP.

    Raises:
        UserError: If there are too few pictures for UMAP.
    """
    if projection == "umap":
        if len(vectors) < FEWEST:
            raise UserError(f"--projection umap needs at least {FEWEST} pictures; there are {len(vectors)}, take pca")
        near = min(NEIGHBOURS, len(vectors) - 1)
        about = f"UMAP of cosine distances, {near} neighbours, seed {seed}: near points are similar, "
        return _umap(vectors, near, seed), f"{about}distances between groups mean little."
    points, shares = principal_components(vectors)
    return points, f"PCA: the two components hold {shares[0]:.0%} and {shares[1]:.0%} of the variance.".replace(
        "%", " %"
    )


def principal_components(
    vectors: Float[np.ndarray, "M D"],
) -> tuple[Float[np.ndarray, "M 2"], Float[np.ndarray, "2"]]:
    """Return the scores on the first two principal components, and each component's share of the variance.

    Computed in float64 from the M×M products, because D can be much larger than M. A component's sign is such that its
    score of largest size is positive.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    values, axes = np.linalg.eigh(centred @ centred.T)
    values, axes = values[::-1].clip(0), axes[:, ::-1]
    points, shares = np.zeros((len(vectors), 2)), np.zeros(2)
    total = values.sum()
    for k in range(min(2, len(values))):
        if values[k] > 1e-12 * total:
            axis = axes[:, k] * np.sqrt(values[k])
            points[:, k] = axis * np.sign(axis[np.abs(axis).argmax()])
            shares[k] = values[k] / total
    return points, shares


def _rows(parts: Parts, name: str, chosen: Int64[np.ndarray, "M"]) -> NDArray[Any]:
    """Return the chosen rows of a column, all parts counted together."""
    found, before = [], 0
    for values in parts.column(name):
        here = chosen[(chosen >= before) & (chosen < before + len(values))] - before
        found.append(values[here])
        before += len(values)
    return np.concatenate(found)


def _umap(vectors: Float[np.ndarray, "M D"], near: int, seed: int) -> Float[np.ndarray, "M 2"]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that a seed takes one thread, and its packages warn on import
        import umap

        init = "spectral" if len(vectors) > 2 * NEIGHBOURS else "random"  # few pictures have no spectral layout
        made = umap.UMAP(n_neighbors=near, metric="cosine", init=init, random_state=seed)
        return np.asarray(made.fit_transform(vectors), dtype=np.float64)

"""How good a ranking by cosine is: precision, recall and average precision by class, and what guessing would score.

Classes are numbers, a query's and a database row's; a row is right where the two are equal.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from numpy.typing import NDArray
from scipy.special import gammaln

from retrieval.indexing.factory import approximate_factory, make_vectors, use_faiss

BATCH = 128
"""Queries whose whole rankings are held at a time."""


def nearest(
    queries: Float32[np.ndarray, "Q D"], database: Float32[np.ndarray, "N D"], k: int
) -> tuple[Float32[np.ndarray, "Q K"], Int64[np.ndarray, "Q K"]]:
    """Return the cosines and rows of the k nearest, best first; exact, all vectors being of length 1."""
    found = (torch.from_numpy(queries) @ torch.from_numpy(database).T).topk(k, dim=1)
    return found.values.numpy(), found.indices.numpy()


def hits(
    rows: Int64[np.ndarray, "Q K"], queries: Int64[np.ndarray, " Q"], database: Int64[np.ndarray, " N"]
) -> Bool[np.ndarray, "Q K"]:
    """Return whether a neighbour is of its query's class."""
    return database[rows] == queries[:, None]


def average_precisions(
    queries: Float32[np.ndarray, "Q D"],
    database: Float32[np.ndarray, "N D"],
    query_classes: Int64[np.ndarray, " Q"],
    classes: Int64[np.ndarray, " N"],
) -> Float64[np.ndarray, " Q"]:
    """Return each query's average precision over the whole ranked database, in [0, 1].

    It is the mean of the precisions at the ranks of the right rows, not interpolated. Of equal cosines the earlier row
    ranks first.

    Args:
        queries: Vectors of length 1.
        database: Vectors of length 1.
        query_classes: Of the queries.
        classes: Of the database.

    Returns:
        NaN for a query whose class no row has.

    Source: Manning, Raghavan and Schütze 2008, section 8.4.
    """
    base, of_base = torch.from_numpy(database), torch.from_numpy(classes)
    ranks = torch.arange(1, len(base) + 1, dtype=torch.float64)
    found = []
    parts = (torch.split(torch.from_numpy(each), BATCH) for each in (queries, query_classes))
    for some, wanted in zip(*parts, strict=True):
        order = (some @ base.T).sort(dim=1, descending=True, stable=True).indices
        right = of_base[order] == wanted[:, None]
        precisions = right.cumsum(dim=1) / ranks
        found.append((precisions * right).sum(dim=1) / right.sum(dim=1))
    return torch.cat(found).numpy()


def approximate_recall(
    queries: Float32[np.ndarray, "Q D"], database: Float32[np.ndarray, "N D"], exact: Int64[np.ndarray, "Q K"]
) -> Float64[np.ndarray, " Q"] | None:
    """Return the share of each query's k nearest that an approximate index finds among its own k.

    The index is `retrieval.indexing.factory.approximate_factory`'s for so many vectors, fitted to them: of 2,000
    vectors a search looks into 8 of 50 lists. The same vectors on as many threads give the same shares. They say how
    well the vectors fall into lists, not whether what is near is right.

    Args:
        queries: Vectors of length 1.
        database: Vectors of length 1, in random order.
        exact: Rows of the k nearest.

    Returns:
        None where the database is so small that all of its lists would be searched.
    """
    factory = approximate_factory(len(database))
    if factory is None:
        return None
    vectors = make_vectors(
        database.shape[1],
        factory,
        len(database),
        lambda count: database[:count],
        iter([np.ascontiguousarray(database)]),
    )
    use_faiss()
    _, rows = vectors.search(np.ascontiguousarray(queries), exact.shape[1])
    return (exact[:, :, None] == rows[:, None, :]).any(axis=2).mean(axis=1)


def chance_precision(queries: Int64[np.ndarray, " Q"], database: Int64[np.ndarray, " N"]) -> float:
    """Return the expected share of right ones among neighbours drawn at random from the database."""
    return float((_right(queries, database) / len(database)).mean())


def chance_recall(queries: Int64[np.ndarray, " Q"], database: Int64[np.ndarray, " N"], k: int) -> float:
    """Return how often at least one of k different rows drawn at random is right: none is, hypergeometrically."""
    right, count = _right(queries, database), len(database)
    wrong = count - right
    enough = wrong >= k
    # log of C(wrong, k) / C(count, k)
    log_none = gammaln(wrong + 1) - gammaln(np.where(enough, wrong - k, 0) + 1) - gammaln(count + 1)
    log_none += gammaln(count - k + 1)
    return float((1 - np.where(enough, np.exp(log_none), 0)).mean())


def chance_average_precision(queries: Int64[np.ndarray, " Q"], database: Int64[np.ndarray, " N"]) -> float:
    """Return the expected average precision of a ranking in random order, over the queries whose class is there.

    Of N rows with R right ones it is (H + (N - H) · (R - 1) / (N - 1)) / N, where H is the Nth harmonic number: the row
    of rank i is right with probability R / N, and then each of the i - 1 before it with (R - 1) / (N - 1).
    """
    right, count = _right(queries, database), len(database)
    right = right[right > 0]
    harmonic = (1 / np.arange(1, count + 1)).sum()
    return float(((harmonic + (count - harmonic) * (right - 1) / max(count - 1, 1)) / count).mean())


def _right(queries: Int64[np.ndarray, " Q"], database: Int64[np.ndarray, " N"]) -> NDArray[np.int64]:
    """Return how many rows of the database are of each query's class."""
    return (database == queries[:, None]).sum(axis=1)

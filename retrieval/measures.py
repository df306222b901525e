"""Metrics of a ranking by cosine: precision, recall and average precision by class, and their chance levels.

Queries and database rows have class numbers. A row is relevant if its class equals the query's.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from numpy.typing import NDArray
from scipy.special import gammaln

from retrieval.indexing.factory import approximate_factory, make_vectors, use_faiss

BATCH = 128
"""Queries whose full rankings are in memory at a time."""


def nearest(
    queries: Float32[np.ndarray, "Q D"], database: Float32[np.ndarray, "N D"], k: int
) -> tuple[Float32[np.ndarray, "Q K"], Int64[np.ndarray, "Q K"]]:
    """Return the cosines and rows of the k nearest, best first. The search is exact; vectors have length 1."""
    found = (torch.from_numpy(queries) @ torch.from_numpy(database).T).topk(k, dim=1)
    return found.values.numpy(), found.indices.numpy()


def ranked(cosines: Float32[np.ndarray, "Q N"]) -> Int64[np.ndarray, "Q N"]:
    """Return rows by falling cosine, of equal ones the earlier first: a stable sort in a third of its time.

    One sort of whole numbers that hold the cosine in their upper and the row in their lower 32 bits.
    """
    bits = (0.0 - cosines).view(np.int32)  # of a negative float they fall where its value rises; 0 has one sign
    keys = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64) << 32 | np.arange(cosines.shape[1])
    keys.sort(axis=1)
    return keys & 0xFFFFFFFF


def hits(
    rows: Int64[np.ndarray, "Q K"], queries: Int64[np.ndarray, " Q"], database: Int64[np.ndarray, " N"]
) -> Bool[np.ndarray, "Q K"]:
    """Return whether each neighbour has its query's class."""
    return database[rows] == queries[:, None]


def average_precisions(
    queries: Float32[np.ndarray, "Q D"],
    database: Float32[np.ndarray, "N D"],
    query_classes: Int64[np.ndarray, " Q"],
    classes: Int64[np.ndarray, " N"],
) -> Float64[np.ndarray, " Q"]:
    """Return each query's average precision over the whole ranked database, in [0, 1].

    This is the mean of the precisions at the ranks of the relevant rows, without interpolation. Rows of equal cosine
    rank in the order of the database.

    Args:
        queries: Vectors of length 1.
        database: Vectors of length 1.
        query_classes: Class of each query.
        classes: Class of each database row.

    Returns:
        One value per query; NaN if the database has no row of its class.

    Source: Manning, Raghavan and Schütze 2008, section 8.4.
    """
    base, base_classes = torch.from_numpy(database), torch.from_numpy(classes)
    ranks = torch.arange(1, len(base) + 1, dtype=torch.float64)
    found = []
    parts = (torch.split(torch.from_numpy(each), BATCH) for each in (queries, query_classes))
    for some, wanted in zip(*parts, strict=True):
        order = torch.from_numpy(ranked((some @ base.T).numpy()))
        relevant = base_classes[order] == wanted[:, None]
        precisions = relevant.cumsum(dim=1) / ranks
        found.append((precisions * relevant).sum(dim=1) / relevant.sum(dim=1))
    return torch.cat(found).numpy()


def approximate_recall(
    queries: Float32[np.ndarray, "Q D"], database: Float32[np.ndarray, "N D"], exact: Int64[np.ndarray, "Q K"]
) -> Float64[np.ndarray, " Q"] | None:
    """Return the share of each query's k nearest rows that an approximate index finds among its own k.

    The index type is `retrieval.indexing.factory.approximate_factory` of the database's size, trained on the database.
    For 2,000 vectors a search probes 8 of 50 lists. The result is deterministic for a given number of threads. It
    measures how well the vectors cluster into lists, not whether the neighbours are relevant.

    Args:
        queries: Vectors of length 1.
        database: Vectors of length 1, in random order.
        exact: Rows of the k nearest.

    Returns:
        One share per query; None if the database is so small that a search would probe all lists.
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
    """Return the expected precision of neighbours drawn at random from the database."""
    return float((_relevant_counts(queries, database) / len(database)).mean())


def chance_recall(queries: Int64[np.ndarray, " Q"], database: Int64[np.ndarray, " N"], k: int) -> float:
    """Return the probability that k rows drawn without replacement contain a relevant one (hypergeometric)."""
    relevant, count = _relevant_counts(queries, database), len(database)
    irrelevant = count - relevant
    enough = irrelevant >= k
    # log of C(irrelevant, k) / C(count, k)
    log_none = gammaln(irrelevant + 1) - gammaln(np.where(enough, irrelevant - k, 0) + 1) - gammaln(count + 1)
    log_none += gammaln(count - k + 1)
    return float((1 - np.where(enough, np.exp(log_none), 0)).mean())


def chance_average_precision(queries: Int64[np.ndarray, " Q"], database: Int64[np.ndarray, " N"]) -> float:
    """Return the expected average precision of a random ranking, over the queries whose class is in the database.

    For N rows with R relevant ones it is (H + (N - H) · (R - 1) / (N - 1)) / N, where H is the Nth harmonic number.
    The row at rank i is relevant with probability R / N, and then each of the i - 1 rows before it with
    (R - 1) / (N - 1).
    """
    relevant, count = _relevant_counts(queries, database), len(database)
    relevant = relevant[relevant > 0]
    harmonic = (1 / np.arange(1, count + 1)).sum()
    return float(((harmonic + (count - harmonic) * (relevant - 1) / max(count - 1, 1)) / count).mean())


def _relevant_counts(queries: Int64[np.ndarray, " Q"], database: Int64[np.ndarray, " N"]) -> NDArray[np.int64]:
    """Return the number of database rows of each query's class."""
    return (database == queries[:, None]).sum(axis=1)

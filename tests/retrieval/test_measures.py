"""Retrieval metrics against scikit-learn and full enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from retrieval.indexing.factory import EXACT_UP_TO, approximate_factory, default_factory
from retrieval.measures import (
    approximate_recall,
    average_precisions,
    chance_average_precision,
    chance_precision,
    chance_recall,
    nearest,
    ranked,
)


def unit(rng: np.random.Generator, count: int, dimensions: int = 8) -> np.ndarray:
    vectors = rng.normal(size=(count, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_average_precision_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    queries, database = unit(rng, 300), unit(rng, 70)  # more than one batch of queries
    wanted, classes = rng.integers(0, 5, 300), rng.integers(0, 4, 70)  # no row has class 4
    found = average_precisions(queries, database, wanted, classes)
    cosines = (torch.from_numpy(queries) @ torch.from_numpy(database).T).numpy()
    for value, scores, label in zip(found, cosines, wanted, strict=True):
        assert len(set(scores)) == len(scores)
        if label == 4:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(average_precision_score(classes == label, scores))


def test_of_equal_cosines_the_earlier_row_ranks_first() -> None:
    database = np.tile(np.eye(1, 8, dtype=np.float32), (50, 1))  # exact in any order of summation: all cosines are 1
    classes = np.zeros(50, dtype=np.int64)
    classes[[4, 9]] = 1
    found = average_precisions(database[:1], database, np.array([1]), classes)
    np.testing.assert_allclose(found, [(1 / 5 + 2 / 10) / 2])


def test_rows_are_ranked_as_by_a_stable_sort() -> None:
    rng = np.random.default_rng(0)
    cosines = rng.normal(size=(50, 300)).astype(np.float32).round(1)  # many are equal, among them 0.0 and -0.0
    cosines[0] = rng.normal(size=300).astype(np.float32) * 1e-42  # numbers without a leading one
    cosines[1, ::2], cosines[1, 1::2] = 1.0, -1.0
    assert (np.signbit(cosines) & (cosines == 0)).any()
    np.testing.assert_array_equal(ranked(cosines), np.argsort(-cosines, axis=1, kind="stable"))


@pytest.mark.slow
def test_chance_is_the_mean_over_all_orders() -> None:
    classes = np.array([0, 1, 1, 2, 2, 2, 2])
    for label, k in itertools.product((0, 1, 2, 3), (1, 2, 4)):
        precisions, recalls, averages = [], [], []
        for order in itertools.permutations(range(7)):
            right = [classes[row] == label for row in order]
            precisions.append(np.mean(right[:k]))
            recalls.append(any(right[:k]))
            at = [sum(right[: rank + 1]) / (rank + 1) for rank in range(7) if right[rank]]
            averages.append(np.mean(at) if at else np.nan)
        wanted = np.array([label])
        assert chance_precision(wanted, classes) == pytest.approx(np.mean(precisions))
        assert chance_recall(wanted, classes, k) == pytest.approx(np.mean(recalls))
        if label != 3:  # a missing class has no average precision
            assert chance_average_precision(wanted, classes) == pytest.approx(np.mean(averages))
            both = np.array([label, 3])
            assert chance_average_precision(both, classes) == pytest.approx(np.mean(averages))


def test_an_approximate_index_finds_what_is_in_few_lists() -> None:
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(20, dtype=np.float32), 60, axis=0)
    database = centres + rng.normal(scale=0.02, size=centres.shape).astype(np.float32)
    database = rng.permutation(database / np.linalg.norm(database, axis=1, keepdims=True))
    queries = database[:30]
    exact = nearest(queries, database, 10)[1]
    found = approximate_recall(queries, database, exact)
    assert found is not None
    assert found.mean() > 0.97  # 16-bit rounding swaps a few
    group = database.argmax(axis=1)
    elsewhere = exact.copy()  # rows of another cluster, which a nearest-neighbour search does not return
    for row, query in enumerate(queries):
        elsewhere[row, ::2] = np.flatnonzero(group != query.argmax())[:5]
    half = approximate_recall(queries, database, elsewhere)
    assert half is not None
    assert half.mean() == pytest.approx(0.5, abs=0.02)


def test_an_approximate_index_is_as_large_as_its_vectors_allow() -> None:
    assert approximate_factory(359) is None
    assert approximate_factory(360) == "IVF9_HNSW32,SQfp16"
    assert approximate_factory(2000) == "IVF50_HNSW32,SQfp16"
    assert approximate_factory(EXACT_UP_TO + 1) == default_factory(EXACT_UP_TO + 1)
    vectors = unit(np.random.default_rng(0), 359)
    assert approximate_recall(vectors[:3], vectors, nearest(vectors[:3], vectors, 5)[1]) is None

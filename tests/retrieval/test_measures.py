"""Retrieval metrics against scikit-learn and full enumeration; baselines against scikit-image and NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from index_samples import SIZE, SPEC, make_encoder
from skimage.feature import hog as histograms
from sklearn.metrics import average_precision_score

from pretext.datasets import ImageDataset, at_size, open_dataset
from pretext.transforms.masks import MEAN_COLOUR
from retrieval.baselines import NAMES, colour_histograms, describe_without_network, hog, raw_pixels
from retrieval.indexing.factory import EXACT_UP_TO, approximate_factory, default_factory
from retrieval.measures import (
    approximate_recall,
    average_precisions,
    chance_average_precision,
    chance_precision,
    chance_recall,
    nearest,
)
from retrieval.probes.retrieval import Retrieval
from retrieval.regions import PATCH, Regions


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


# Descriptors without a network


def pictures(count: int = 5, size: int = 32) -> torch.Tensor:
    """Return random pictures whose values are multiples of 1/255."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator).float() / 255


@pytest.mark.parametrize("size", [32, 27, 64])
def test_gradients_are_those_of_scikit_image(size: int) -> None:
    shown = pictures(size=size)
    shown[1] = 0.5  # no gradient
    shown[2, :, :, : size // 2] = 0.25
    side = size // 8
    for vector, picture in zip(hog(shown).numpy(), shown, strict=True):
        values = picture.mul(255).round().byte().permute(1, 2, 0).numpy()
        expected = histograms(values, pixels_per_cell=(side, side), cells_per_block=(2, 2), channel_axis=-1)
        length = np.linalg.norm(expected)
        np.testing.assert_allclose(vector, expected / length if length else expected, atol=1e-5)


def test_colours_are_counted_where_they_are_visible() -> None:
    shown = pictures()
    visible = torch.rand(5, 32, 32, generator=torch.Generator().manual_seed(1)) < 0.4
    visible[3] = False
    found = colour_histograms(shown, visible).numpy()
    for vector, picture, mask in zip(found, shown, visible, strict=True):
        counts = np.histogramdd(picture[:, mask].T.double().numpy(), bins=8, range=[(0, 1)] * 3)[0].reshape(-1)
        np.testing.assert_allclose(vector**2, counts / max(counts.sum(), 1), atol=1e-6)


def test_pixels_are_averaged_to_a_tiny_picture() -> None:
    shown = pictures(size=64)
    centred = shown.double().numpy() - np.array(MEAN_COLOUR)[:, None, None]
    tiny = centred.reshape(5, 3, 32, 2, 32, 2).mean(axis=(3, 5)).reshape(5, -1)
    np.testing.assert_allclose(raw_pixels(shown), tiny / np.linalg.norm(tiny, axis=1, keepdims=True), atol=1e-6)


class Two(ImageDataset):
    """Two pictures."""

    spec, classes, annotations, fingerprint = "two", (), frozenset(), "two"

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.splits = images, {}

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.images[index], {}


def test_no_baseline_sees_what_is_hidden() -> None:
    table = np.array([(0, 0.27, 0.3, 0.33, 0.41, -1), (1, 0.7, 0.6, 0.3, 0.4, -1)], dtype=PATCH)
    images = (pictures(2) * 255).round().byte()
    inside, outside = images.clone(), images.clone()
    inside[0, :, 9:23, 8:20] = 255 - inside[0, :, 9:23, 8:20]  # every pixel that the box touches
    inside[1, :, 19:, 22:] = 255 - inside[1, :, 19:, 22:]
    outside[0, :, 7, 8:20] = outside[1, :, 14:17] = 0
    seen, hidden, shown = (
        describe_without_network(Two(each), table, Regions(mode="contexts"), side=32)
        for each in (images, inside, outside)
    )
    for name in NAMES:
        np.testing.assert_array_equal(seen[name], hidden[name])
        assert (np.abs(seen[name] - shown[name]).max(axis=1) > 1e-3).all()
        np.testing.assert_allclose(np.linalg.norm(seen[name], axis=1), 1, atol=1e-5)


def test_what_lies_beyond_a_picture_is_no_colour_of_it() -> None:
    white = torch.full((2, 3, 32, 32), 255, dtype=torch.uint8)
    table = np.array([(0, 0.8, 0.8, 0.2, 0.2, -1), (1, 0.25, 0.25, 0.5, 0.5, -1)], dtype=PATCH)
    for mode in ("objects", "contexts"):
        regions = Regions(mode=mode, margin=0.5)  # type: ignore[arg-type]
        found = describe_without_network(Two(white), table, regions, side=32)["colour histogram"]
        np.testing.assert_allclose(found[:, -1], 1, atol=1e-6)


def test_baselines_are_the_same_whatever_the_encoder_and_never_the_headline() -> None:
    data = at_size(open_dataset(SPEC), SIZE, bad_images="stop")
    probe = Retrieval(k=3, database=60, queries=20)
    one, other = ([s for s in probe.evaluate(make_encoder(seed), data) if " by " in s.metric] for seed in (0, 1))
    metrics = [f"{kind}{measure}" for kind in ("", "context ") for measure in ("precision@3", "recall@3", "mAP")]
    assert {s.metric for s in one} == {f"{metric} by {name}" for metric in metrics for name in NAMES}
    assert [(s.metric, s.value) for s in one] == [(s.metric, s.value) for s in other]
    assert not any(s.headline or s.stage for s in one)
    without = list(Retrieval(k=3, database=60, queries=20, baselines=False).evaluate(make_encoder(), data))
    assert without
    assert not any(" by " in s.metric for s in without)

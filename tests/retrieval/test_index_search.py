"""Searching an index: neighbours against brute force, exclusions, and what an opened index holds."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from index_samples import FILES, SIZE, build, contents, make_encoder

from pretext.datasets import ImageDataset
from pretext.datasets.fitting import resize
from pretext.encoders import Encoder
from pretext.system.errors import UserError
from retrieval.indexing.factory import make_vectors
from retrieval.indexing.index import PatchIndex
from retrieval.indexing.manifest import FORMAT
from retrieval.patches import describe_regions
from retrieval.regions import PATCH, Regions
from retrieval.searcher import Searchable


def test_neighbours_are_those_of_brute_force(
    grid: PatchIndex, encoder: Encoder, data: ImageDataset, features: np.ndarray
) -> None:
    queries, _ = describe_regions(encoder, data.split("test"), Regions(), stage="pool5", bad_images="stop")
    cosines, rows = grid.search(queries, 7, encoder=encoder)
    exact = queries.astype(np.float64) @ features.astype(np.float64).T
    best = -np.sort(-exact, axis=1)[:, :7]
    np.testing.assert_allclose(cosines, best, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(exact, rows, axis=1), best, atol=1e-6)
    assert all(len(set(row)) == 7 for row in rows.tolist())


def test_a_patch_finds_itself_first(grid: PatchIndex, encoder: Encoder, features: np.ndarray) -> None:
    cosines, rows = grid.search(features, 1, encoder=encoder)
    np.testing.assert_allclose(cosines, 1, atol=1e-5)
    assert rows[:, 0].tolist() == list(range(len(features)))


def test_a_picture_can_be_kept_out_of_its_neighbours(grid: PatchIndex, encoder: Encoder, features: np.ndarray) -> None:
    image = int(grid.table["image"][20])
    cosines, rows = grid.search(features[20:21], 5, encoder=encoder, without_image=image)
    exact = features.astype(np.float64) @ features[20].astype(np.float64)
    exact[grid.table["image"] == image] = -2
    assert rows.shape == (1, 5)
    np.testing.assert_allclose(cosines[0], -np.sort(-exact)[:5], atol=1e-6)


@pytest.mark.parametrize(
    "factory",
    [
        *("Flat", "IVF6,Flat", "IVF6_HNSW8,SQfp16", "HNSW32", "IVF6,PQ16x4"),
        pytest.param("OPQ4,IVF6,PQ4x4", marks=pytest.mark.slow),  # the rotation takes seconds to train
    ],
)
def test_neighbours_of_some_regions_are_those_of_an_index_of_them_alone(
    factory: str, grid: PatchIndex, encoder: Encoder, features: np.ndarray
) -> None:
    parts = iter([features])
    vectors = make_vectors(features.shape[1], factory, len(features), lambda count: features[:count], parts)
    ivf = faiss.try_extract_index_ivf(vectors)
    if ivf is not None:
        ivf.nprobe = ivf.nlist
    index = dataclasses.replace(grid, vectors=vectors)
    label = int(np.bincount(grid.table["label"][grid.table["label"] >= 0]).argmax())
    wanted = (grid.table["label"] == label) & (grid.table["image"] != 3)
    assert 5 < wanted.sum() < len(features) / 2
    cosines, rows = index.search(features[:9], 5, encoder=encoder, without_image=3, label=label)
    assert rows.shape == (9, 5)
    assert wanted[rows].all()
    every, of_all = vectors.search(features[:9], len(features))  # the index's own ranking
    for query in range(9):
        best = [cosine for cosine, row in zip(every[query], of_all[query], strict=True) if row >= 0 and wanted[row]][:5]
        np.testing.assert_allclose(cosines[query], best, atol=1e-4)


@pytest.mark.parametrize("factory", ["IVF100_HNSW32,SQfp16", "PCAW8,L2norm,IVF100,Flat", "HNSW32"])
def test_few_regions_far_away_are_found_by_an_approximate_index(
    factory: str, grid: PatchIndex, encoder: Encoder, features: np.ndarray
) -> None:
    rng = np.random.default_rng(0)
    label, other = rng.integers(0, 40, 8000), 7
    centres = rng.normal(size=(40, features.shape[1]))
    vectors = (centres[label] + 0.3 * rng.normal(size=(8000, features.shape[1]))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = np.zeros(8000, PATCH)
    table["label"] = label
    made = make_vectors(features.shape[1], factory, 8000, lambda count: vectors[:count], iter([vectors]))
    index = dataclasses.replace(grid, vectors=made, table=table)
    queries = vectors[label == 3][:10]
    near, rows = index.search(queries, 5, encoder=encoder, label=other)
    assert rows.shape == (10, 5) and (label[rows] == other).all()
    if "PCA" not in factory:  # PCA changes the ranking
        best = np.sort(queries @ vectors[label == other].T, axis=1)[:, :-6:-1]
        assert (near >= best - 1e-3).mean() >= 0.9
    table["label"][:3] = 50
    assert sorted(index.search(queries[:1], 5, encoder=encoder, label=50)[1][0]) == [0, 1, 2]


@pytest.mark.parametrize("factory", ["IVF100_HNSW4,Flat", "PCAW8,L2norm,IVF100_HNSW4,Flat"])
def test_lists_that_no_graph_leads_to_are_searched_too(
    factory: str, grid: PatchIndex, encoder: Encoder, features: np.ndarray
) -> None:
    rng = np.random.default_rng(0)
    label = np.arange(8000) % 100  # distant clusters and few links: the graph is disconnected
    vectors = (10 * rng.normal(size=(100, features.shape[1]))[label]).astype(np.float32)
    vectors += rng.normal(size=vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made = make_vectors(features.shape[1], factory, 8000, lambda count: vectors[:count], iter([vectors]))
    table = np.zeros(8000, PATCH)
    table["label"][:100] = 1  # one row of each cluster
    index = dataclasses.replace(grid, vectors=made, table=table)
    cosines, rows = index.search(vectors[:50], 100, encoder=encoder, label=1)
    assert rows.shape == (50, 100)
    assert (np.sort(rows, axis=1) == np.arange(100)).all()
    assert (rows[:, 0] == np.arange(50)).all() and (np.diff(cosines, axis=1) <= 0).all()
    if "PCA" not in factory:
        np.testing.assert_allclose(cosines, -np.sort(-vectors[:50] @ vectors[:100].T, axis=1), atol=1e-4)


def test_a_kind_that_can_leave_nothing_out_is_named(grid: PatchIndex, encoder: Encoder, features: np.ndarray) -> None:
    vectors = make_vectors(
        features.shape[1], "IVF6,Flat,RFlat", len(features), lambda count: features[:count], iter([features])
    )
    index = dataclasses.replace(grid, vectors=vectors)
    with pytest.raises(UserError, match="cannot exclude regions"):
        index.search(features[:1], 3, encoder=encoder, without_image=0)


def test_no_more_come_back_than_there_are(grid: PatchIndex, encoder: Encoder, features: np.ndarray) -> None:
    _, rows = grid.search(features[:1], 10_000, encoder=encoder, without_image=0)
    assert rows.shape == (1, int((grid.table["image"] != 0).sum()))


def test_an_opened_index_answers_as_the_built_one(
    encoder: Encoder, data: ImageDataset, features: np.ndarray, tmp_path: Path, small_blocks: None
) -> None:
    built = build(encoder, data, Regions(), tmp_path / "index")
    read = PatchIndex.open(tmp_path / "index")
    assert read.manifest == built.manifest
    assert np.array_equal(read.table, built.table)
    assert read.table.dtype == PATCH
    assert isinstance(read.table, np.memmap)
    _, table = describe_regions(encoder, data, Regions(), stage="pool5", bad_images="stop")
    assert np.array_equal(read.table, table)
    before, after = (index.search(features, 3, encoder=encoder) for index in (built, read))
    np.testing.assert_array_equal(before[1], after[1])
    assert [path.name for path in tmp_path.iterdir()] == ["index"]  # no temporary files are left
    assert sorted(contents(tmp_path / "index")) == FILES


def test_the_manifest_says_where_an_index_comes_from(saved: Path, encoder: Encoder, data: ImageDataset) -> None:
    about = json.loads((saved / "manifest.json").read_text())
    assert about["format"] == FORMAT
    assert (about["patches"], about["pictures"], about["dimensions"]) == (360, 40, encoder.stages[-1].channels)
    assert about["data_fingerprint"] == data.fingerprint
    assert about["regions"]["scales"] == [0.5]
    assert about["transform"]["input_size"] == SIZE
    assert about["transform"]["std"] == list(encoder.std)
    assert about["factory"] == "Flat"
    assert re.fullmatch(r"\d+\.\d+\.\d+", about["faiss_version"])


@pytest.mark.parametrize("mode", ["objects", "images", "contexts"])
def test_every_kind_of_region_makes_an_index(mode: str, encoder: Encoder, data: ImageDataset, tmp_path: Path) -> None:
    regions = Regions(mode=mode)  # type: ignore[arg-type]
    built = build(encoder, data, regions, tmp_path / "index")
    vectors, table = describe_regions(encoder, data, regions, stage="pool5", bad_images="stop")
    assert np.array_equal(built.table, table)
    _, rows = built.search(vectors, 1, encoder=encoder)
    assert (rows[:, 0] == np.arange(len(table))).mean() > 0.99


def test_training_goes_on_after_a_search(grid: PatchIndex, data: ImageDataset, features: np.ndarray) -> None:
    trained, searcher = make_encoder(seed=3), make_encoder()
    optimiser = torch.optim.SGD(trained.parameters(), lr=0.1)
    images = torch.stack([data[i][0] for i in range(8)])
    losses = []
    for _ in range(2):
        loss = trained.train()(images)[-1].square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        _, rows = grid.search(features[:64], 3, encoder=searcher)
        assert rows[:, 0].tolist() == list(range(64))
    assert losses[1] < losses[0]


def test_a_picture_of_another_size_is_resized_as_those_of_the_index(
    grid: PatchIndex, encoder: Encoder, data: ImageDataset
) -> None:
    searchable = Searchable(index=grid, encoder=encoder, data=data)
    side = grid.manifest.picture_size
    photograph = torch.randint(0, 256, (3, 3 * side, 2 * side), dtype=torch.uint8)
    given = searchable.search(photograph, (0.1, 0.2, 0.5, 0.5), 5)
    squashed = searchable.search(resize(photograph, {}, side)[0], (0.1, 0.2, 0.5, 0.5), 5)
    assert all(np.array_equal(one, other) for one, other in zip(given, squashed, strict=True))

"""An index on disk: what it finds, how it is made and made to grow, where a process was killed, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from pkgutil import resolve_name

import faiss
import numpy as np
import pytest
import torch
from index_samples import SIZE, SPEC, build, make_encoder, opened, photographs
from PIL import Image
from sklearn.decomposition import PCA

from pretext.datasets import ImageDataset, at_size, open_dataset
from pretext.encoders import Encoder, save_encoder
from pretext.system.errors import UserError
from retrieval.__main__ import main
from retrieval.indexing.blocks import drawn_vectors
from retrieval.indexing.factory import default_factory, effort, make_vectors, stored_dimensions
from retrieval.indexing.index import PatchIndex
from retrieval.indexing.manifest import FORMAT
from retrieval.patches import describe_regions
from retrieval.regions import PATCH, Regions

FILES = ["index.faiss", "manifest.json", "patches.npy", "pictures.npy"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRETEXT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return make_encoder()


@pytest.fixture(scope="module")
def data(cache: None) -> ImageDataset:
    return at_size(open_dataset(SPEC), SIZE, bad_images="stop")


@pytest.fixture(scope="module")
def features(encoder: Encoder, data: ImageDataset) -> np.ndarray:
    return describe_regions(encoder, data, Regions(), stage="pool5", bad_images="stop")[0]


@pytest.fixture(scope="module")
def grid_folder(encoder: Encoder, data: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid") / "index"
    build(encoder, data, Regions(), folder)
    return folder


@pytest.fixture(scope="module")
def grid(grid_folder: Path) -> PatchIndex:
    return PatchIndex.open(grid_folder)


@pytest.fixture
def saved(grid_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(grid_folder, tmp_path / "index")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.indexing.blocks.ROWS", 60)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


# What is found


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
    "factory", ["Flat", "IVF6,Flat", "IVF6_HNSW8,SQfp16", "HNSW32", "IVF6,PQ16x4", "OPQ16,IVF6,PQ16"]
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
    every, of_all = vectors.search(features[:9], len(features))  # as near as this kind of index takes them to be
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
    if "PCA" not in factory:  # there other axes say what is near
        best = np.sort(queries @ vectors[label == other].T, axis=1)[:, :-6:-1]
        assert (near >= best - 1e-3).mean() >= 0.9
    table["label"][:3] = 50
    assert sorted(index.search(queries[:1], 5, encoder=encoder, label=50)[1][0]) == [0, 1, 2]


@pytest.mark.parametrize("factory", ["IVF100_HNSW4,Flat", "PCAW8,L2norm,IVF100_HNSW4,Flat"])
def test_lists_that_no_graph_leads_to_are_searched_too(
    factory: str, grid: PatchIndex, encoder: Encoder, features: np.ndarray
) -> None:
    rng = np.random.default_rng(0)
    label = np.arange(8000) % 100  # far apart, and few links: the graph is in pieces
    vectors = (10 * rng.normal(size=(100, features.shape[1]))[label]).astype(np.float32)
    vectors += rng.normal(size=vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made = make_vectors(features.shape[1], factory, 8000, lambda count: vectors[:count], iter([vectors]))
    table = np.zeros(8000, PATCH)
    table["label"][:100] = 1  # one of each
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
    with pytest.raises(UserError, match="cannot leave regions out"):
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
    assert [path.name for path in tmp_path.iterdir()] == ["index"]  # nothing temporary stays
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


# Kinds of index


def clustered(count: int, dimensions: int = 32) -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, dimensions))[rng.integers(50, size=count)] + 0.5 * rng.normal(
        size=(count, dimensions)
    )
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def made(values: np.ndarray, factory: str) -> object:
    halves = iter(np.array_split(values, 2))
    return make_vectors(values.shape[1], factory, len(values), lambda count: values[:count], halves)


def test_few_vectors_are_compared_and_many_listed() -> None:
    assert default_factory(200_000) == "Flat"
    assert default_factory(250_000) == "IVF2000_HNSW32,SQfp16"


def test_the_kind_for_many_finds_the_ten_nearest(tmp_path: Path) -> None:
    values = clustered(6000)
    database, queries = values[:-100], values[-100:]
    lists = default_factory(250_000).replace("2000", "160")
    vectors = made(database, lists)
    assert effort(vectors) == "10 of 160 lists searched"
    exact = np.argsort(-(queries.astype(np.float64) @ database.astype(np.float64).T), axis=1)[:, :10]
    found = vectors.search(queries, 10)[1]  # type: ignore[attr-defined]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)]) > 0.95


def test_the_same_vectors_give_the_same_bytes() -> None:
    import faiss

    values = clustered(3000)
    first, second = (faiss.serialize_index(made(values, "PCAW16,L2norm,IVF64_HNSW32,SQfp16")) for _ in range(2))
    assert np.array_equal(first, second)


def test_inverted_lists_are_read_with_their_effort(
    encoder: Encoder, data: ImageDataset, features: np.ndarray, tmp_path: Path
) -> None:
    build(encoder, data, Regions(), tmp_path / "ivf", factory="IVF8,Flat")
    read = PatchIndex.open(tmp_path / "ivf")
    assert effort(read.vectors) == "8 of 8 lists searched"
    _, rows = read.search(features, 1, encoder=encoder)
    assert (rows[:, 0] == np.arange(len(features))).mean() > 0.99


def test_whitening_is_that_of_scikit_learn(
    encoder: Encoder, data: ImageDataset, features: np.ndarray, tmp_path: Path
) -> None:
    build(encoder, data, Regions(), tmp_path / "index", pca=8)
    index = PatchIndex.open(tmp_path / "index")
    assert stored_dimensions(index.vectors) == 8
    queries, _ = describe_regions(encoder, data.split("test"), Regions(), stage="pool5", bad_images="stop")
    fitted = PCA(8, whiten=True, svd_solver="full").fit(features.astype(np.float64))
    white = [fitted.transform(values.astype(np.float64)) for values in (queries, features)]
    white = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in white]
    expected = -np.sort(-(white[0] @ white[1].T), axis=1)[:, :5]
    np.testing.assert_allclose(index.search(queries, 5, encoder=encoder)[0], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"factory": "NOPE"}, r"--factory NOPE: [^\n]+$"),
        ({"factory": "IVF100000,Flat"}, r"--factory IVF100000,Flat: [^\n]+$"),
        ({"pca": 0}, r"--pca 0: .* give 1 to 32"),
        ({"pca": 33}, r"--pca 33: .* give 1 to 32"),
        ({"stage": "conv9"}, "no stage 'conv9'"),
    ],
)
def test_a_kind_that_cannot_be_made_is_named(
    encoder: Encoder, data: ImageDataset, tmp_path: Path, options: dict[str, object], word: str
) -> None:
    with pytest.raises(UserError, match=word):
        build(encoder, data, Regions(mode="images"), tmp_path / "index", **options)
    assert not (tmp_path / "index").exists()


def test_axes_along_which_nothing_varies_are_refused() -> None:
    values = clustered(500)
    values[:, 20:] = 0
    with pytest.raises(UserError, match="--pca 32: these vectors vary along 20 axes alone"):
        made(values, "PCAW32,L2norm,Flat")
    with pytest.raises(UserError, match="--pca 16: 10 vectors of 32"):
        made(values[:10], "PCAW16,L2norm,Flat")


# Made block by block


class Killed(BaseException):
    pass


def stop_at(monkeypatch: pytest.MonkeyPatch, where: str, call: int) -> None:
    """Make the given call of a function the last that is begun."""
    original: Callable[..., object] = resolve_name(where)
    calls = iter(range(1_000_000))

    def dying(*args: object, **kwargs: object) -> object:
        if next(calls) == call:
            raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(where, dying)


@pytest.mark.parametrize("factory", ["Flat", "PCAW8,L2norm,IVF16_HNSW32,SQfp16"])
@pytest.mark.parametrize(
    ("where", "call"),
    [
        ("retrieval.indexing.blocks._encoded", 0),
        ("retrieval.indexing.blocks._encoded", 3),
        ("retrieval.indexing.blocks.np.savez", 2),
        ("retrieval.indexing.building.make_vectors", 0),
        ("retrieval.indexing.building._write_tables", 0),
        ("retrieval.indexing.building.put_in_place", 0),
    ],
)
def test_it_goes_on_from_the_last_block_to_the_same_bytes(
    encoder: Encoder,
    data: ImageDataset,
    tmp_path: Path,
    small_blocks: None,
    factory: str,
    where: str,
    call: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build(encoder, data, Regions(), tmp_path / "whole", factory=factory)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        stop_at(patch, where, call)
        build(encoder, data, Regions(), tmp_path / "index", factory=factory)
    assert not (tmp_path / "index").exists()
    done = sorted(file.name for file in (tmp_path / "index.blocks").glob("*.npz"))
    assert len(done) == (call if "blocks" in where else 6)
    again: list[int] = []
    encoded = resolve_name("retrieval.indexing.blocks._encoded")
    monkeypatch.setattr("retrieval.indexing.blocks._encoded", lambda *args: again.append(args[3]) or encoded(*args))
    build(encoder, data, Regions(), tmp_path / "index", factory=factory)
    assert len(again) == 6 - len(done)  # 360 rows; a block is full at the seventh picture, of 9 each
    assert contents(tmp_path / "index") == contents(tmp_path / "whole")
    assert not (tmp_path / "index.blocks").exists()


@pytest.mark.parametrize("call", [0, 1])
@pytest.mark.parametrize("grown", [False, True])
def test_a_move_that_is_cut_off_loses_neither_index(
    encoder: Encoder, tmp_path: Path, call: int, grown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photographs(tmp_path / "photos", range(12))
    out, old = tmp_path / "index", Regions(mode="images")
    build(encoder, opened(folder), old, out, split="all")
    before = contents(out)
    photographs(folder, range(12, 15))
    options = {"split": "all"} | ({"add": True} if grown else {"overwrite": True})
    rename = Path.rename
    moves = iter(range(100))

    def dying(self: Path, target: Path) -> Path:
        if (self == out or self.name == "finished") and next(moves) == call:
            raise Killed
        return rename(self, target)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "rename", dying)
        build(encoder, opened(folder), old, out, **options)
    assert contents(out if call == 0 else tmp_path / "index.blocks" / "old") == before
    build(encoder, opened(folder), old, out, **options)
    assert len(PatchIndex.open(out).table) == 15
    assert not (tmp_path / "index.blocks").exists()


CHILD = """
import os, signal, sys
import retrieval.indexing.blocks, retrieval.__main__
retrieval.indexing.blocks.ROWS = 60
savez, left = retrieval.indexing.blocks.np.savez, [3]
def dying(file, **arrays):
    left[0] -= 1
    if not left[0]:
        file.write(b"half a block")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    savez(file, **arrays)
retrieval.indexing.blocks.np.savez = dying
retrieval.__main__.main(sys.argv[1:])
"""


def test_a_killed_process_leaves_whole_blocks_alone(
    encoder: Encoder, tmp_path: Path, small_blocks: None, capsys: pytest.CaptureFixture[str]
) -> None:
    save_encoder(encoder, tmp_path / "encoder.safetensors", {})
    argv = ["index", "--encoder", str(tmp_path / "encoder.safetensors"), "--data", SPEC, "--split", "train", "--out"]
    child = subprocess.run([sys.executable, "-c", CHILD, *argv, str(tmp_path / "index")], check=False)
    assert child.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "index.blocks").glob("*.npz"))) == 2
    assert main([*argv, str(tmp_path / "index")]) == 0
    assert "goes on at picture 15 of 40" in capsys.readouterr().err
    assert main([*argv, str(tmp_path / "whole")]) == 0
    assert contents(tmp_path / "index") == contents(tmp_path / "whole")
    assert not (tmp_path / "index.blocks").exists()


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "remove"])
def test_a_damaged_block_is_computed_again(
    encoder: Encoder, data: ImageDataset, grid_folder: Path, tmp_path: Path, small_blocks: None, harm: str
) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        stop_at(patch, "retrieval.indexing.building.make_vectors", 0)
        build(encoder, data, Regions(), tmp_path / "index")
    block = tmp_path / "index.blocks" / "000002.npz"
    content = bytearray(block.read_bytes())
    content[len(content) // 2] ^= 1
    block.write_bytes({"cut": content[: len(content) // 2], "flip": content}.get(harm, b""))
    if harm == "remove":
        block.unlink()
    build(encoder, data, Regions(), tmp_path / "index")
    assert contents(tmp_path / "index") == contents(grid_folder)


def test_blocks_of_something_else_are_not_mixed_in(encoder: Encoder, data: ImageDataset, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        stop_at(patch, "retrieval.indexing.building.make_vectors", 0)
        build(encoder, data, Regions(), tmp_path / "index")
    begun = tmp_path / "index.blocks"
    for options, word in (({"stage": "conv3"}, "stage"), ({"bad_images": "skip"}, "bad_images")):
        with pytest.raises(UserError, match=f"begun with another {word}"):
            build(encoder, data, Regions(), tmp_path / "index", **options)
    with pytest.raises(UserError, match="begun with another encoder_sha256"):
        build(make_encoder(seed=1), data, Regions(), tmp_path / "index")
    assert (begun / "000000.npz").is_file()
    # The kind of index and its whitening are made of the very same blocks.
    build(encoder, data, Regions(), tmp_path / "index", factory="IVF4,Flat", pca=8)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        stop_at(patch, "retrieval.indexing.building.make_vectors", 0)
        build(encoder, data, Regions(), tmp_path / "other")
    other = build(make_encoder(seed=1), data, Regions(), tmp_path / "other", overwrite=True)
    expected, _ = describe_regions(make_encoder(seed=1), data, Regions(), stage="pool5", bad_images="stop")
    np.testing.assert_allclose(other.vectors.reconstruct_n(0, len(expected)), expected, atol=1e-6)


def test_one_process_at_a_time_makes_an_index(encoder: Encoder, data: ImageDataset, tmp_path: Path) -> None:
    def second(*args: object, **kwargs: object) -> object:
        with pytest.raises(UserError, match="another process is making this index"):
            build(encoder, data, Regions(mode="images"), tmp_path / "index")
        raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr("retrieval.indexing.building.encode_blocks", second)
        build(encoder, data, Regions(mode="images"), tmp_path / "index")
    build(encoder, data, Regions(mode="images"), tmp_path / "index")


def test_a_folder_of_the_users_is_not_taken_for_blocks(encoder: Encoder, data: ImageDataset, tmp_path: Path) -> None:
    (tmp_path / "index.blocks").mkdir()
    (tmp_path / "index.blocks" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not what this command leaves"):
        build(encoder, data, Regions(mode="images"), tmp_path / "index", overwrite=True)
    assert (tmp_path / "index.blocks" / "mine.txt").read_text() == "mine"


def test_memory_does_not_grow_with_the_pictures(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.indexing.blocks.ROWS", 128)
    monkeypatch.setenv("PRETEXT_PACK_GB", "0")
    peaks, held = [], 0
    for count in (40, 40, 160):  # the first pays for what is imported
        data = at_size(open_dataset(f"scenes?train={count}&val=12&test=16&size={SIZE}"), SIZE, bad_images="stop")
        assert data.fingerprint
        tracemalloc.start()
        built = build(encoder, data, Regions(pool=4), tmp_path / f"{len(peaks)}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        held = built.vectors.ntotal * built.vectors.d * 4
    assert held > 1_400_000  # what FAISS keeps is not NumPy's to count
    assert peaks[2] - peaks[1] < 0.2 * held


def test_the_sample_is_drawn_from_all_blocks_alike(encoder: Encoder, data: ImageDataset, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr("retrieval.indexing.blocks.ROWS", 60)
        stop_at(patch, "retrieval.indexing.building.make_vectors", 0)
        build(encoder, data, Regions(), tmp_path / "index")
    working = tmp_path / "index.blocks"
    every, _ = describe_regions(encoder, data, Regions(), stage="pool5", bad_images="stop")
    np.testing.assert_allclose(drawn_vectors(working, 360, 360), every, atol=1e-6)
    part = drawn_vectors(working, 360, 90)
    assert np.array_equal(part, drawn_vectors(working, 360, 90))
    rows = (part @ every.T).argmax(axis=1)
    assert len(set(rows.tolist())) == 90
    assert (np.histogram(rows, bins=6, range=(0, 360))[0] >= 5).all()


# Made to grow


def answers(index: PatchIndex, data: ImageDataset, encoder: Encoder) -> list[list[tuple[float, ...]]]:
    """Return for every region of the data the box and picture that it finds, whatever the order of the rows."""
    vectors, _ = describe_regions(encoder, data, index.manifest.regions, stage="pool5", bad_images="skip")
    _, rows = index.search(vectors, 1, encoder=encoder)
    return index.table[rows[:, 0]].tolist()


@pytest.mark.parametrize("factory", ["Flat", "IVF4_HNSW32,SQfp16"])
@pytest.mark.parametrize("pca", [None, 8])
def test_an_index_grows_with_its_folder(
    encoder: Encoder, tmp_path: Path, factory: str, pca: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photographs(tmp_path / "photos", range(10, 24))
    options = {"split": "all", "factory": factory, "pca": pca}
    build(encoder, opened(folder), Regions(grid=2), tmp_path / "index", **options)
    photographs(folder, range(5))  # come before the others, so that these have other numbers
    photographs(folder, range(30, 33))
    shutil.copy(folder / "012.png", folder / "040.png")  # is known, but there are two of it now
    grown, encoded = opened(folder), []
    described = resolve_name("retrieval.patches.described")

    def counted(encoder: Encoder, pictures: Iterator[tuple[object, np.ndarray]], *rest: object) -> object:
        return described(encoder, (encoded.append(each[1]["image"][0]) or each for each in pictures), *rest)

    monkeypatch.setattr("retrieval.indexing.blocks.described", counted)
    added = build(encoder, grown, Regions(grid=2), tmp_path / "index", **(options | {"add": True}))
    assert len(encoded) == 5 + 3 + 1
    whole = build(encoder, grown, Regions(grid=2), tmp_path / "whole", **options)
    assert sorted(added.table.tolist()) == sorted(whole.table.tolist())
    for found, expected in zip(answers(added, grown, encoder), whole.table.tolist(), strict=True):
        assert found[1:] == expected[1:]
        assert torch.equal(grown[found[0]][0], grown[expected[0]][0])  # one picture is there twice
    assert PatchIndex.open(tmp_path / "index").manifest == added.manifest
    assert added.manifest.data_fingerprint == grown.fingerprint
    assert contents(tmp_path / "index")["pictures.npy"] == contents(tmp_path / "whole")["pictures.npy"]


def test_growth_goes_on_from_the_last_block(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.indexing.blocks.PICTURES", 4)
    folder, regions = photographs(tmp_path / "photos", range(8)), Regions(mode="images")
    build(encoder, opened(folder), regions, tmp_path / "index", split="all")
    shutil.copytree(tmp_path / "index", tmp_path / "whole")
    photographs(folder, range(8, 20))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        stop_at(patch, "retrieval.indexing.blocks._encoded", 3)
        build(encoder, opened(folder), regions, tmp_path / "index", split="all", add=True)
    assert len(PatchIndex.open(tmp_path / "index").table) == 8
    for name in ("index", "whole"):
        build(encoder, opened(folder), regions, tmp_path / name, split="all", add=True)
    assert contents(tmp_path / "index") == contents(tmp_path / "whole")


def test_growth_that_was_cut_off_does_not_bar_the_way(encoder: Encoder, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos", range(8))
    options = {"split": "all", "add": True}
    build(encoder, opened(folder), Regions(mode="images"), tmp_path / "index", **options)
    photographs(folder, range(8, 10))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        stop_at(patch, "retrieval.indexing.building._write_tables", 0)
        build(encoder, opened(folder), Regions(mode="images"), tmp_path / "index", **options)
    photographs(folder, range(10, 13))  # more have come before it is called again
    grown = build(encoder, opened(folder), Regions(mode="images"), tmp_path / "index", **options)
    assert len(grown.table) == 13
    assert [row[0] for row in answers(grown, opened(folder), encoder)] == list(range(13))
    assert not (tmp_path / "index.blocks").exists()


def test_nothing_new_changes_nothing(encoder: Encoder, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos", range(8))
    for _ in range(2):  # --add makes an index where there is none
        build(encoder, opened(folder), Regions(mode="images"), tmp_path / "index", split="all", add=True)
        before = contents(tmp_path / "index")
    assert contents(tmp_path / "index") == before


def test_pictures_that_cannot_be_read_are_no_growth(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRETEXT_PACK_GB", "0")  # they are met on the way, and keep their numbers
    folder = photographs(tmp_path / "photos", range(8))
    for name in ("0a.png", "003a.png"):
        (folder / name).write_bytes(b"no picture")
    options = {"split": "all", "bad_images": "skip"}
    built = build(encoder, opened(folder, "skip"), Regions(mode="images"), tmp_path / "index", **options)
    assert capsys.readouterr().err.count("left out") == 2
    assert len(built.table) == 8
    photographs(folder, range(8, 10))
    grown = opened(folder, "skip")
    added = build(encoder, grown, Regions(mode="images"), tmp_path / "index", **options, add=True)
    assert len(added.table) == 10
    for image in added.table["image"]:
        assert len(grown[int(image)]) == 2  # each can be read


@pytest.mark.parametrize(
    ("change", "options", "word"),
    [
        ("remove", {}, r"lacks 1 of the 8 pictures"),
        ("repaint", {}, r"lacks 1 of the 8 pictures"),
        (None, {"stage": "conv3"}, "made with another stage"),
        (None, {"factory": "IVF2,Flat"}, "made with another factory"),
        (None, {"pca": 4}, "made with another factory"),
        (None, {"overwrite": True}, "give one of them"),
    ],
)
def test_an_index_that_cannot_grow_is_left_alone(
    encoder: Encoder, tmp_path: Path, change: str | None, options: dict[str, object], word: str
) -> None:
    folder = photographs(tmp_path / "photos", range(8))
    build(encoder, opened(folder), Regions(mode="images"), tmp_path / "index", split="all")
    before = contents(tmp_path / "index")
    photographs(folder, range(8, 10))
    if change == "remove":
        (folder / "002.png").unlink()
    elif change == "repaint":
        Image.new("RGB", (40, 40), "red").save(folder / "002.png")
    given = {"split": "all", "add": True} | options
    with pytest.raises(UserError, match=word):
        build(encoder, opened(folder), Regions(mode="images"), tmp_path / "index", **given)
    with pytest.raises(UserError, match="made with another encoder"):
        build(make_encoder(1), opened(folder), Regions(mode="images"), tmp_path / "index", split="all", add=True)
    assert contents(tmp_path / "index") == before
    assert not (tmp_path / "index.blocks").exists()


# What is refused


def test_another_encoder_is_refused(saved: Path, features: np.ndarray) -> None:
    with pytest.raises(UserError, match="made with the encoder"):
        PatchIndex.open(saved).search(features[:1], 1, encoder=make_encoder(seed=1))


def test_an_encoder_that_was_trained_since_is_refused(saved: Path, features: np.ndarray) -> None:
    index, encoder = PatchIndex.open(saved), make_encoder()
    index.search(features[:1], 1, encoder=encoder)
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.1)
    encoder(torch.zeros(1, 3, SIZE, SIZE))[-1].sum().backward()
    optimiser.step()
    with pytest.raises(UserError, match="has changed"):
        index.search(features[:1], 1, encoder=encoder)


def test_another_normalisation_is_refused(saved: Path, features: np.ndarray) -> None:
    encoder = make_encoder()
    encoder.mean = (0.5, 0.5, 0.5)
    with pytest.raises(UserError, match="made with the encoder"):
        PatchIndex.open(saved).search(features[:1], 1, encoder=encoder)


@pytest.mark.parametrize("name", ["index.faiss", "patches.npy", "pictures.npy"])
@pytest.mark.parametrize("harm", ["flip", "cut", "short", "empty", "longer", "remove"])
def test_a_harmed_index_is_refused_before_it_is_read(
    saved: Path, name: str, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: str) -> None:
        raise AssertionError(f"read {path}")

    content = bytearray((saved / name).read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
    kept = {"cut": content[: len(content) // 2], "short": content[:-1], "empty": b"", "longer": content + b"0"}
    (saved / name).write_bytes(kept.get(harm, content))
    if harm == "remove":
        (saved / name).unlink()
    monkeypatch.setattr("faiss.read_index", read)
    monkeypatch.setattr("retrieval.indexing.index.np.load", read)
    with pytest.raises(UserError, match=f"index: {re.escape(name)} is"):
        PatchIndex.open(saved)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (None, "no manifest"),
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[]", "no manifest of an index"),
        ('{"patches": 1}', "no manifest of an index"),
        ('{"format": 1, "sha256": {}}', "format 1, and this version reads 2"),
        ('{"format": 2, "sha256": {}}', "cannot be read"),
        ('{"format": 2, "sha256": []}', "no manifest of an index"),
    ],
)
def test_a_folder_that_is_no_index_is_named(saved: Path, text: str | None, word: str) -> None:
    manifest = saved / "manifest.json"
    manifest.unlink() if text is None else manifest.write_text(text)
    with pytest.raises(UserError, match=word) as caught:
        PatchIndex.open(saved)
    assert str(saved) in str(caught.value)


def test_an_index_of_another_format_is_refused(saved: Path) -> None:
    manifest = saved / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        PatchIndex.open(saved)


def test_a_manifest_with_anything_in_a_place_of_another_is_refused(saved: Path) -> None:
    manifest = saved / "manifest.json"
    content = json.loads(manifest.read_text())
    informative = {"patches", "pictures", "dimensions"}
    for name in content.keys() - informative:
        for wrong in (None, 7.5, [7.5]):
            manifest.write_text(json.dumps(content | {name: wrong}))
            with pytest.raises(UserError, match=r"manifest\.json"):
                PatchIndex.open(saved)
        manifest.write_text(json.dumps({key: value for key, value in content.items() if key != name}))
        with pytest.raises(UserError, match=r"manifest\.json"):
            PatchIndex.open(saved)


def test_a_folder_of_anything_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"no index")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=re.escape(str(folder))):
            PatchIndex.open(folder)


def test_a_file_that_this_faiss_cannot_read_is_named(saved: Path) -> None:
    import hashlib

    harmed = b"XXXX" + (saved / "index.faiss").read_bytes()[4:]
    (saved / "index.faiss").write_bytes(harmed)
    content = json.loads((saved / "manifest.json").read_text())
    content["sha256"]["index.faiss"] = hashlib.sha256(harmed).hexdigest()
    (saved / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"index\.faiss: FAISS [\d.]+ cannot read it") as caught:
        PatchIndex.open(saved)
    assert "\n" not in str(caught.value)


def test_what_is_there_is_not_overwritten_silently(
    saved: Path, encoder: Encoder, data: ImageDataset, tmp_path: Path
) -> None:
    before = contents(saved)
    with pytest.raises(UserError, match="--overwrite"):
        build(encoder, data, Regions(mode="images"), saved)
    assert contents(saved) == before
    build(encoder, data, Regions(mode="images"), saved, overwrite=True)
    assert PatchIndex.open(saved).manifest.regions.mode == "images"
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.txt").write_text("mine")
    for how in ("overwrite", "add"):
        with pytest.raises(UserError, match="something other"):
            build(encoder, data, Regions(mode="images"), photos, **{how: True})
    assert contents(photos) == {"a.txt": b"mine"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "photos"]


def no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def no_space_in_faiss(*_: object) -> None:
    raise RuntimeError("Error in void faiss::write_index(): Error: 'ret == (size)' failed: write error")


@pytest.mark.parametrize(
    ("where", "how"),
    [
        ("retrieval.indexing.blocks.np.savez", no_space),
        ("retrieval.indexing.building.open_memmap", no_space),
        ("faiss.write_index", no_space_in_faiss),
    ],
)
def test_a_full_disk_leaves_the_index_that_was_there(
    saved: Path, encoder: Encoder, data: ImageDataset, where: str, how: Callable[..., None]
) -> None:
    before = contents(saved)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match=r"No space|cannot write"):
        patch.setattr(where, how)
        build(encoder, data, Regions(), saved, overwrite=True)
    assert contents(saved) == before
    assert build(encoder, data, Regions(), saved, overwrite=True).manifest == PatchIndex.open(saved).manifest
    assert contents(saved) == before


# Beside PyTorch

TOGETHER = """
import os, sys
for name in sys.argv[1:3]:
    __import__(name)
import numpy as np, torch
import torch.nn.functional as F
from retrieval.indexing.factory import make_vectors, use_faiss

def tasks():
    return len(os.listdir("/proc/self/task"))

threads = int(sys.argv[3])
torch.set_num_threads(threads)
model = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(64))
optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
images = torch.rand(64, 3, 16, 16)
losses = []

def step():
    loss = model(images).square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    losses.append(loss.item())

step()
vectors = F.normalize(torch.randn(20_000, 64), dim=1).numpy()
before = tasks()
for factory in ("Flat", "IVF64_HNSW32,SQfp16"):
    index = make_vectors(64, factory, len(vectors), lambda count: vectors[:count], iter([vectors]))
    use_faiss()
    cosines, rows = index.search(vectors[:2000], 3)
    assert (rows[:, 0] == np.arange(2000)).mean() > 0.99
    assert use_faiss().omp_get_max_threads() == torch.get_num_threads() == threads
print("made", tasks() - before)
step()
assert losses[1] < losses[0], losses
"""


@pytest.mark.parametrize("order", [("torch", "faiss"), ("faiss", "torch")])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_a_search_and_a_step_share_a_process(order: tuple[str, str], threads: int) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", TOGETHER, *order, str(threads)],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    if Path("/proc/self/task").is_dir():
        made = int(done.stdout.split()[-1])
        assert made <= threads - 1  # FAISS's own pool, if it has one, besides the thread that asks


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


# The command line


def test_the_command_makes_an_index_and_lets_it_grow(
    encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_encoder(encoder, tmp_path / "encoder.safetensors", {})
    folder = photographs(tmp_path / "photos", range(12))
    argv = ["index", "--encoder", str(tmp_path / "encoder.safetensors"), "--data", f"folder:{folder}"]
    argv += ["--mode", "images", "--pca", "6", "--out", str(tmp_path / "index")]
    assert main(argv) == 0
    assert "12 images" in capsys.readouterr().out
    with pytest.raises(UserError, match="--add takes in new pictures"):
        main(argv)
    photographs(folder, range(12, 15))
    asked = ["search", str(tmp_path / "index"), "--image", str(folder / "013.png"), "--out", str(tmp_path / "found")]
    with pytest.raises(UserError, match="index --add takes in what is new"):
        main(asked)
    assert main([*argv, "--add"]) == 0
    assert "15 images" in (said := capsys.readouterr().out)
    assert "6 numbers each, PCAW6,L2norm,Flat" in said
    assert main(asked) == 0
    found = json.loads((tmp_path / "found" / "neighbours.json").read_text())["neighbours"]
    assert Path(found[0]["file"]).name == "013.png"
    assert found[0]["similarity"] == pytest.approx(1, abs=1e-3)


def test_an_index_knows_its_pictures_from_any_folder(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_encoder(encoder, tmp_path / "folder.safetensors", {})
    photographs(tmp_path / "folder", range(6))
    monkeypatch.chdir(tmp_path)
    argv = ["--encoder", "folder.safetensors", "--data", "folder:folder?limit=5", "--mode", "images", "--out", "index"]
    assert main(["index", *argv]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["search", "../index", "--query", "0", "--out", "found"]) == 0
    assert PatchIndex.open(tmp_path / "index").manifest.data == f"folder:{tmp_path / 'folder'}?limit=5"
    with pytest.raises(UserError, match="no region of the index has a class: --label"):
        main(["search", "../index", "--query", "0", "--label", "cat", "--out", "found"])

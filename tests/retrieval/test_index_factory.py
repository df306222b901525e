"""FAISS index types: defaults, training, whitening against scikit-learn, and threads shared with PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
from index_samples import build
from sklearn.decomposition import PCA

from pretext.datasets import ImageDataset
from pretext.encoders import Encoder
from pretext.system.errors import UserError
from retrieval.indexing.factory import default_factory, effort, make_vectors, stored_dimensions
from retrieval.indexing.index import PatchIndex
from retrieval.patches import describe_regions
from retrieval.regions import Regions


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
    assert effort(vectors) == "10 of 160 lists probed"
    exact = np.argsort(-(queries.astype(np.float64) @ database.astype(np.float64).T), axis=1)[:, :10]
    found = vectors.search(queries, 10)[1]  # type: ignore[attr-defined]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)]) > 0.95


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("Flat", "all vectors compared"),
        ("PCA16,Flat", "all vectors compared"),
        ("HNSW16", "FAISS's defaults"),
        ("IVF8,Flat", "8 of 8 lists probed"),
    ],
)
def test_how_much_a_search_visits_is_said(factory: str, words: str) -> None:
    assert effort(made(clustered(600), factory)) == words


def test_the_same_vectors_give_the_same_bytes() -> None:

    values = clustered(3000)
    first, second = (faiss.serialize_index(made(values, "PCAW16,L2norm,IVF64_HNSW32,SQfp16")) for _ in range(2))
    assert np.array_equal(first, second)


def test_inverted_lists_are_read_with_their_effort(
    encoder: Encoder, data: ImageDataset, features: np.ndarray, tmp_path: Path
) -> None:
    build(encoder, data, Regions(), tmp_path / "ivf", factory="IVF8,Flat")
    read = PatchIndex.open(tmp_path / "ivf")
    assert effort(read.vectors) == "8 of 8 lists probed"
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
    with pytest.raises(UserError, match="--pca 32: these vectors vary along only 20 axes"):
        made(values, "PCAW32,L2norm,Flat")
    with pytest.raises(UserError, match="--pca 16: 10 vectors of 32"):
        made(values[:10], "PCAW16,L2norm,Flat")


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


@pytest.mark.slow
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
        assert made <= threads - 1  # FAISS may have a thread pool of its own

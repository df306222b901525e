"""How fast regions are indexed and searched, beside FAISS called directly and scikit-learn's brute force."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray

from pretext.datasets import at_size, open_dataset
from pretext.datasets.splitting import split_or_all
from pretext.encoders import build_encoder
from pretext.encoders.base import Encoder
from pretext.encoders.files import encoder_digest
from retrieval.indexing.building import build_index
from retrieval.indexing.factory import SAMPLE, SAMPLE_PER_LIST, default_factory, make_vectors, use_faiss
from retrieval.indexing.index import PatchIndex
from retrieval.indexing.manifest import Manifest, Transform
from retrieval.patches import BATCH, encode
from retrieval.regions import PATCH, Regions

DIMENSIONS, QUERIES, K = 256, 500, 10
CLUSTERS = 1000
PART = 65_536
"""Vectors that are drawn, and added to an index, at a time."""
TURNS = 5
"""Pairs of times that the same queries are asked, by each in turn."""


@dataclasses.dataclass(frozen=True)
class SearchSpeed:
    """The figures of one index; medians where something is done more than once."""

    vectors: int
    factory: str
    seconds: float
    """To make the index, and so FAISS's own."""
    plain_seconds: float
    queries: float
    """A second, asked together, by `PatchIndex.search`; by FAISS called directly; by scikit-learn's brute force."""
    plain_queries: float
    brute_queries: float
    recall: float
    """Share of the ten nearest, by brute force, that are among the ten found."""
    bytes: float
    """A vector, in the index's file."""


@dataclasses.dataclass(frozen=True)
class IndexingSpeed:
    """How fast a data set's patches become vectors on disk, and how fast the encoder alone would be."""

    patches: int
    indexed: float
    """Patches a second, from pictures that lie decoded on the disk to a finished index."""
    encoded: float
    """Patches a second through the encoder, in the same batches, from memory."""


def clustered_vectors(count: int, *, stream: int) -> Float32[np.ndarray, "N 256"]:
    """Return vectors of length 1 around a thousand places, the same ones for every stream.

    Places, and the vectors around each, vary as encoders' features do, along few directions most: the k-th component
    has variance 1/k. The spread within a cluster is that between them, so that clusters overlap.
    """
    scale = (np.arange(1, DIMENSIONS + 1) ** -0.5).astype(np.float32)
    places = np.random.default_rng(0).standard_normal((CLUSTERS, DIMENSIONS), dtype=np.float32) * scale
    rng = np.random.default_rng((1, stream))
    vectors = np.empty((count, DIMENSIONS), np.float32)
    for start in range(0, count, PART):
        part = vectors[start : start + PART]
        rng.standard_normal(out=part, dtype=np.float32)
        part *= scale
        part += places[rng.integers(CLUSTERS, size=len(part))]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def search_speed(count: int) -> SearchSpeed:
    """Make an index of so many vectors, of the kind that is made by default, and ask it."""
    from sklearn.neighbors import NearestNeighbors

    database, queries = clustered_vectors(count, stream=0), clustered_vectors(QUERIES, stream=1)
    brute = NearestNeighbors(n_neighbors=K, algorithm="brute", metric="cosine").fit(database)
    started = time.perf_counter()
    nearest = brute.kneighbors(queries, return_distance=False)
    brute_seconds = time.perf_counter() - started
    del brute
    factory = default_factory(count)
    index, encoder, seconds = _our_index(database, factory)
    plain, plain_seconds = _plain_index(database, factory, index.vectors)
    asked: tuple[Callable[[], NDArray[np.int64]], ...] = (
        lambda: index.search(queries, K, encoder=encoder)[1],
        lambda: plain.search(queries, K)[1],
    )
    found, _ = (ask() for ask in asked)  # which also warms both up
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(2 * TURNS):
        for which in (0, 1) if turn % 2 else (1, 0):
            started = time.perf_counter()
            asked[which]()
            times[which].append(time.perf_counter() - started)
    with tempfile.TemporaryDirectory() as folder:
        use_faiss().write_index(index.vectors, f"{folder}/index")
        size = (Path(folder) / "index").stat().st_size
    return SearchSpeed(
        vectors=count,
        factory=factory,
        seconds=seconds,
        plain_seconds=plain_seconds,
        queries=QUERIES / statistics.median(times[0]),
        plain_queries=QUERIES / statistics.median(times[1]),
        brute_queries=QUERIES / brute_seconds,
        recall=float(np.mean([len(set(a) & set(b)) / K for a, b in zip(nearest, found, strict=True)])),
        bytes=size / count,
    )


def indexing_speed(spec: str, encoder_spec: str, image_size: int) -> IndexingSpeed:
    """Index the patches of a data set's training pictures, on a grid, and run the encoder alone on as many.

    Args:
        spec: The data set; its pictures are decoded before anything is timed.
        encoder_spec: The encoder, with random weights.
        image_size: Its input size.
    """
    encoder = build_encoder(encoder_spec, input_size=image_size, seed=0)
    encoder = encoder.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    regions = Regions()
    size = regions.picture_size(image_size)
    data = at_size(split_or_all(open_dataset(spec), "train"), size, bad_images="skip")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        made = build_index(
            encoder,
            data,
            regions,
            Path(folder) / "index",
            encoder_source=encoder_spec,
            split="train",
            picture_size=size,
            stage=None,
            factory=None,
            bad_images="skip",
        )
        seconds = time.perf_counter() - started
        patches = len(made.table)
    crops = torch.rand(BATCH, 3, image_size, image_size, device=next(encoder.parameters()).device)
    batches = max(1, patches // BATCH)
    stage = encoder.stages[-1].name
    with torch.inference_mode():
        started = time.perf_counter()
        for _ in range(batches):
            encode(encoder, crops, [stage], cells=regions.cells)[stage].cpu()  # waits for an accelerator
        alone = time.perf_counter() - started
    return IndexingSpeed(patches, patches / seconds, batches * BATCH / alone)


def print_retrieval(counts: tuple[int, ...], spec: str, encoder_spec: str, image_size: int) -> None:
    """Time both, and print a line for each index."""
    row = indexing_speed(spec, encoder_spec, image_size)
    print(
        f"{torch.get_num_threads()} thread(s), PyTorch {torch.__version__}, FAISS {use_faiss().__version__}\n"
        f"{row.patches:,} patches of {spec} by {encoder_spec} at {image_size} px: {row.indexed:,.0f} a second indexed, "
        f"{row.encoded:,.0f} through the encoder alone\n\n"
        f"{DIMENSIONS} numbers a vector, {CLUSTERS:,} clusters, {QUERIES} queries together, {K} neighbours"
    )
    print(
        f"{'vectors':>9} {'kind':<24} {'made in s':>9} {'FAISS':>6} {'queries/s':>10} {'FAISS':>8} {'over':>6} "
        f"{'scikit-learn':>13} {'recall@10':>10} {'bytes':>6}"
    )
    for count in counts:
        each = search_speed(count)
        print(
            f"{each.vectors:>9,} {each.factory:<24} {each.seconds:>9.1f} {each.plain_seconds:>6.1f} "
            f"{each.queries:>10,.0f} {each.plain_queries:>8,.0f} {each.plain_queries / each.queries - 1:>6.1%} "
            f"{each.brute_queries:>13,.0f} {each.recall:>10.4f} {each.bytes:>6.0f}",
            flush=True,
        )


def _our_index(database: Float32[np.ndarray, "N 256"], factory: str) -> tuple[PatchIndex, Encoder, float]:
    encoder = build_encoder("alexnet?width=0.25&stem_stride=1", input_size=32, seed=0)
    table = np.zeros(len(database), PATCH)
    started = time.perf_counter()
    parts = (database[start : start + PART] for start in range(0, len(database), PART))
    vectors = make_vectors(DIMENSIONS, factory, len(database), lambda count: _sample(database, count), parts)
    seconds = time.perf_counter() - started
    manifest = Manifest(
        encoder="",
        encoder_sha256=encoder_digest(encoder),
        stage="",
        transform=Transform.of(encoder),
        data="",
        split="",
        data_fingerprint="",
        picture_size=32,
        bad_images="skip",
        regions=Regions(),
        classes=(),
        factory=factory,
        faiss_version="",
    )
    return PatchIndex(manifest, table, vectors), encoder, seconds


def _plain_index(database: Float32[np.ndarray, "N 256"], factory: str, like: Any) -> tuple[Any, float]:
    """Make the index by FAISS's own calls, trained on a sample and searched with the effort of ours."""
    faiss = use_faiss()
    started = time.perf_counter()
    plain = faiss.index_factory(DIMENSIONS, factory, faiss.METRIC_INNER_PRODUCT)
    if not plain.is_trained:
        lists = faiss.extract_index_ivf(plain).nlist
        plain.train(_sample(database, min(len(database), max(SAMPLE, SAMPLE_PER_LIST * lists))))
    plain.add(database)
    seconds = time.perf_counter() - started
    ours = faiss.try_extract_index_ivf(like)
    if ours is not None:
        ivf = faiss.extract_index_ivf(plain)
        ivf.nprobe = ours.nprobe
        graphs = [faiss.downcast_index(each.quantizer).hnsw for each in (ivf, ours)]
        graphs[0].efSearch = graphs[1].efSearch
    return plain, seconds


def _sample(database: Float32[np.ndarray, "N 256"], count: int) -> Float32[np.ndarray, "M 256"]:
    return database[np.sort(np.random.default_rng(0).choice(len(database), count, replace=False, shuffle=False))]

"""Time indexing and search of patches beside FAISS called directly and scikit-learn's brute force."""

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
CHUNK = 65_536
"""Vectors that are drawn, and added to an index, at a time."""
PAIRS = 5
"""Repetitions of the search; each runs both indexes twice, in alternating order."""


@dataclasses.dataclass(frozen=True)
class SearchSpeed:
    """The results of one index; repeated measurements are medians. `plain` is FAISS called directly."""

    vectors: int
    factory: str
    """FAISS factory string of the index."""
    seconds: float
    """Time to build our index."""
    plain_seconds: float
    """Time to build the FAISS index."""
    queries: float
    """Queries per second of `PatchIndex.search`, in one batch."""
    plain_queries: float
    """Queries per second of FAISS."""
    brute_queries: float
    """Queries per second of scikit-learn's brute force."""
    recall: float
    """Recall@10 against brute force, from 0 to 1."""
    bytes: float
    """File size per vector."""


@dataclasses.dataclass(frozen=True)
class IndexingSpeed:
    """The speed of indexing a data set, and of the encoder alone."""

    patches: int
    indexed: float
    """Patches per second, from packed images on disk to a finished index."""
    encoded: float
    """Patches per second through the encoder alone, in the same batches, from memory."""


def clustered_vectors(count: int, *, stream: int) -> Float32[np.ndarray, "N 256"]:
    """Return unit vectors in a thousand overlapping clusters.

    The k-th component has variance 1/k before normalisation, as in features of an encoder. The variance within a
    cluster equals that between clusters.

    Args:
        count: Number of vectors.
        stream: Seed of the vectors; the cluster centres are the same for every stream.
    """
    scale = (np.arange(1, DIMENSIONS + 1) ** -0.5).astype(np.float32)
    centres = np.random.default_rng(0).standard_normal((CLUSTERS, DIMENSIONS), dtype=np.float32) * scale
    rng = np.random.default_rng((1, stream))
    vectors = np.empty((count, DIMENSIONS), np.float32)
    for start in range(0, count, CHUNK):
        chunk = vectors[start : start + CHUNK]
        rng.standard_normal(out=chunk, dtype=np.float32)
        chunk *= scale
        chunk += centres[rng.integers(CLUSTERS, size=len(chunk))]
        chunk /= np.linalg.norm(chunk, axis=1, keepdims=True)
    return vectors


def search_speed(count: int) -> SearchSpeed:
    """Build an index of `count` vectors with the default factory, and search it."""
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
    searches: tuple[Callable[[], NDArray[np.int64]], ...] = (
        lambda: index.search(queries, K, encoder=encoder)[1],
        lambda: plain.search(queries, K)[1],
    )
    found, _ = (search() for search in searches)  # also the warm-up
    times: tuple[list[float], list[float]] = ([], [])
    for repetition in range(2 * PAIRS):
        for which in (0, 1) if repetition % 2 else (1, 0):
            started = time.perf_counter()
            searches[which]()
            times[which].append(time.perf_counter() - started)
    written: list[int] = []  # what would be written is counted, and no file is needed
    use_faiss().write_index(index.vectors, use_faiss().PyCallbackIOWriter(lambda part: written.append(len(part))))
    return SearchSpeed(
        vectors=count,
        factory=factory,
        seconds=seconds,
        plain_seconds=plain_seconds,
        queries=QUERIES / statistics.median(times[0]),
        plain_queries=QUERIES / statistics.median(times[1]),
        brute_queries=QUERIES / brute_seconds,
        recall=float(np.mean([len(set(a) & set(b)) / K for a, b in zip(nearest, found, strict=True)])),
        bytes=sum(written) / count,
    )


def indexing_speed(spec: str, encoder_spec: str, image_size: int) -> IndexingSpeed:
    """Time the indexing of the training split on the default grid, and the encoder alone on as many patches.

    Args:
        spec: The data set; it is decoded before the clock starts.
        encoder_spec: Architecture spec; the weights are random.
        image_size: Input size of the encoder in pixels.
    """
    encoder = build_encoder(encoder_spec, input_size=image_size, seed=0)
    encoder = encoder.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    regions = Regions()
    size = regions.picture_size(image_size)
    data = at_size(split_or_all(open_dataset(spec), "train"), size, bad_images="skip")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        index = build_index(
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
        patches = len(index.table)
    crops = torch.rand(BATCH, 3, image_size, image_size, device=next(encoder.parameters()).device)
    batches = max(1, patches // BATCH)
    reading = encoder.stages[-1].name, regions.cells
    with torch.inference_mode():
        started = time.perf_counter()
        for _ in range(batches):
            encode(encoder, crops, [reading])[reading].cpu()  # waits for the GPU
        encoder_seconds = time.perf_counter() - started
    return IndexingSpeed(patches, patches / seconds, batches * BATCH / encoder_seconds)


def print_retrieval(counts: tuple[int, ...], spec: str, encoder_spec: str, image_size: int) -> None:
    """Time indexing and search, and print one line per index.

    Args:
        counts: Number of vectors of each index.
        spec: The data set to index.
        encoder_spec: Architecture spec.
        image_size: Input size of the encoder in pixels.
    """
    row = indexing_speed(spec, encoder_spec, image_size)
    print(
        f"{torch.get_num_threads()} thread(s), PyTorch {torch.__version__}, FAISS {use_faiss().__version__}\n"
        f"{row.patches:,} patches of {spec} with {encoder_spec} at {image_size} px: {row.indexed:,.0f} patches/s "
        f"indexed, {row.encoded:,.0f} patches/s through the encoder alone\n\n"
        f"{DIMENSIONS} dimensions, {CLUSTERS:,} clusters, {QUERIES} queries per batch, {K} neighbours"
    )
    print(
        f"{'vectors':>9} {'factory':<24} {'build s':>9} {'FAISS':>6} {'queries/s':>10} {'FAISS':>8} {'over':>6} "
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
    chunks = (database[start : start + CHUNK] for start in range(0, len(database), CHUNK))
    vectors = make_vectors(DIMENSIONS, factory, len(database), lambda count: _sample(database, count), chunks)
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
    """Build the index by direct FAISS calls, with the training sample and search parameters of ours.

    Args:
        database: The vectors.
        factory: FAISS factory string.
        like: Our FAISS index, whose search parameters are copied.

    Returns:
        The FAISS index, and the seconds to build it.
    """
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

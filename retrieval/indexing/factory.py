"""FAISS: index types, training, adding vectors, reading, and search parameters.

In `retrieval`, this module alone imports FAISS.

FAISS and PyTorch each load an OpenMP runtime. If PyTorch is imported first, both use PyTorch's, and setting the thread
count of one sets that of the other. If FAISS is first, each has its own thread pool. `use_faiss` therefore sets FAISS
to PyTorch's thread count before every use. The two never compute at the same time here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32

from pretext.system.errors import UserError

EXACT_UP_TO = 200_000
"""Exact search up to this many vectors; inverted lists (IVF) above it."""
SAMPLE = 50_000
"""Largest training sample, unless an index with many lists needs more."""
SAMPLE_PER_LIST = 40
"""Training vectors per list; FAISS asks for at least 39."""
PROBED_SHARE, MIN_PROBED = 1 / 16, 8
"""Share of the lists that a search probes, and their minimum number."""
RANK_TOLERANCE = 1e-6
"""A principal axis below this share of the largest variance holds only rounding errors."""

Vectors = Float32[np.ndarray, "N D"]


def use_faiss() -> Any:
    """Return the `faiss` module, set to PyTorch's current number of threads."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


def default_factory(count: int) -> str:
    """Return the default factory string for `count` vectors.

    Exact search up to `EXACT_UP_TO`; above it 4·√N inverted lists of 16-bit vectors, with an HNSW graph over them.
    Eight bits would halve the memory, but of 250,000 vectors it finds 97.0 % of the ten nearest, 16 bits 98.9 %
    (`LOG.md`).
    """
    return "Flat" if count <= EXACT_UP_TO else _ivf_factory(round(4 * count**0.5))


def approximate_factory(count: int) -> str | None:
    """Return the approximate type of `default_factory`, also for fewer vectors.

    Small data sets get fewer lists, so that each list has `SAMPLE_PER_LIST` vectors. None if a search would probe all
    of the lists.
    """
    lists = min(round(4 * count**0.5), count // SAMPLE_PER_LIST)
    return _ivf_factory(lists) if lists > MIN_PROBED else None


def with_whitening(factory: str, pca: int | None) -> str:
    """Return the factory string with whitening: a projection onto `pca` principal axes, scaled to equal variance."""
    return factory if pca is None else f"PCAW{pca},L2norm,{factory}"


def empty_vectors(dimensions: int, factory: str) -> Any:
    """Return an untrained, empty `faiss.Index` with inner-product metric.

    Raises:
        UserError: If FAISS does not know the index type.
    """
    faiss = use_faiss()
    with _faiss_errors(factory, f"vectors of {dimensions} dimensions"):
        return faiss.index_factory(dimensions, factory, faiss.METRIC_INNER_PRODUCT)


def make_vectors(
    dimensions: int, factory: str, count: int, sample: Callable[[int], Vectors], blocks: Iterator[Vectors]
) -> Any:
    """Return a `faiss.Index` with inner-product metric that holds the vectors. Only one block is in memory besides it.

    The PCA, the lists and the quantiser are trained on a sample. The same vectors on the same number of threads give
    the same bytes, except for types whose graph holds the vectors themselves (`HNSW…`).

    Args:
        dimensions: Length of a vector.
        factory: FAISS index-factory string.
        count: Number of all vectors.
        sample: Returns the given number of vectors, drawn at random.
        blocks: All vectors, in order.

    Raises:
        UserError: If FAISS does not know the index type, or cannot make it from these vectors.
    """
    vectors = empty_vectors(dimensions, factory)
    with _faiss_errors(factory, f"{count} vectors of {dimensions} dimensions"):
        if not vectors.is_trained:
            wanted = max(SAMPLE, SAMPLE_PER_LIST * _list_count(vectors))
            _train(vectors, sample(min(count, wanted)))
        add_vectors(vectors, blocks)
    _set_probed_lists(vectors)
    return vectors


def add_vectors(vectors: Any, blocks: Iterator[Vectors]) -> None:
    """Add vectors to an index."""
    use_faiss()
    for block in blocks:
        vectors.add(block)


def read_vectors(path: Path) -> Any:
    """Read a `faiss.Index` from a file whose checksum has been verified.

    Raises:
        UserError: If this version of FAISS cannot read it.
    """
    faiss = use_faiss()
    try:
        with path.open("rb") as file:  # FAISS itself takes only paths in UTF-8
            return faiss.read_index(faiss.PyCallbackIOReader(file.read))
    except RuntimeError as error:
        raise UserError(f"{path}: FAISS {faiss.__version__} cannot read it ({_reason(error)})") from None


def row_filter(vectors: Any, wanted: Bool[np.ndarray, " N"], *, effort: float) -> Any:
    """Return FAISS search parameters that restrict a search to some of the vectors.

    Args:
        vectors: A `faiss.Index`.
        wanted: Rows to search.
        effort: Factor on the number of lists or graph nodes that an approximate index visits.
    """
    faiss = use_faiss()
    if isinstance(vectors, faiss.IndexPreTransform):
        inner = row_filter(faiss.downcast_index(vectors.index), wanted, effort=effort)
        return faiss.SearchParametersPreTransform(index_params=inner)
    chosen = faiss.IDSelectorBitmap(np.packbits(wanted, bitorder="little"))
    if isinstance(vectors, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=chosen, nprobe=min(vectors.nlist, round(effort * vectors.nprobe)))
    if isinstance(vectors, faiss.IndexHNSW):
        visited = min(vectors.ntotal, round(effort * vectors.hnsw.efSearch))
        return faiss.SearchParametersHNSW(sel=chosen, efSearch=visited)
    return faiss.SearchParameters(sel=chosen)


def search_all_lists(vectors: Any, queries: Vectors, k: int, wanted: Bool[np.ndarray, " N"]) -> Any:
    """Search the wanted rows in all lists; return cosines and rows.

    The HNSW graph over the lists may not reach all of them, so the lists are given to FAISS directly.
    """
    faiss = use_faiss()
    while isinstance(vectors, faiss.IndexPreTransform):
        for number in range(vectors.chain.size()):
            queries = faiss.downcast_VectorTransform(vectors.chain.at(number)).apply(queries)
        vectors = faiss.downcast_index(vectors.index)
    only = row_filter(vectors, wanted, effort=vectors.ntotal)
    if not isinstance(vectors, faiss.IndexIVF):
        return vectors.search(queries, k, params=only)
    near = np.ascontiguousarray(queries @ vectors.quantizer.reconstruct_n(0, vectors.nlist).T)
    lists = np.tile(np.arange(vectors.nlist), (len(queries), 1))
    cosines, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    given, found = ((faiss.swig_ptr(each) for each in some) for some in ((lists, near), (cosines, rows)))
    # FAISS's Python wrapper of this function takes no search parameters.
    vectors.search_preassigned_c(len(queries), faiss.swig_ptr(queries), k, *given, *found, False, only)
    return cosines, rows


def stored_dimensions(vectors: Any) -> int:
    """Return the length of the stored vectors; after PCA it is shorter than that of the encoder's."""
    faiss = use_faiss()
    return int(faiss.downcast_index(vectors.index).d if isinstance(vectors, faiss.IndexPreTransform) else vectors.d)


def effort(vectors: Any) -> str:
    """Return a description of how much of an index a search visits."""
    faiss = use_faiss()
    if (ivf := faiss.try_extract_index_ivf(vectors)) is not None:
        return f"{ivf.nprobe} of {ivf.nlist} lists probed"
    inner = vectors.index if isinstance(vectors, faiss.IndexPreTransform) else vectors
    return "all vectors compared" if isinstance(faiss.downcast_index(inner), faiss.IndexFlat) else "FAISS's defaults"


def _ivf_factory(lists: int) -> str:
    return f"IVF{lists}_HNSW32,SQfp16"


def _list_count(vectors: Any) -> int:
    ivf = use_faiss().try_extract_index_ivf(vectors)
    return 0 if ivf is None else int(ivf.nlist)


def _set_probed_lists(vectors: Any) -> None:
    """Set how many lists a search probes; FAISS stores it with the index."""
    ivf = use_faiss().try_extract_index_ivf(vectors)
    if ivf is None:
        return
    ivf.nprobe = min(ivf.nlist, max(MIN_PROBED, round(ivf.nlist * PROBED_SHARE)))
    graph = _list_graph(ivf)
    if graph is not None:  # visit twice as many candidates as are probed, so that the nearest lists are among them
        graph.hnsw.efSearch = max(graph.hnsw.efSearch, 2 * ivf.nprobe)


def _train(vectors: Any, sample: Vectors) -> None:
    faiss = use_faiss()
    base, projected = vectors, sample
    if isinstance(vectors, faiss.IndexPreTransform):
        base = faiss.downcast_index(vectors.index)
        for number in range(vectors.chain.size()):
            transform = faiss.downcast_VectorTransform(vectors.chain.at(number))
            if isinstance(transform, faiss.PCAMatrix):
                _train_pca(transform, projected)
            elif not transform.is_trained:
                transform.train(projected)
            projected = transform.apply(projected)
    ivf = faiss.try_extract_index_ivf(base)
    graph = None if ivf is None else _list_graph(ivf)
    if graph is not None and not isinstance(base, faiss.IndexPreTransform):
        # Several threads would insert the centroids in a varying order.
        means = faiss.Clustering(ivf.d, ivf.nlist, ivf.cp)
        means.train(projected, faiss.IndexFlatL2(ivf.d))  # L2 search is faster here than inner product
        centres = faiss.vector_to_array(means.centroids).reshape(ivf.nlist, ivf.d)
        threads = torch.get_num_threads()
        faiss.omp_set_num_threads(1)
        graph.add(centres)
        faiss.omp_set_num_threads(threads)
    vectors.train(sample)


def _train_pca(pca: Any, sample: Vectors) -> None:
    if not pca.d_out <= min(pca.d_in, len(sample) - 1):
        raise UserError(
            f"--pca {pca.d_out}: {len(sample)} vectors of {pca.d_in} dimensions have at most "
            f"{min(pca.d_in, len(sample) - 1)} principal axes; give fewer"
        )
    pca.train(sample)
    variances = use_faiss().vector_to_array(pca.eigenvalues)
    rank = int((variances > RANK_TOLERANCE * variances.max()).sum())
    if rank < pca.d_out:
        raise UserError(f"--pca {pca.d_out}: these vectors vary along only {rank} axes; give at most {rank}")


def _list_graph(ivf: Any) -> Any:
    """Return the HNSW graph over an inverted file's lists; None if the lists are searched exactly."""
    faiss = use_faiss()
    quantizer = faiss.downcast_index(ivf.quantizer)
    return quantizer if isinstance(quantizer, faiss.IndexHNSW) else None


@contextmanager
def _faiss_errors(factory: str, what: str) -> Iterator[None]:
    """Turn FAISS's errors into a one-line `UserError` that names the index type."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--factory {factory}: {_reason(error)} ({what})") from None


def _reason(error: Exception) -> str:
    # FAISS prefixes its message with a file and line, and with "Error: " after a failed check
    return re.split(r"Error: |\.(?:cpp|h):\d+: ", str(error))[-1].strip() or "no reason given"

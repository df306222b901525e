"""FAISS: the kinds of index, how one is made of vectors, and how it is read. Nothing else in this room imports it.

FAISS and PyTorch each bring an OpenMP of their own. Where PyTorch is imported first, both use PyTorch's: what sets the
threads of one sets those of the other. Where FAISS comes first, each has its own pool. So FAISS is told before every
use to take as many threads as PyTorch has; the two never compute at the same time here.
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
"""Vectors that are compared one by one; more are put into inverted lists."""
SAMPLE = 50_000
"""Vectors that whatever is fitted sees, at most, unless it has many lists."""
SAMPLE_PER_LIST = 40
"""Vectors a list that its centre is fitted to; FAISS asks for 39."""
SEEN_SHARE, SEEN_LEAST = 1 / 16, 8
"""Share and least number of the lists that a search looks into."""
RANK_TOLERANCE = 1e-6
"""A direction with less than this share of the largest variance holds rounding errors alone."""

Vectors = Float32[np.ndarray, "N D"]


def use_faiss() -> Any:
    """Return the module, set to compute on as many threads as PyTorch does now."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


def default_factory(count: int) -> str:
    """Return the kind of index for so many vectors: exact, or 4·√N lists of numbers in 16 bits, found by a graph.

    In 8 bits the numbers take half the memory, and the ten nearest are told apart less well: of 250,000 vectors 97.0 %
    of them are found, in 16 bits 98.9 % (`LOG.md`).
    """
    return "Flat" if count <= EXACT_UP_TO else _listed(round(4 * count**0.5))


def approximate_factory(count: int) -> str | None:
    """Return the approximate kind of `default_factory` for vectors that may be fewer than it is taken for.

    There are as many lists, or as few as are left where each is fitted to `SAMPLE_PER_LIST` vectors; None where a
    search would look into all of them.
    """
    lists = min(round(4 * count**0.5), count // SAMPLE_PER_LIST)
    return _listed(lists) if lists > SEEN_LEAST else None


def with_whitening(factory: str, pca: int | None) -> str:
    """Return the kind that also whitens: projects onto `pca` principal axes and gives each the same variance."""
    return factory if pca is None else f"PCAW{pca},L2norm,{factory}"


def empty_vectors(dimensions: int, factory: str) -> Any:
    """Return a `faiss.Index` by inner product, not trained and with nothing in it.

    Raises:
        UserError: If FAISS knows no such kind.
    """
    faiss = use_faiss()
    with _named(factory, f"vectors of {dimensions}"):
        return faiss.index_factory(dimensions, factory, faiss.METRIC_INNER_PRODUCT)


def make_vectors(
    dimensions: int, factory: str, count: int, sample: Callable[[int], Vectors], blocks: Iterator[Vectors]
) -> Any:
    """Return a `faiss.Index` by inner product that holds the vectors; at no time are all of them in memory besides.

    What is fitted (axes, lists, ranges) is fitted to a sample. The same vectors on as many threads give the same bytes
    where no graph holds the vectors themselves (`HNSW…`).

    Args:
        dimensions: Of a vector.
        factory: FAISS's index-factory string.
        count: Of all vectors.
        sample: Returns so many of them, drawn at random.
        blocks: All of them, in order.

    Raises:
        UserError: If FAISS does not know the kind, or cannot make it of these vectors.
    """
    vectors = empty_vectors(dimensions, factory)
    with _named(factory, f"{count} vectors of {dimensions}"):
        if not vectors.is_trained:
            wanted = max(SAMPLE, SAMPLE_PER_LIST * _lists(vectors))
            _train(vectors, sample(min(count, wanted)))
        add_vectors(vectors, blocks)
    _set_effort(vectors)
    return vectors


def add_vectors(vectors: Any, blocks: Iterator[Vectors]) -> None:
    """Add vectors to an index."""
    use_faiss()
    for block in blocks:
        vectors.add(block)


def read_vectors(path: Path) -> Any:
    """Read a `faiss.Index` from a file that is known to be what was written.

    Raises:
        UserError: If this version of FAISS cannot read it.
    """
    faiss = use_faiss()
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise UserError(f"{path}: FAISS {faiss.__version__} cannot read it ({_reason(error)})") from None


def only_these(vectors: Any, wanted: Bool[np.ndarray, " N"], *, effort: float) -> Any:
    """Return what makes a search find some of the vectors alone, to be given to it as `params`.

    Args:
        vectors: A `faiss.Index`.
        wanted: Which.
        effort: Times that an approximate index looks at as much as it does without this.
    """
    faiss = use_faiss()
    if isinstance(vectors, faiss.IndexPreTransform):
        inner = only_these(faiss.downcast_index(vectors.index), wanted, effort=effort)
        return faiss.SearchParametersPreTransform(index_params=inner)
    chosen = faiss.IDSelectorBitmap(np.packbits(wanted, bitorder="little"))
    if isinstance(vectors, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=chosen, nprobe=min(vectors.nlist, round(effort * vectors.nprobe)))
    if isinstance(vectors, faiss.IndexHNSW):
        looked_at = min(vectors.ntotal, round(effort * vectors.hnsw.efSearch))
        return faiss.SearchParametersHNSW(sel=chosen, efSearch=looked_at)
    return faiss.SearchParameters(sel=chosen)


def search_all_lists(vectors: Any, queries: Vectors, k: int, wanted: Bool[np.ndarray, " N"]) -> Any:
    """Return what a search of some of the vectors in all lists finds; the graph that finds lists may lead to a part."""
    faiss = use_faiss()
    while isinstance(vectors, faiss.IndexPreTransform):
        for number in range(vectors.chain.size()):
            queries = faiss.downcast_VectorTransform(vectors.chain.at(number)).apply(queries)
        vectors = faiss.downcast_index(vectors.index)
    only = only_these(vectors, wanted, effort=vectors.ntotal)
    if not isinstance(vectors, faiss.IndexIVF):
        return vectors.search(queries, k, params=only)
    near = np.ascontiguousarray(queries @ vectors.quantizer.reconstruct_n(0, vectors.nlist).T)
    lists = np.tile(np.arange(vectors.nlist), (len(queries), 1))
    cosines, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    given, found = ((faiss.swig_ptr(each) for each in some) for some in ((lists, near), (cosines, rows)))
    # FAISS's own wrapper of this takes no parameters.
    vectors.search_preassigned_c(len(queries), faiss.swig_ptr(queries), k, *given, *found, False, only)
    return cosines, rows


def stored_dimensions(vectors: Any) -> int:
    """Return how many numbers of a vector are kept: fewer than its own where it is projected."""
    faiss = use_faiss()
    return int(faiss.downcast_index(vectors.index).d if isinstance(vectors, faiss.IndexPreTransform) else vectors.d)


def effort(vectors: Any) -> str:
    """Return in words how much of an index a search looks at."""
    ivf = use_faiss().try_extract_index_ivf(vectors)
    return "exact or by its own rule" if ivf is None else f"{ivf.nprobe} of {ivf.nlist} lists searched"


def _listed(lists: int) -> str:
    return f"IVF{lists}_HNSW32,SQfp16"


def _lists(vectors: Any) -> int:
    ivf = use_faiss().try_extract_index_ivf(vectors)
    return 0 if ivf is None else int(ivf.nlist)


def _set_effort(vectors: Any) -> None:
    """Choose how many lists are searched; it is written with the index."""
    ivf = use_faiss().try_extract_index_ivf(vectors)
    if ivf is None:
        return
    ivf.nprobe = min(ivf.nlist, max(SEEN_LEAST, round(ivf.nlist * SEEN_SHARE)))
    graph = _graph_of(ivf)
    if graph is not None:  # as many lists again are weighed as are searched, so that the nearest are among them
        graph.hnsw.efSearch = max(graph.hnsw.efSearch, 2 * ivf.nprobe)


def _train(vectors: Any, sample: Vectors) -> None:
    faiss = use_faiss()
    base, seen = vectors, sample
    if isinstance(vectors, faiss.IndexPreTransform):
        base = faiss.downcast_index(vectors.index)
        for number in range(vectors.chain.size()):
            transform = faiss.downcast_VectorTransform(vectors.chain.at(number))
            if isinstance(transform, faiss.PCAMatrix):
                _fit_axes(transform, seen)
            elif not transform.is_trained:
                transform.train(seen)
            seen = transform.apply(seen)
    ivf = faiss.try_extract_index_ivf(base)
    graph = None if ivf is None else _graph_of(ivf)
    if graph is not None and not isinstance(base, faiss.IndexPreTransform):
        # Several threads would link the centres in whatever order they come to them.
        means = faiss.Clustering(ivf.d, ivf.nlist, ivf.cp)
        means.train(seen, faiss.IndexFlatL2(ivf.d))  # FAISS finds the one nearest sooner than the one most alike
        centres = faiss.vector_to_array(means.centroids).reshape(ivf.nlist, ivf.d)
        threads = torch.get_num_threads()
        faiss.omp_set_num_threads(1)
        graph.add(centres)
        faiss.omp_set_num_threads(threads)
    vectors.train(sample)


def _fit_axes(pca: Any, sample: Vectors) -> None:
    if not pca.d_out <= min(pca.d_in, len(sample) - 1):
        raise UserError(
            f"--pca {pca.d_out}: {len(sample)} vectors of {pca.d_in} numbers have at most "
            f"{min(pca.d_in, len(sample) - 1)} principal axes; give fewer"
        )
    pca.train(sample)
    variances = use_faiss().vector_to_array(pca.eigenvalues)
    rank = int((variances > RANK_TOLERANCE * variances.max()).sum())
    if rank < pca.d_out:
        raise UserError(f"--pca {pca.d_out}: these vectors vary along {rank} axes alone; give at most {rank}")


def _graph_of(ivf: Any) -> Any:
    """Return the graph that finds an inverted file's lists; None where they are compared one by one."""
    faiss = use_faiss()
    quantizer = faiss.downcast_index(ivf.quantizer)
    return quantizer if isinstance(quantizer, faiss.IndexHNSW) else None


@contextmanager
def _named(factory: str, what: str) -> Iterator[None]:
    """Turn FAISS's errors into a line that names the kind of index."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--factory {factory}: {_reason(error)} ({what})") from None


def _reason(error: Exception) -> str:
    # FAISS puts its own file and line before its reason, and "Error: " between a check and its words.
    return re.split(r"Error: |\.(?:cpp|h):\d+: ", str(error))[-1].strip() or "FAISS gave no reason"

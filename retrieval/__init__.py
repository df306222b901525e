"""Retrieval: nearest-neighbour search over regions of pictures, and nearest-neighbour inpainting.

probes           the retrieval and nearest_fill probes
regions          which regions of a picture: grid, objects, images, contexts
patches          regions to vectors: cut, encode, pool, normalise
measures         precision, recall and average precision of a ranking; chance levels
indexing         the index on disk: build, resume, grow, open, search (FAISS)
searcher         an index with its encoder and data: search with a picture, a box or a hole
sheets           sheets of nearest neighbours
originals        the original picture behind a resized one, and its file
filling          fill holes from the nearest picture, with Poisson blending
filling_command  `python -m retrieval inpaint`
index_command    `python -m retrieval index`
search_command   `python -m retrieval search`
demo             `python -m retrieval demo`: the search page
__main__         picks the command: index, search, inpaint, demo

The package evaluates encoders and trains none; it does not import `downstream`. The public names below are imported on
first use, so `import retrieval` is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretext.system.lazy_imports import lazy_names

if TYPE_CHECKING:
    from retrieval.indexing.building import build_index
    from retrieval.indexing.index import PatchIndex
    from retrieval.patches import describe, describe_regions
    from retrieval.probes.nearest_fill import NearestFill
    from retrieval.probes.retrieval import Retrieval
    from retrieval.regions import Regions
    from retrieval.searcher import Searchable
    from retrieval.sheets import Tile, neighbour_sheet

__all__ = [
    "NearestFill",
    "PatchIndex",
    "Regions",
    "Retrieval",
    "Searchable",
    "Tile",
    "build_index",
    "describe",
    "describe_regions",
    "neighbour_sheet",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "NearestFill": "probes.nearest_fill",
        "PatchIndex": "indexing.index",
        "Regions": "regions",
        "Retrieval": "probes.retrieval",
        "Searchable": "searcher",
        "Tile": "sheets",
        "build_index": "indexing.building",
        "describe": "patches",
        "describe_regions": "patches",
        "neighbour_sheet": "sheets",
    },
)

"""Retrieval: whose features find what looks alike, and whose find what belongs in a hole.

Regions of a data set's pictures (`retrieval.regions`) become vectors (`retrieval.patches`), the vectors an index on
disk (`retrieval.indexing.building`, `retrieval.indexing.index`), a query's neighbours a picture (`retrieval.sheets`);
`retrieval.probes` says how good they are, as a number. This room judges encoders and makes none; it knows no
downstream probe.

The public names are imported when they are first asked for, so that `import retrieval` costs nothing.
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

"""Retrieval: whose features find what looks alike, and whose find what belongs in a hole.

Regions of a data set's pictures (`retrieval.regions`) become vectors (`retrieval.patches`), the vectors an index on
disk (`retrieval.indexing.building`, `retrieval.indexing.index`), a query's neighbours a picture (`retrieval.sheets`);
`retrieval.probes` says how good they are, as a number. This room judges encoders and makes none; it knows no
downstream probe.

The public names are imported when they are first asked for, so that `import retrieval` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval.indexing.building import build_index
    from retrieval.indexing.index import PatchIndex
    from retrieval.patches import describe, describe_regions
    from retrieval.regions import Regions
    from retrieval.sheets import Tile, neighbour_sheet

__all__ = [
    "PatchIndex",
    "Regions",
    "Tile",
    "build_index",
    "describe",
    "describe_regions",
    "neighbour_sheet",
]

_HOMES = {
    "PatchIndex": "index",
    "build_index": "building",
    "Regions": "regions",
    "describe": "patches",
    "describe_regions": "patches",
    "Tile": "sheets",
    "neighbour_sheet": "sheets",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

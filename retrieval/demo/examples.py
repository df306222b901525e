"""Questions for a page that has none yet: a picture and a region of the first index, drawn with a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pretext.datasets.base import BadImage
from retrieval.demo.fills import box_of, crop
from retrieval.searcher import Searchable

DRAWN = 6
"""Regions drawn for one example; the most colourful one is taken, because a plain one shows nothing."""
HOW = {"images": "whole", "contexts": "hole"}
"""How an index's own region is searched with; a box in other modes."""


def example(searchable: Searchable, seed: int, number: int) -> dict[str, Any]:
    """Return a question about a region of an index, as the page asks it; regions with a class come first.

    Args:
        searchable: The index.
        seed: Seed of all examples.
        number: Number of the example, from 0.
    """
    table = searchable.index.table
    labelled = np.flatnonzero(table["label"] >= 0)
    rng = np.random.default_rng([seed, number])
    rows = table[rng.choice(labelled if len(labelled) else len(table), DRAWN)]
    row = max(rows, key=lambda each: _colourfulness(searchable, each))
    return {
        "query": {"index": 0, "number": int(row["image"])},
        "how": HOW.get(searchable.index.manifest.regions.mode, "box"),
        "box": box_of(row),
    }


def _colourfulness(searchable: Searchable, row: Any) -> float:
    """Return how much the colours of a region vary; -1 if its picture cannot be decoded any more.

    Source: Hasler and Süsstrunk 2003, section 4 (the deviations of red-green and yellow-blue).
    """
    try:
        red, green, blue = crop(searchable.data[int(row["image"])][0], box_of(row)).float()
    except BadImage:
        return -1.0
    return float(torch.hypot((red - green).std(correction=0), ((red + green) / 2 - blue).std(correction=0)))

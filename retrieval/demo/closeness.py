"""How close a neighbour is, as a word: its cosine, beside that of two regions drawn at random from the same index.

A cosine alone says little: two arbitrary photographs have 0.87 by one encoder and 0.02 by another.
"""

from __future__ import annotations

import numpy as np

from pretext.datasets.base import BadImage
from retrieval.demo.fills import box_of
from retrieval.indexing.factory import search_all_lists
from retrieval.patches import describe_each
from retrieval.searcher import Searchable

SAMPLED, COMPARED = 256, 32
"""Regions drawn at random, and how many of them are compared with all others."""
WORDS = ((0.8, "very similar"), (0.6, "similar"), (0.3, "loosely similar"), (0.0, "hardly similar"))
"""The lowest closeness of each word, highest first."""


def random_cosine(searchable: Searchable) -> float:
    """Return the mean cosine of two regions of different pictures, drawn with a fixed seed; 0 if there are none."""
    index = searchable.index
    drawn = np.random.default_rng(0).permutation(len(index.table))[:SAMPLED]
    pictures, boxes, numbers = [], [], []
    for row in index.table[drawn[:COMPARED]]:
        try:
            pictures.append(searchable.data[int(row["image"])][0])
        except BadImage:  # only in data too large to be packed; fewer regions are enough
            continue
        boxes.append(box_of(row))
        numbers.append(row["image"])
    if not pictures:
        return 0.0
    manifest = index.manifest
    vectors = describe_each(searchable.encoder, pictures, boxes, manifest.regions, stage=manifest.stage)
    wanted = np.zeros(len(index.table), bool)
    wanted[drawn] = True
    try:
        cosines, rows = search_all_lists(index.vectors, vectors, len(drawn), wanted)
    except RuntimeError:  # an index type that cannot search a part of its rows
        return 0.0
    others = (rows >= 0) & (index.table["image"][rows] != np.array(numbers)[:, None])
    return float(cosines[others].mean()) if others.any() else 0.0


def closeness(cosine: float, random: float) -> float:
    """Return where a cosine lies between that of random regions (0) and of equal features (1), within [0, 1].

    Args:
        cosine: Cosine of a neighbour to the query.
        random: See `random_cosine`.
    """
    return min(1.0, max(0.0, (cosine - random) / max(1 - random, 1e-6)))


def word_for(close: float) -> str:
    """Return the word for a closeness in [0, 1]."""
    return next(word for low, word in WORDS if close >= low)

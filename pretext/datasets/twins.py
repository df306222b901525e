"""Equal pictures: one file under several names, links to it, copies of it, or one file that is listed twice.

Only files of equal size are read at all, and only those whose ends agree are read whole. What was found is remembered
under the files' paths, sizes and times, so that the next opening reads nothing.
"""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from pretext.datasets.base import ImageDataset
from pretext.datasets.files import FileDataset
from pretext.datasets.fingerprints import Listing, content_hashes, digest
from pretext.datasets.torchvision_sets import ArrayDataset
from pretext.system.cache import cache_folder, made_once
from pretext.system.checkpoint import atomic_write

END = 4096
"""Bytes at the end of a file that are compared first: pictures of one camera often begin alike."""


def equal_pictures(splits: Mapping[str, ImageDataset]) -> dict[str, Int[NDArray[np.int64], "N"]]:
    """Return a number for each picture of each split; equal pictures have equal numbers, also across splits.

    Without equal pictures the numbers count the pictures of all splits, one after the other. Drawn pictures, and
    data sets that hold neither files nor arrays, have no equal ones.

    Args:
        splits: Splits as a source gives them.

    Raises:
        UserError: If a file cannot be read.
    """
    ends = np.cumsum([0, *(len(part) for part in splits.values())])
    numbers = np.arange(ends[-1])
    starts = dict(zip(splits, ends[:-1].tolist(), strict=True))
    files = {name: part.images for name, part in splits.items() if isinstance(part, FileDataset)}
    places = [starts[name] + index for name, images in files.items() for index in range(len(images))]
    for group in _equal_files([path for images in files.values() for path in images]):
        numbers[[places[member] for member in group]] = places[group[0]]
    rows: dict[str, int] = {}
    for name, part in splits.items():
        if isinstance(part, ArrayDataset):
            for index, picture in enumerate(part.images):
                place = starts[name] + index
                numbers[place] = rows.setdefault(digest(picture.tobytes()), place)
    return {name: numbers[starts[name] : starts[name] + len(part)] for name, part in splits.items()}


def _equal_files(paths: Sequence[str]) -> list[list[int]]:
    """Return groups of indices of files that are equal, each in ascending order."""
    of_path: dict[str, list[int]] = defaultdict(list)
    for index, path in enumerate(paths):
        of_path[path].append(index)
    different = sorted(of_path)
    equal = _remembered(different) if len(different) > 1 else []
    joined = {different[member]: group[0] for group in equal for member in group}
    groups: dict[str | int, list[int]] = defaultdict(list)
    for path, indices in of_path.items():
        groups[joined.get(path, path)] += indices
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def _remembered(paths: Sequence[str]) -> list[list[int]]:
    """Return groups of indices of different paths whose files are equal, from the cache if nothing has changed."""
    listing = Listing(paths)
    cached = cache_folder("twins") / digest(*listing.lines)
    known = _known(cached, len(paths))
    if known is not None:
        return known
    with made_once(cached, waiting_for=str(Path(paths[0]).parent), work="hashing"):
        known = _known(cached, len(paths))  # another process may have compared them meanwhile
        if known is not None:
            return known
        listing.settle()
        groups = _found(paths, [state.st_size if state else 0 for state in listing.states])
        if listing.is_settled():
            with atomic_write(cached) as temporary:
                temporary.write_text(json.dumps(groups))
        return groups


def _known(cached: Path, count: int) -> list[list[int]] | None:
    """Return stored groups of `count` files; None if there are none, or something else stands there."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        groups: list[list[int]] = json.loads(cached.read_bytes())
        if _are_groups(groups, count):
            return groups
    return None


def _are_groups(stored: object, count: int) -> bool:
    return isinstance(stored, list) and all(
        isinstance(group, list)
        and len(group) > 1
        and all(type(member) is int and 0 <= member < count for member in group)
        for group in stored
    )


def _found(paths: Sequence[str], sizes: Sequence[int]) -> list[list[int]]:
    """Compare files by size, then by their ends, then whole; empty and absent files are equal to none."""
    groups = _finer([[index for index, size in enumerate(sizes) if size]], sizes)
    for at_most in (END, None):
        members = [member for group in groups for member in group]
        hashes = content_hashes([paths[member] for member in members], at_most)
        groups = _finer(groups, dict(zip(members, hashes, strict=True)))
    return groups


def _finer(groups: Iterable[Sequence[int]], keys: Mapping[int, object] | Sequence[object]) -> list[list[int]]:
    """Divide each group into members of equal key; those that are alone fall away."""
    found = []
    for group in groups:
        of_key: dict[object, list[int]] = defaultdict(list)
        for member in group:
            of_key[keys[member]].append(member)
        found += [members for members in of_key.values() if len(members) > 1]
    return found

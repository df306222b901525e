"""Equal pictures: one file under several names, links to it, copies of it, or one file that is listed twice.

Only files of equal size are read at all, and only those whose ends agree are read whole. What was found is remembered
under the files' paths, sizes and times, so that the next opening reads nothing.
"""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from pretext.datasets.base import ImageDataset
from pretext.datasets.files import FileDataset
from pretext.datasets.fingerprints import Listing, content_hashes, digest
from pretext.datasets.items import ItemDataset
from pretext.datasets.stores import Store, joined
from pretext.datasets.torchvision_sets import ArrayDataset
from pretext.system.cache import cache_folder, made_once
from pretext.system.checkpoint import atomic_write

END = 4096
"""Bytes at the end of a file that are compared first: pictures of one camera often begin alike."""
ContentHashes = Callable[[Sequence[int], int | None], list[bytes]]
"""Returns a hash of the bytes, or of so many at their end, of each of some pictures, which are given by their index."""


def equal_pictures(splits: Mapping[str, ImageDataset]) -> dict[str, Int[NDArray[np.int64], "N"]]:
    """Return a number for each picture of each split; equal pictures have equal numbers, also across splits.

    Without equal pictures the numbers count the pictures of all splits, one after the other. Drawn pictures, and
    data sets of other classes, have no equal ones.

    Args:
        splits: Splits as a source gives them.

    Raises:
        UserError: If a file cannot be read.
    """
    ends = np.cumsum([0, *(len(part) for part in splits.values())])
    numbers = np.arange(ends[-1])
    starts = dict(zip(splits, ends[:-1].tolist(), strict=True))
    in_files = {name: part for name, part in splits.items() if isinstance(part, FileDataset)}
    places = [starts[name] + index for name, part in in_files.items() for index in range(len(part))]
    stores = [part.store for part in in_files.values() if part.store is not None]
    paths = [path for part in in_files.values() if part.store is None for path in part.images]
    for group in _equal_stored(joined(stores)) if stores else _equal_files(paths):
        numbers[[places[member] for member in group]] = places[group[0]]
    rows: dict[str, int] = {}
    for name, part in splits.items():
        if isinstance(part, ArrayDataset):
            for index, picture in enumerate(part.images):
                place = starts[name] + index
                numbers[place] = rows.setdefault(digest(picture.tobytes()), place)
        elif isinstance(part, ItemDataset):
            for index, seen in enumerate(part.hashes):
                place = starts[name] + index
                numbers[place] = rows.setdefault(seen.hex(), place) if seen else place
    return {name: numbers[starts[name] : starts[name] + len(part)] for name, part in splits.items()}


def _equal_files(paths: Sequence[str]) -> list[list[int]]:
    """Return groups of indices of files that are equal, each in ascending order."""
    of_path: dict[str, list[int]] = defaultdict(list)
    for index, path in enumerate(paths):
        of_path[path].append(index)
    different = sorted(of_path)
    equal: list[list[int]] = []
    if len(different) > 1:
        listing = Listing(different)
        sizes = [size or 0 for size in listing.sizes]
        folder = str(Path(different[0]).parent)
        equal = _remembered(listing.lines, sizes, _hashes_of(different), listing=listing, of=folder)
    joined = {different[member]: group[0] for group in equal for member in group}
    groups: dict[str | int, list[int]] = defaultdict(list)
    for path, indices in of_path.items():
        groups[joined.get(path, path)] += indices
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def _hashes_of(paths: Sequence[str]) -> ContentHashes:
    return lambda members, at_most: content_hashes([paths[member] for member in members], at_most)


def _equal_stored(store: Store) -> list[list[int]]:
    """Return groups of indices of pictures in larger files that are equal."""
    return _remembered(
        store.identity(), store.sizes.tolist(), store.content_hashes, listing=store.listing, of=str(store.files[0])
    )


def _remembered(
    identity: Sequence[str], sizes: Sequence[int], hashes: ContentHashes, *, listing: Listing, of: str
) -> list[list[int]]:
    """Return groups of indices of equal pictures, from the cache if nothing has changed.

    Args:
        identity: Texts that change whenever a picture may have changed.
        sizes: Number of bytes of each picture.
        hashes: Hashes pictures.
        listing: The files that the pictures lie in; the groups are stored only if they are settled.
        of: What is compared, for the line that a waiting process prints.
    """
    cached = cache_folder("twins") / digest(*identity)
    known = _known(cached, len(sizes))
    if known is not None:
        return known
    with made_once(cached, waiting_for=of, work="hashing"):
        known = _known(cached, len(sizes))  # another process may have compared them meanwhile
        if known is not None:
            return known
        listing.settle()
        groups = _found(sizes, hashes)
        if listing.is_settled():
            with atomic_write(cached) as temporary:
                temporary.write_text(json.dumps(groups))
        return groups


def _known(cached: Path, count: int) -> list[list[int]] | None:
    """Return stored groups of `count` pictures; None if there are none, or something else stands there."""
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


def _found(sizes: Sequence[int], hashes: ContentHashes) -> list[list[int]]:
    """Compare pictures by size, then by their ends, then whole; empty and absent ones are equal to none."""
    groups = _finer([[index for index, size in enumerate(sizes) if size]], sizes)
    for at_most in (END, None):
        members = [member for group in groups for member in group]
        groups = _finer(groups, dict(zip(members, hashes(members, at_most), strict=True)))
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

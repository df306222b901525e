"""What the values in index masks mean: class numbers, background, pixels to ignore."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from pretext.datasets.base import IGNORE, BadImage
from pretext.datasets.decoding import decode_mask
from pretext.datasets.fingerprints import digest, digest_files
from pretext.system.cache import cache_folder
from pretext.system.checkpoint import atomic_write
from pretext.system.errors import UserError
from pretext.system.progress import counted

UNCACHED_MASKS = 50
"""Up to this number of masks, reading them is about as fast as hashing them."""


def mask_table(
    known: Sequence[str], chosen: Sequence[str], ignore: int, *, first: int = 1, hint: str = ""
) -> Int[NDArray[np.int16], "1 256"]:
    """Return the table for `MaskFiles` whose masks number the classes from `first`; if that is 1, 0 is background.

    Args:
        known: The classes, in the order of their numbers in the masks.
        chosen: The classes to keep, in the order of the target's numbers; the others become background, or are
            ignored if there is no background.
        ignore: The mask value of ignored pixels; it overrides the background or a class that is not kept.
        first: The number of the first class in the masks: 1, or 0 if there is no background.
        hint: The end of the message if `ignore` is the number of a class.

    Raises:
        UserError: If there are more than 253 classes, or `ignore` is outside 0 to 255 or the number of a kept class.
    """
    if len(known) >= IGNORE - 1:
        raise UserError(f"{len(known)} classes do not fit an 8-bit mask; at most {IGNORE - 2} are allowed")
    if not 0 <= ignore <= 255:
        raise UserError(f"ignore={ignore}; expected a mask value from 0 to 255")
    numbers = dict(enumerate(known, first))
    if numbers.get(ignore) in chosen:
        raise UserError(
            f"ignore={ignore} is the number of class {numbers[ignore]!r}, for the classes are numbered from {first}; "
            f"give a number that is no class's, or leave that class out with classes={hint}"
        )
    table = np.full(256, -1, dtype=np.int16)
    table[0] = 0
    for number, name in numbers.items():
        table[number] = chosen.index(name) + 1 if name in chosen else 0 if first else IGNORE
    table[ignore] = IGNORE
    return table[None]


def values_without_class(root: Path, files: Sequence[str], numbers: Collection[int]) -> list[int]:
    """Return the values in mask files if no file holds one of `numbers`, else an empty list.

    Masks are read up to the first with a class, which is usually the first. The values of masks without any are
    cached under the files' content. A mask that cannot be read counts as empty here; reading its item reports it.
    """
    wanted = np.zeros(256, dtype=bool)
    wanted[list(numbers)] = True
    seen = np.zeros(256, dtype=bool)
    cached: Path | None = None
    for position, file in enumerate(counted(files, "read masks", len(files), unit="file")):
        if position == UNCACHED_MASKS:
            cached = cache_folder("mask_values") / digest(digest_files(root, files), wanted.tobytes())
            if cached.is_file() and len(known := cached.read_bytes()) == 256:
                return np.flatnonzero(np.frombuffer(known, dtype=bool)).tolist()
        try:
            seen |= np.bincount(decode_mask(file).ravel(), minlength=256) > 0
        except BadImage:
            continue
        if (seen & wanted).any():
            return []
    if cached is not None:
        with atomic_write(cached) as beside:
            beside.write_bytes(seen.tobytes())
    return np.flatnonzero(seen).tolist()


def read_white(table: Int[NDArray[np.int16], "1 256"], known: Sequence[str], values: Sequence[int]) -> str | None:
    """Make 255 the only class if the masks hold 0 and 255 alone, as paint programs write them.

    Args:
        table: The table of the masks; it is changed.
        known: The classes in the masks.
        values: All values in the masks.

    Returns:
        A note on it, or None if the masks are otherwise.
    """
    if list(values) != [0, 255] or len(known) != 1 or table[0].tolist()[:2] != [0, 1] or table[0, 255] != IGNORE:
        return None
    table[0, 255] = 1
    return f"The masks hold 0 and 255 alone: 255 is read as {known[0]}, and no pixel is ignored."

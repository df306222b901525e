"""The vectors of a data set on their way into an index: computed block by block, each kept on disk once it is done.

A block is the pictures that follow the block before it, until it holds `ROWS` regions. It is one file, written beside
and renamed: a process that is killed loses the block it was at, and the next one goes on from there. As every block
is encoded by itself, the vectors do not depend on where a process was interrupted.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, UInt8
from numpy.typing import NDArray
from torch import Tensor

from pretext.datasets.base import ImageDataset
from pretext.datasets.packed import BadImages
from pretext.encoders.base import Encoder
from pretext.system.checkpoint import atomic_write
from pretext.system.errors import UserError
from retrieval.patches import described, read_regions
from retrieval.regions import PATCH, Regions

ROWS = 4096
"""Regions at which a block is full."""
PICTURES = 4096
"""Pictures at which it is full though it holds fewer regions."""
DIGEST = 16
"""Bytes by which a picture is known; all zero where it cannot be decoded."""
SEED = 0
"""Draws the sample."""
ASKED, LOCK, FINISHED, OLD = "asked.json", "lock", "finished", "old"


@dataclass(frozen=True)
class Block:
    """Consecutive pictures of a data set, and the vectors of those of their regions that are new."""

    start: int
    """The first picture's number."""
    pictures: UInt8[np.ndarray, "P 16"]
    """What each is known by: a hash of its pixels, its regions and their classes."""
    known: Int32[np.ndarray, " P"]
    """Each picture's number in the index that is added to, or -1."""
    rows: NDArray[Any]
    """The patch table of the pictures that are not known."""
    vectors: Float32[np.ndarray, "N D"]


NAMES = tuple(field.name for field in dataclasses.fields(Block))


class Known:
    """Pictures that an index holds, by what is in them. One that it holds twice can be met twice."""

    def __init__(self, pictures: UInt8[np.ndarray, "P 16"]) -> None:
        """Take what the index's pictures are known by, in the order of their numbers."""
        self._numbers: dict[bytes, list[int]] = {}
        for number in reversed(np.flatnonzero(pictures.any(axis=1))):
            self._numbers.setdefault(pictures[number].tobytes(), []).append(int(number))

    def take(self, picture: bytes) -> int:
        """Return the number of a picture that is met, each number once; -1 where there is none."""
        numbers = self._numbers.get(picture)
        return numbers.pop() if numbers else -1

    @property
    def left(self) -> int:
        """How many pictures have not been met."""
        return sum(map(len, self._numbers.values()))


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep a working folder to oneself; it is made where it is missing, and goes again if nothing was begun in it.

    Raises:
        UserError: If another process holds it, or it is something else.
    """
    if folder.exists() and not (folder.is_dir() and all(_is_ours(file.name) for file in folder.iterdir())):
        raise UserError(f"{folder} is not what this command leaves there; move it, or give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is making this index; wait for it, or stop it") from None
        try:
            yield
        finally:
            if folder.is_dir() and [file.name for file in folder.iterdir()] == [LOCK]:
                shutil.rmtree(folder)
    finally:
        os.close(descriptor)


def begin(folder: Path, asked: dict[str, Any], *, overwrite: bool) -> None:
    """Keep the blocks in a working folder if they are of what is asked for.

    Args:
        folder: Is held.
        asked: All that decides what a block holds, as JSON gives it back.
        overwrite: Remove blocks of anything else.

    Raises:
        UserError: If there are such, and they are not to be removed.
    """
    found = _read_asked(folder)
    if found is not None and found != asked and not overwrite:
        other = " and ".join(sorted(key for key in asked if found.get(key) != asked[key])) or "version"
        raise UserError(
            f"{folder} holds what was begun with another {other}; go on with that, or let --overwrite begin anew"
        )
    if found != asked:
        for file in folder.glob("*.npz"):
            file.unlink()
    with atomic_write(folder / ASKED) as beside:
        beside.write_text(json.dumps(asked, indent=2) + "\n")


def encode_blocks(
    folder: Path,
    encoder: Encoder,
    data: ImageDataset,
    regions: Regions,
    *,
    stage: str,
    bad_images: BadImages,
    known: Known,
) -> None:
    """Encode a split into blocks, from the first that the folder lacks.

    Args:
        folder: Is held, and what is asked for begun in it.
        encoder: Is run in evaluation mode and left as it was.
        data: Its pictures are square and all of one size.
        regions: Which regions, and what is read from them.
        stage: Which to read.
        bad_images: What to do about pictures that cannot be decoded.
        known: Pictures that need not be encoded; those that are met are taken from it.

    Raises:
        UserError: If a bad picture stops it.
    """
    from tqdm import tqdm

    start, number = 0, 0
    while (block := _read(_file(folder, number))) is not None and block.start == start:
        for picture, old in zip(block.pictures, block.known, strict=True):
            if old >= 0:
                known.take(picture.tobytes())
        start, number = start + len(block.pictures), number + 1
    if start:
        print(f"{folder}: goes on at picture {start + 1:,} of {len(data):,}", file=sys.stderr)
    for later in itertools.takewhile(Path.exists, (_file(folder, i) for i in itertools.count(number))):
        later.unlink()  # what follows a damaged block
    with tqdm(None, f"index {data.spec}", len(data), initial=start, delay=2, disable=None, unit="img") as bar:
        while start < len(data):
            block = _encoded(encoder, data, regions, start, stage, bad_images, known, bar)
            with atomic_write(_file(folder, number)) as beside, beside.open("wb") as file:
                np.savez(file, **{name: getattr(block, name) for name in NAMES})
            start, number = start + len(block.pictures), number + 1


def put_in_place(folder: Path, out: Path) -> None:
    """Move what was finished in a working folder to its place, and remove the working folder.

    Where a process is killed in the middle, `undo_half_a_move` brings back what was in that place.
    """
    if out.exists():
        out.rename(folder / OLD)
    (folder / FINISHED).rename(out)
    (folder / ASKED).unlink()  # from here on the blocks count for nothing
    shutil.rmtree(folder)


def undo_half_a_move(folder: Path, out: Path) -> None:
    """Put back what a killed process had moved aside; remove what it had not moved yet, or did not need any more."""
    if (folder / OLD).is_dir() and not out.exists():
        (folder / OLD).rename(out)
    for remains in (folder / OLD, folder / FINISHED):
        if remains.is_dir():
            shutil.rmtree(remains)


def blocks_in(folder: Path) -> Iterator[Block]:
    """Yield the finished blocks, in order.

    Raises:
        OSError: If one has been damaged since it was written.
    """
    for number in itertools.count():
        file = _file(folder, number)
        if not file.exists():
            return
        block = _read(file)
        if block is None:
            raise OSError(5, "was changed after it was written, or the disk is not sound", str(file))
        yield block


def drawn_vectors(folder: Path, total: int, count: int) -> Float32[np.ndarray, "N D"]:
    """Return vectors of the finished blocks, drawn at random by a fixed seed.

    Args:
        folder: Of the blocks.
        total: How many vectors they hold.
        count: How many are wanted, `total` at most.
    """
    chosen = np.sort(np.random.default_rng(SEED).choice(total, count, replace=False, shuffle=False))
    parts, before = [], 0
    for block in blocks_in(folder):
        here = chosen[(chosen >= before) & (chosen < before + len(block.rows))] - before
        parts.append(block.vectors[here] if len(here) else block.vectors[:0])
        before += len(block.rows)
    return np.concatenate([part for part in parts if len(part)])


def _encoded(
    encoder: Encoder,
    data: ImageDataset,
    regions: Regions,
    start: int,
    stage: str,
    bad_images: BadImages,
    known: Known,
    bar: Any,
) -> Block:
    pictures: list[bytes] = []
    numbers: list[int] = []

    def new() -> Iterator[tuple[Tensor, NDArray[Any]]]:
        rows = 0
        while rows < ROWS and len(pictures) < PICTURES and start + len(pictures) < len(data):
            read = read_regions(data, start + len(pictures), regions, bad_images)
            pictures.append(bytes(DIGEST) if read is None else _digest(*read))
            numbers.append(known.take(pictures[-1]))
            bar.update()
            if read is not None and numbers[-1] < 0:
                rows += len(read[1])
                yield read

    found = list(described(encoder, new(), regions, [stage]))
    return Block(
        start,
        np.frombuffer(b"".join(pictures), np.uint8).reshape(-1, DIGEST),
        np.array(numbers, np.int32),
        np.concatenate([np.empty(0, PATCH), *(rows for _, rows in found)]),
        np.concatenate([vectors[stage] for vectors, _ in found]) if found else np.empty((0, 0), np.float32),
    )


def _digest(image: UInt8[Tensor, "3 S S"], rows: NDArray[Any]) -> bytes:
    anywhere = rows.copy()
    anywhere["image"] = 0  # the same picture may have another number in a data set that has grown
    state = hashlib.blake2b(image.contiguous().numpy().tobytes(), digest_size=DIGEST)
    state.update(anywhere.tobytes())
    return state.digest()


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:06}.npz"


def _read(file: Path) -> Block | None:
    """Return a block; None where there is none or it is not what was written, by the archive's own checksums."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            start, *arrays = (stored[name] for name in NAMES)
        return Block(int(start), *arrays)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error):
        return None


def _read_asked(folder: Path) -> Any:
    try:
        return json.loads((folder / ASKED).read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}


def _is_ours(name: str) -> bool:
    return name in (ASKED, LOCK, FINISHED, OLD) or re.fullmatch(r"\d{6}\.npz|\..*\.tmp", name) is not None

"""The working folder of an index build: vectors are computed block by block, and each finished block is a file.

A block holds consecutive pictures, as many as give `ROWS` regions. Its file is written under a temporary name and
renamed. A killed process loses only its current block; the next process continues from there. Each block is encoded
on its own, so the vectors do not depend on where a process was interrupted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
from pretext.system.locks import lock_folder
from pretext.system.progress import progress_bar
from retrieval.patches import describe_batches, read_regions
from retrieval.regions import PATCH, Regions

ROWS = 4096
"""A block is full at this many regions."""
PICTURES = 4096
"""A block is also full at this many pictures."""
DIGEST = 16
"""Bytes of a picture's hash; all zero for a picture that cannot be decoded."""
SEED = 0
"""Seed of the training sample."""
SETTINGS, LOCK, FINISHED, OLD = "asked.json", "lock", "finished", "old"


@dataclass(frozen=True)
class Block:
    """Consecutive pictures of a data set, and the vectors of their regions that the index lacks."""

    start: int
    """Number of the first picture."""
    pictures: UInt8[np.ndarray, "P 16"]
    """Hash of each picture's pixels, regions and classes."""
    known: Int32[np.ndarray, " P"]
    """Each picture's number in the existing index, or -1 if it is new."""
    rows: NDArray[Any]
    """Patch table of the new pictures."""
    vectors: Float32[np.ndarray, "N D"]


NAMES = tuple(field.name for field in dataclasses.fields(Block))


class KnownPictures:
    """The pictures of an existing index by their hash. A picture that occurs twice can be matched twice."""

    def __init__(self, pictures: UInt8[np.ndarray, "P 16"]) -> None:
        """Take the hashes of the index's pictures, in the order of their numbers."""
        self._numbers: dict[bytes, list[int]] = {}
        for number in reversed(np.flatnonzero(pictures.any(axis=1))):
            self._numbers.setdefault(pictures[number].tobytes(), []).append(int(number))

    def match(self, picture: bytes) -> int:
        """Return the number of a known picture and remove it; -1 if the picture is not known."""
        numbers = self._numbers.get(picture)
        return numbers.pop() if numbers else -1

    @property
    def unmatched(self) -> int:
        """Number of known pictures that have not been matched."""
        return sum(map(len, self._numbers.values()))


def working_folder(out: Path) -> Path:
    """Return the folder in which the index `out` is built."""
    return Path(f"{out}.blocks")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create a working folder and lock it; at the end remove it if it holds nothing but the lock.

    Raises:
        UserError: If another process holds the lock, or the folder holds other files.
    """
    if folder.exists() and not (folder.is_dir() and all(_is_working_file(file.name) for file in folder.iterdir())):
        raise UserError(f"{folder} holds files that this command did not write; move it, or give another --out")
    with lock_folder(folder, LOCK) as held:
        if not held:
            raise UserError(f"{folder}: another process is making this index; wait for it, or stop it")
        yield


def discard(folder: Path) -> None:
    """Remove everything but the lock from a locked working folder."""
    (folder / SETTINGS).unlink(missing_ok=True)  # first: without it no block is used again
    for file in folder.iterdir():
        if file.is_dir():
            shutil.rmtree(file)
        elif file.name != LOCK:
            file.unlink()


def start_blocks(folder: Path, settings: dict[str, Any], *, overwrite: bool) -> None:
    """Keep the blocks of a locked working folder if they were made with these settings.

    Args:
        folder: The locked working folder.
        settings: Everything that determines the content of a block, in JSON types.
        overwrite: Remove blocks that were made with other settings.

    Raises:
        UserError: If there are blocks made with other settings, and `overwrite` is False.
    """
    found = _read_settings(folder)
    if found is not None and found != settings and not overwrite:
        other = " and ".join(sorted(key for key in settings if found.get(key) != settings[key])) or "version"
        raise UserError(
            f"{folder} holds a build that was begun with another {other}; "
            "repeat the first command, or start again with --overwrite"
        )
    if found != settings:
        for file in folder.glob("*.npz"):
            file.unlink()
    with atomic_write(folder / SETTINGS) as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n")


def encode_blocks(
    folder: Path,
    encoder: Encoder,
    data: ImageDataset,
    regions: Regions,
    *,
    stage: str,
    bad_images: BadImages,
    known: KnownPictures,
) -> None:
    """Encode a split into blocks, from the first block that the folder lacks.

    Args:
        folder: The locked working folder, after `start_blocks`.
        encoder: Runs in evaluation mode; its state is restored.
        data: A split whose pictures are square and have one size.
        regions: Which regions to encode, and how to pool their maps.
        stage: Encoder stage to read.
        bad_images: What to do with pictures that cannot be decoded.
        known: Pictures that need no encoding; each match is removed from it.

    Raises:
        UserError: If a picture cannot be decoded and `bad_images` is `stop`.
    """
    start, number = 0, 0
    while (block := _read_block(_block_file(folder, number))) is not None and block.start == start:
        for picture, old in zip(block.pictures, block.known, strict=True):
            if old >= 0:
                known.match(picture.tobytes())
        start, number = start + len(block.pictures), number + 1
    if start:
        print(f"{folder}: continues at picture {start + 1:,} of {len(data):,}", file=sys.stderr)
    for later in itertools.takewhile(Path.exists, (_block_file(folder, i) for i in itertools.count(number))):
        later.unlink()  # blocks after a damaged one
    with progress_bar(f"index {data.spec}", len(data), initial=start, unit="img", leave=True) as bar:
        while start < len(data):
            block = _encode_block(encoder, data, regions, start, stage, bad_images, known, bar)
            with atomic_write(_block_file(folder, number)) as temporary, temporary.open("wb") as file:
                np.savez(file, **{name: getattr(block, name) for name in NAMES})
            start, number = start + len(block.pictures), number + 1


def move_into_place(folder: Path, out: Path) -> None:
    """Move the finished index out of its working folder, and empty the folder.

    From the moment the settings are gone the new index counts; until then the old one does. `recover_interrupted_move`
    completes the one or takes back the other.
    """
    if out.exists():
        out.rename(folder / OLD)
    (folder / SETTINGS).unlink()
    (folder / FINISHED).rename(out)
    discard(folder)


def recover_interrupted_move(folder: Path, out: Path) -> None:
    """Complete a move that was cut off, or take it back; blocks stay for the next build if their settings are there."""
    finished = not (folder / SETTINGS).exists()
    whole = folder / (FINISHED if finished else OLD)
    if whole.is_dir() and not out.exists():
        whole.rename(out)
    for leftover in (folder / OLD, folder / FINISHED):
        if leftover.is_dir():
            shutil.rmtree(leftover)
    if finished:
        discard(folder)


def recover(out: Path) -> None:
    """Do `recover_interrupted_move` for an index, unless a process is making it or its folder cannot be written."""
    folder = working_folder(out)
    with suppress(UserError, OSError):
        if folder.is_dir():
            with locked(folder):
                recover_interrupted_move(folder, out)


def read_blocks(folder: Path) -> Iterator[Block]:
    """Yield the finished blocks, in order.

    Raises:
        OSError: If a block has been damaged since it was written.
    """
    for number in itertools.count():
        file = _block_file(folder, number)
        if not file.exists():
            return
        block = _read_block(file)
        if block is None:
            raise OSError(5, "the block was changed after it was written, or the disk is faulty", str(file))
        yield block


def sample_vectors(folder: Path, total: int, count: int) -> Float32[np.ndarray, "N D"]:
    """Return a random sample of the finished blocks' vectors, drawn with a fixed seed.

    Args:
        folder: The working folder.
        total: Number of vectors in all blocks.
        count: Size of the sample, at most `total`.
    """
    chosen = np.sort(np.random.default_rng(SEED).choice(total, count, replace=False, shuffle=False))
    parts, before = [], 0
    for block in read_blocks(folder):
        here = chosen[(chosen >= before) & (chosen < before + len(block.rows))] - before
        parts.append(block.vectors[here] if len(here) else block.vectors[:0])
        before += len(block.rows)
    return np.concatenate([part for part in parts if len(part)])


def _encode_block(
    encoder: Encoder,
    data: ImageDataset,
    regions: Regions,
    start: int,
    stage: str,
    bad_images: BadImages,
    known: KnownPictures,
    bar: Any,
) -> Block:
    pictures: list[bytes] = []
    numbers: list[int] = []

    def new_pictures() -> Iterator[tuple[Tensor, NDArray[Any]]]:
        rows = 0
        while rows < ROWS and len(pictures) < PICTURES and start + len(pictures) < len(data):
            read = read_regions(data, start + len(pictures), regions, bad_images)
            pictures.append(bytes(DIGEST) if read is None else _picture_hash(*read))
            numbers.append(known.match(pictures[-1]))
            bar.update()
            if read is not None and numbers[-1] < 0:
                rows += len(read[1])
                yield read

    batches = list(describe_batches(encoder, new_pictures(), regions, [stage]))
    return Block(
        start,
        np.frombuffer(b"".join(pictures), np.uint8).reshape(-1, DIGEST),
        np.array(numbers, np.int32),
        np.concatenate([np.empty(0, PATCH), *(rows for _, rows in batches)]),
        np.concatenate([vectors[stage] for vectors, _ in batches]) if batches else np.empty((0, 0), np.float32),
    )


def _picture_hash(image: UInt8[Tensor, "3 S S"], rows: NDArray[Any]) -> bytes:
    numberless = rows.copy()
    numberless["image"] = 0  # a picture's number can change when the data set grows
    state = hashlib.blake2b(image.contiguous().numpy().tobytes(), digest_size=DIGEST)
    state.update(numberless.tobytes())
    return state.digest()


def _block_file(folder: Path, number: int) -> Path:
    return folder / f"{number:06}.npz"


def _read_block(file: Path) -> Block | None:
    """Return a block; None if it is missing or fails the archive's checksums."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            start, *arrays = (stored[name] for name in NAMES)
        return Block(int(start), *arrays)
    except Exception:  # of every kind, because the bytes can be anything
        return None


def _read_settings(folder: Path) -> Any:
    try:
        return json.loads((folder / SETTINGS).read_text())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return {}


def _is_working_file(name: str) -> bool:
    return name in (SETTINGS, LOCK, FINISHED, OLD) or re.fullmatch(r"\d{6}\.npz|\..*\.tmp", name) is not None

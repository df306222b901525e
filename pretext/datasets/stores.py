"""Pictures inside larger files, such as the shards of a tar archive: where each one lies, read by its offset.

A picture is one `pread`, in any order and in any process. Nothing of a file but the pictures that are asked for is
read.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from pretext.datasets.fingerprints import Listing, digest, hashed, remembered_hash
from pretext.system.errors import UserError

MOST_OPEN = 32
"""Number of files that a process keeps open."""


@final
class StoredFile(io.BytesIO):
    """The bytes of one picture. As text it says where they lie, which error messages repeat."""

    def __init__(self, content: bytes, where: str) -> None:
        """Hold the bytes of the picture that lies at `where`."""
        super().__init__(content)
        self.where = where

    def __str__(self) -> str:
        return self.where


@final
class Store:
    """Where the pictures of one split lie.

    Attributes:
        files: The larger files.
        file_of: The number in `files` of each picture's file.
        offsets: The place of each picture's first byte in its file.
        sizes: Number of bytes of each picture; 0 if it is missing.
        names: The name of each picture; no two are equal.
    """

    def __init__(
        self,
        files: Sequence[str],
        names: Sequence[str],
        *,
        file_of: Int[NDArray[np.int64], "N"],
        offsets: Int[NDArray[np.int64], "N"],
        sizes: Int[NDArray[np.int64], "N"],
        called: Sequence[str] = (),
    ) -> None:
        """Store where the pictures lie.

        Args:
            files: The larger files.
            names: The name of each picture.
            file_of: The number in `files` of each picture's file.
            offsets: The place of each picture's first byte.
            sizes: Number of bytes of each picture.
            called: What messages call each of the files; their paths if empty.

        Raises:
            UserError: If the state of a file cannot be read.
        """
        self.files, self.names, self.file_of, self.offsets, self.sizes = files, names, file_of, offsets, sizes
        self._called = called or files
        self.listing = Listing(files)

    def __len__(self) -> int:
        return len(self.names)

    def open(self, index: int) -> StoredFile:
        """Return the bytes of a picture as an open file.

        Raises:
            UserError: If the larger file cannot be read, or has become shorter.
        """
        return StoredFile(self._bytes(index), self.where(index))

    def where(self, index: int) -> str:
        """Return the file and the name of a picture, for messages."""
        return f"{self._called[self.file_of[index]]}: {self.names[index]}"

    def identity(self) -> list[str]:
        """Return texts that change whenever a picture, its name or its place may have changed."""
        places = [array.astype("<i8").tobytes() for array in (self.file_of, self.offsets, self.sizes)]
        return [*self.listing.lines, digest(*self.names), digest(*places)]

    def content_hashes(self, rows: Sequence[int], at_most: int | None = None) -> list[bytes]:
        """Return a hash of each picture's bytes.

        Args:
            rows: The pictures.
            at_most: Number of bytes at the end that are hashed; None hashes all.
        """
        chosen = np.asarray(rows, dtype=np.int64)
        in_order = np.lexsort((self.offsets[chosen], self.file_of[chosen]))  # a disk reads forwards
        hashes = [b""] * len(rows)
        found = hashed(functools.partial(self._hash, at_most=at_most), chosen[in_order].tolist(), unit="img")
        for place, each in zip(in_order.tolist(), found, strict=True):
            hashes[place] = each
        return hashes

    def digest(self) -> str:
        """Return the hash that `digest_files` gives for the same pictures as files of these names."""

        def compute() -> str:
            rows = sorted(range(len(self)), key=self.names.__getitem__)
            parts: list[str | bytes] = []
            for row, content in zip(rows, self.content_hashes(rows), strict=True):
                parts += [self.names[row], content]
            return digest(*parts)

        key = digest("store", *self.identity())
        return remembered_hash(key, compute, listing=self.listing, of=str(self.files[0]))

    def _hash(self, row: int, at_most: int | None) -> bytes:
        return hashlib.blake2b(self._bytes(row, at_most), digest_size=16).digest()

    def _bytes(self, row: int, at_most: int | None = None) -> bytes:
        """Return the bytes of a picture, or at most so many at their end."""
        number, size = int(self.file_of[row]), int(self.sizes[row])
        count = size if at_most is None else min(size, at_most)
        try:
            opened = _opened(self.files[number], self.listing.lines[number])
            content = os.pread(opened.descriptor, count, int(self.offsets[row]) + size - count)
        except OSError as error:
            raise UserError(f"{self.files[number]}: {error.strerror}") from None
        if len(content) < count:
            raise UserError(f"{self.files[number]}: has become shorter since it was opened; run the same command again")
        return content


def joined(stores: Sequence[Store]) -> Store:
    """Return the pictures of several stores as one, one after the other; their names need not differ."""
    starts = np.cumsum([0, *(len(store.files) for store in stores)])
    return Store(
        [file for store in stores for file in store.files],
        [name for store in stores for name in store.names],
        file_of=np.concatenate([store.file_of + start for store, start in zip(stores, starts, strict=False)]),
        offsets=np.concatenate([store.offsets for store in stores]),
        sizes=np.concatenate([store.sizes for store in stores]),
    )


class _Opened:
    """An open file, closed when nobody holds it any longer."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):  # else it could not be opened
            os.close(self.descriptor)


@functools.lru_cache(maxsize=MOST_OPEN)
def _opened(path: str, state: str) -> _Opened:
    """Return an open file; `state` tells a file from one that lay there before it."""
    return _Opened(path)

"""Content hashes of many files, cached so that reopening a data set only lists its files.

Of several processes that open the same files at once, one hashes them and the others wait for the result.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import itertools
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pretext.system.cache import cache_folder, made_once
from pretext.system.checkpoint import atomic_write
from pretext.system.distributed import launched
from pretext.system.errors import UserError
from pretext.system.progress import counted, progress_bar

Source = TypeVar("Source")
SETTLED_NS = 2_000_000_000
"""Age in nanoseconds from which a file's hash is cached. A younger file could change again within one tick of the
file system's clock."""

GROUP, GROUPS = 64, 64
"""Number of files that a thread takes at once, and of such groups that wait: starting one takes as long as hashing
three small files, and each that waits takes memory."""
AT_A_TIME = 2**20
"""Bytes that are read at a time."""


def digest(*parts: str | bytes) -> str:
    """Return a hash of the parts, sensitive to their boundaries, as 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def digest_files(root: Path, files: Iterable[str]) -> str:
    """Return a hash of the files' paths relative to `root` and of their contents.

    The hash is cached under the files' paths, sizes and modification times, so a second call reads no contents.

    A path without a regular file, such as a dangling link or a named pipe, counts as a file of no content that is not
    an empty one: its picture is reported where it is decoded.

    Args:
        root: The folder that paths are relative to; moving the folder does not change the hash.
        files: Paths, in any order.

    Raises:
        UserError: If a file cannot be read, or the cache folder cannot be written.
    """
    paths = sorted(set(files))
    listing = Listing(paths)

    def compute() -> str:
        present = [size is not None for size in listing.sizes]
        contents = iter(content_hashes([*itertools.compress(paths, present)]))
        parts: list[str | bytes] = []
        for path, is_there in zip(paths, present, strict=True):
            parts += [os.path.relpath(path, root), next(contents) if is_there else b""]
        return digest(*parts)

    return remembered_hash(digest(str(root), *listing.lines), compute, listing=listing, of=str(root))


def remembered_hash(key: str, compute: Callable[[], str], *, listing: Listing, of: str) -> str:
    """Return a hash from the cache, or compute it and store it there.

    Args:
        key: Its name in the cache, a hash of all that it depends on.
        compute: Computes it, as 32 hexadecimal digits.
        listing: The files that it is computed from; it is stored only if they are settled.
        of: What is hashed, for the line that a waiting process prints.
    """
    cached = cache_folder("fingerprints") / key
    known = _known(cached)
    if known is not None:
        return known
    with made_once(cached, waiting_for=of, work="hashing"):
        known = _known(cached)  # another process may have computed it meanwhile
        if known is not None:
            return known
        listing.settle()
        result = compute()
        if listing.is_settled():
            with atomic_write(cached) as temporary:
                temporary.write_text(result)
        return result


class Listing:
    """The sizes and times of files, by which what was computed from their contents is remembered.

    Attributes:
        sizes: Number of bytes of each file; None if there is no regular file at the path.
        lines: A line for each file that changes whenever its path, size or times do.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        """Look at the files.

        Raises:
            UserError: If a file's state cannot be read.
        """
        self.sizes: list[int | None] = []
        self.lines: list[str] = []
        self._newest = 0
        for path in counted(paths, "look at files", len(paths), unit="file"):
            try:
                state = _regular(path)
            except OSError as error:
                raise UserError(f"{error.filename}: {error.strerror}") from None
            whole = os.path.abspath(path)  # noqa: PTH100 - a million of them
            if state is None:
                self.sizes.append(None)
                self.lines.append(f"{whole}\0absent")
                continue
            self.sizes.append(state.st_size)
            self.lines.append(f"{whole}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}")
            self._newest = max(self._newest, state.st_mtime_ns, state.st_ctime_ns)

    def is_settled(self) -> bool:
        """Whether every file is old enough for a change from now on to change its line."""
        return self._age() > SETTLED_NS

    def settle(self) -> None:
        """Wait, where several processes train together, until `is_settled`: they share what is cached."""
        lacking = SETTLED_NS - self._age()
        if launched() > 1 and 0 <= lacking <= SETTLED_NS:  # a time in the future is not waited for
            time.sleep(lacking / 1e9 + 0.001)

    def _age(self) -> int:
        return time.time_ns() - self._newest


def content_hashes(paths: Sequence[str], at_most: int | None = None) -> list[bytes]:
    """Return a hash of each file's content.

    Args:
        paths: Regular files.
        at_most: Number of bytes at the end that are hashed; None hashes the whole file.

    Raises:
        UserError: If a file cannot be read.
    """
    try:
        return list(hashed(functools.partial(_content, at_most=at_most), paths, unit="file"))
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None


def hashed(compute: Callable[[Source], bytes], sources: Sequence[Source], *, unit: str) -> Iterator[bytes]:
    """Yield the hash of each source, in order; threads compute them.

    Args:
        compute: Returns the hash of one source.
        sources: What is hashed.
        unit: What the progress bar counts.
    """
    groups = [sources[start : start + GROUP] for start in range(0, len(sources), GROUP)]
    bar = progress_bar("fingerprint", len(sources), unit=unit)
    with bar, ThreadPoolExecutor(max_workers=8) as pool:
        for start in range(0, len(groups), GROUPS):
            for hashes in pool.map(lambda group: [*map(compute, group)], groups[start : start + GROUPS]):
                yield from hashes
                bar.update(len(hashes))


def _regular(path: str) -> os.stat_result | None:
    """Return the state of a regular file, or None if there is none at the path."""
    try:
        state = os.stat(path)  # noqa: PTH116 - a million Path objects are slow
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    except ValueError:  # no path can hold a null character or a lone surrogate
        return None
    return state if stat.S_ISREG(state.st_mode) else None


def _known(cached: Path) -> str | None:
    """Return a stored hash; None if there is none, or something else stands there."""
    with contextlib.suppress(FileNotFoundError):
        found = re.fullmatch(rb"[0-9a-f]{32}", cached.read_bytes())
        return found[0].decode() if found else None
    return None


def _content(path: str, at_most: int | None) -> bytes:
    state = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a million Path objects are slow
            if at_most is not None:
                file.seek(max(0, file.seek(0, os.SEEK_END) - at_most))
            while part := file.read(AT_A_TIME):
                state.update(part)
    except OSError as error:  # an error while reading names no file
        raise OSError(error.errno, error.strerror or str(error), path) from error
    return state.digest()

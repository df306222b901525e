"""Content hashes of many files, cached so that reopening a data set only lists its files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pretext.system.cache import cache_folder
from pretext.system.checkpoint import atomic_write
from pretext.system.errors import UserError

SETTLED_NS = 2_000_000_000
"""Age in nanoseconds from which a file's hash is cached. A younger file could change again within one tick of the
file system's clock."""


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
    names = [os.path.relpath(path, root) for path in paths]
    try:
        found = [_regular(path) for path in paths]
        listing = [
            f"{path}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}" if state else f"{path}\0absent"
            for path, state in zip(map(os.path.abspath, paths), found, strict=True)
        ]
        cached = cache_folder("fingerprints") / digest(str(root), *listing)
        known = _known(cached)
        if known is not None:
            return known
        contents = iter(_contents([path for path, state in zip(paths, found, strict=True) if state]))
        parts = [(name, next(contents) if state else b"") for name, state in zip(names, found, strict=True)]
        result = digest(*(part for pair in parts for part in pair))
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None
    newest = max((max(state.st_mtime_ns, state.st_ctime_ns) for state in found if state), default=0)
    if time.time_ns() - newest > SETTLED_NS:
        with atomic_write(cached) as temporary:
            temporary.write_text(result)
    return result


def _regular(path: str) -> os.stat_result | None:
    """Return the state of a regular file, or None if there is none at the path."""
    try:
        state = Path(path).stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    return state if stat.S_ISREG(state.st_mode) else None


def _known(cached: Path) -> str | None:
    """Return a stored hash; None if there is none, or something else stands there."""
    with contextlib.suppress(FileNotFoundError):
        found = re.fullmatch(rb"[0-9a-f]{32}", cached.read_bytes())
        return found[0].decode() if found else None
    return None


def _contents(paths: Sequence[str]) -> list[bytes]:
    from tqdm import tqdm

    with ThreadPoolExecutor(max_workers=8) as pool:
        hashes = pool.map(_content, paths)
        return list(tqdm(hashes, "fingerprint", len(paths), delay=3, disable=None, leave=False, unit="file"))


def _content(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError as error:  # an error while reading names no file
        raise OSError(error.errno, error.strerror or str(error), path) from error

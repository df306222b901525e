"""One lock file per cell, so that several `run_all` can share a results folder.

The operating system frees the lock of a process that dies.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout, lock_descriptor

WAIT_S = 0.2
"""Seconds to wait for a lock: longer than `is_locked` holds it, so that a look at a free lock never blocks a run."""
LOOKS = 3
"""Attempts before a lock counts as held: another `is_locked` may hold it for an instant."""


@contextmanager
def cell_lock(out: Path, cell: str) -> Iterator[bool]:
    """Hold a cell's lock; yield False if another process holds it.

    Raises:
        OSError: If the lock file cannot be written, or its file system has no locks.
    """
    path = _path(out, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The fallback is a marker file, which outlives a process that dies on another host.
    lock = FileLock(path, timeout=WAIT_S, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_locked(out: Path, cell: str) -> bool:
    """Whether a process is computing a cell now; the lock file may be read-only."""
    try:
        descriptor = os.open(_path(out, cell), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        for look in range(LOOKS):
            time.sleep(0.01 * look)
            if lock_descriptor(descriptor, blocking=False):
                return False
        return True
    finally:
        os.close(descriptor)  # also frees the lock


def _path(out: Path, cell: str) -> Path:
    return out / ".locks" / f"{cell}.lock"

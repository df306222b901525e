"""One lock file per cell, so that several `run_all` can share a results folder."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from pretext.system import locks

WAIT_S = 0.2
"""Seconds to wait for a lock: longer than `is_locked` holds it, so that a look at a free lock never blocks a run."""


def cell_lock(out: Path, cell: str) -> AbstractContextManager[bool]:
    """Hold a cell's lock; yield False if another process holds it.

    Raises:
        OSError: If the lock file cannot be written, or its file system has no locks.
    """
    path = _path(out, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    return locks.lock_file(path, wait_s=WAIT_S)


def is_locked(out: Path, cell: str) -> bool:
    """Whether a process is computing a cell now."""
    return locks.is_locked(_path(out, cell))


def _path(out: Path, cell: str) -> Path:
    return out / ".locks" / f"{cell}.lock"

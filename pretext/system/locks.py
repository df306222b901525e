"""A folder that one process at a time writes to.

The operating system frees the lock of a process that dies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"


@contextmanager
def lock_folder(folder: Path) -> Iterator[bool]:
    """Create and lock a folder; yield False if another process holds it.

    The lock file stays: to remove it is a race with the next process. A folder that holds nothing else is removed.

    Raises:
        OSError: If the folder cannot be written, or its file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # a soft lock outlives a dead process
    lock = FileLock(folder / LOCK, timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except (Timeout, FileNotFoundError):  # the other process has just removed the folder
        yield False
        return
    try:
        yield True
    finally:
        if folder.is_dir() and [file.name for file in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
            with suppress(OSError):  # the next process has already put its own lock there
                folder.rmdir()
        lock.release()

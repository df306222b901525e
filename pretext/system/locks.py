"""Locks between processes: of a file, and of a folder that one process at a time writes to.

The operating system frees the lock of a process that dies.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout, lock_descriptor

LOCK = ".lock"
LOOKS = 3
"""Attempts before a lock counts as held: another `is_locked` may hold it for an instant."""


@contextmanager
def lock_file(path: Path, *, wait_s: float | None = 0) -> Iterator[bool]:
    """Hold the lock of a file; yield False if another process holds it.

    The file is made if it is missing, and stays. Who holds the lock may delete the file as its last step: a process
    that waits with the deleted file open makes a new one.

    Args:
        path: The file.
        wait_s: Seconds to wait for another process; None waits until it is done.

    Raises:
        OSError: If the file cannot be written, or its file system has no locks.
    """
    # a soft lock outlives a dead process
    lock = FileLock(path, timeout=-1 if wait_s is None else wait_s, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file now; the file may be read-only."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
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


@contextmanager
def lock_folder(folder: Path, name: str = LOCK) -> Iterator[bool]:
    """Create and lock a folder; yield False if another process holds it.

    At the end a folder that holds nothing but the lock file is removed; else the file stays.

    Args:
        folder: The folder.
        name: Name of the lock file in it.

    Raises:
        OSError: If the folder cannot be written, or its file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            held = stack.enter_context(lock_file(folder / name))
        except FileNotFoundError:  # the other process has just removed the folder
            held = False
        try:
            yield held
        finally:
            if held and folder.is_dir() and [file.name for file in folder.iterdir()] == [name]:
                (folder / name).unlink()
                with suppress(OSError):  # the next process has already put its own lock there
                    folder.rmdir()

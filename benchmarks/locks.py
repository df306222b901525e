"""One lock a cell, so that several `run_all` can share a folder. The system frees a dead process's lock."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def cell_lock(out: Path, cell: str) -> Iterator[bool]:
    """Hold a cell's lock; yield False, at once, where somebody else holds it.

    The file stays: removing it would let two processes hold two locks of one name.
    """
    path = _path(out, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        yield True
    finally:
        os.close(descriptor)


def is_locked(out: Path, cell: str) -> bool:
    """Whether somebody is computing a cell now."""
    try:
        descriptor = os.open(_path(out, cell), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _path(out: Path, cell: str) -> Path:
    return out / ".locks" / f"{cell}.lock"

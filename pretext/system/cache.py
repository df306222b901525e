"""The cache folder on disk, the size limits of what is kept there, and entries that one process builds for all.

Such an entry is a folder or a file whose name is a hash. Who builds it holds its lock. The operating system frees the
lock of a dead process, so a temporary folder whose lock is free was left by one and may be deleted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pretext.system.errors import UserError
from pretext.system.locks import lock_file
from pretext.system.specs import path_of

NOTICE_S = 2
"""Seconds after which a process says that it waits for another one."""
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
"""Errors of a file system without locks: there several processes may build the same entry, and the first one counts."""


def cache_folder(purpose: str) -> Path:
    """Return the folder for `purpose` below `$PRETEXT_CACHE` (`~/.cache/pretext-bench` where unset); make it.

    Raises:
        UserError: If it cannot be made or written.
    """
    root = path_of(os.environ.get("PRETEXT_CACHE") or "~/.cache/pretext-bench")
    folder = root / purpose
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(root, error.strerror) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unusable(root, "not writable")
    return folder


def size_limit_gb(variable: str, default: float) -> float:
    """Return a size limit in gigabytes (10⁹ bytes) from an environment variable, or `default` where it is unset.

    Raises:
        UserError: If the variable does not hold a number.
    """
    text = os.environ.get(variable)
    try:
        return default if text is None else float(text)
    except ValueError:
        raise UserError(f"{variable}={text}: expected a number of gigabytes") from None


@contextmanager
def locked_entry(folder: Path, *, waiting_for: str | None = None, work: str = "decoding") -> Iterator[bool]:
    """Hold the lock of an entry, and yield whether it is held.

    The holder removes the lock file as its last step. Who has opened the removed file makes a new one.

    Args:
        folder: The folder of the entry.
        waiting_for: What the entry holds, to be said while another process builds it; None does not wait. Of several
            processes that torchrun has started on a machine, the first one says it.
        work: What the other process is doing with it.
    """
    path = folder.with_name(f".{folder.name}.lock")
    with contextlib.ExitStack() as stack:
        try:
            alone = stack.enter_context(lock_file(path, wait_s=NOTICE_S if waiting_for else 0))
            if not alone and waiting_for:
                if os.environ.get("LOCAL_RANK", "0") == "0":
                    print(f"{waiting_for}: another process is {work} it; waiting", file=sys.stderr)
                alone = stack.enter_context(lock_file(path, wait_s=None))
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            alone = False
        try:
            yield alone
        finally:
            if alone:
                path.unlink(missing_ok=True)


@contextmanager
def made_once(entry: Path, *, waiting_for: str, work: str) -> Iterator[None]:
    """Hold the lock of an entry while it is made: of several processes one makes it, and the others find it made.

    The caller looks for the entry before, and once more under the lock.

    Args:
        entry: The path of the entry, whose name is a hash.
        waiting_for: See `locked_entry`.
        work: See `locked_entry`.
    """
    sweep(entry.parent)
    with locked_entry(entry, waiting_for=waiting_for, work=work):
        yield


def sweep(folder: Path) -> None:
    """Delete what killed processes have left in a folder of entries."""
    found = (re.fullmatch(r"\.([0-9a-f]{32})\.\w+", entry.name) for entry in folder.iterdir())
    for name in {match[1] for match in found if match}:
        # what another user has left is his to delete
        with contextlib.suppress(PermissionError), locked_entry(folder / name) as alone:
            if alone:
                remove_leftovers(folder / name)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary folders of an entry whose lock is held."""
    for leftover in folder.parent.glob(f".{folder.name}.*"):
        if leftover.is_dir():
            remove(leftover)


def remove(folder: Path) -> None:
    """Delete a folder; another process may do so at the same time."""
    shutil.rmtree(folder, ignore_errors=True)  # the user may delete the cache at any time


def new_folder(folder: Path) -> Path:
    """Make a temporary folder beside an entry, with the permissions that the umask gives."""
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")
    temporary.mkdir()
    return temporary


def _unusable(root: Path, reason: str | None) -> UserError:
    return UserError(f"cache folder {root}: {reason}; set PRETEXT_CACHE to a folder that can be written")

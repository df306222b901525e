"""Stamps on folders of files whose content was checked in full, so that a later start compares the stamp only.

A stamp holds the size, times and inode of each file. It lies in the cache and belongs to one machine: a copy on
another disk, and a folder that another machine has checked, are checked again.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from pretext.system.cache import cache_folder, new_folder, remove
from pretext.system.checkpoint import HOST, atomic_write
from pretext.system.errors import UserError

State = dict[str, list[int]]
"""Size, modification time, change time and inode of each file, by its name; times in nanoseconds."""
LOOKS = 25
"""Looks at the file system's clock, 4 ms apart, before a folder counts as too young for a stamp."""


def is_stamped(folder: Path) -> bool:
    """Whether this machine has checked the files of a folder, and none has changed since."""
    try:
        return json.loads(_stamp_of(folder).read_bytes()) == _state(folder)
    except (OSError, ValueError, UserError):
        return False


def state_to_check(folder: Path) -> State | None:
    """Return what to give to `stamp` after the files of a folder have been checked; to be called before the check.

    A change within one tick of the file system's clock would not change a file's times. So this waits until the clock
    is past all of them.

    Returns:
        The state of the files; None if there is no such folder or its files are too young, so that it gets no stamp.
    """
    try:
        state = _state(folder)
        newest = max((changed for _, _, changed, _ in state.values()), default=0)
        for look in range(LOOKS):
            time.sleep(0.004 if look else 0)
            if _clock(folder) > newest:
                return state
    except OSError:
        pass
    return None


def stamp(folder: Path, state: State | None) -> None:
    """Remember that the files of a folder were checked in this state; without space for it they are checked again."""
    if state is not None:
        with contextlib.suppress(OSError, UserError), atomic_write(_stamp_of(folder)) as temporary:
            temporary.write_text(json.dumps(state))


def _state(folder: Path) -> State:
    with os.scandir(folder) as entries:
        found = sorted((entry.name, entry.stat()) for entry in entries)
    return {name: [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino] for name, about in found}


def _clock(folder: Path) -> int:
    """Return the time that the file system gives to a new entry beside the folder; a server may have another clock."""
    probe = new_folder(folder)
    try:
        return probe.stat().st_ctime_ns
    finally:
        remove(probe)


def _stamp_of(folder: Path) -> Path:
    return cache_folder("checked") / f"{folder.name}-{HOST}.json"

"""The cache folder on disk, and the size limits of what is kept there."""

from __future__ import annotations

import os
from pathlib import Path

from pretext.system.errors import UserError
from pretext.system.specs import path_of


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


def _unusable(root: Path, reason: str | None) -> UserError:
    return UserError(f"cache folder {root}: {reason}; set PRETEXT_CACHE to a folder that can be written")

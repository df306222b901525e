"""The Git revision of the running code."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("pretext", "downstream", "retrieval", "benchmarks")
"""Untracked files in these packages count as changes: tasks, probes and data sets are found by their files."""


class Revision(NamedTuple):
    """A commit, and whether the code differs from it."""

    sha: str
    """Commit hash; empty if the code is not in its own Git checkout."""
    dirty: bool
    """Whether tracked files have changed, or the packages hold untracked Python files."""


@functools.cache
def revision() -> Revision:
    """Return the revision of the running code. It is read once, at the first call."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # installed, perhaps inside the checkout of another project
        return Revision("", dirty=False)
    run = functools.partial(subprocess.run, cwd=root, capture_output=True, text=True, check=False)
    try:
        sha = run(["git", "rev-parse", "HEAD"]).stdout.strip()
        changed = run(["git", "status", "--porcelain", "--untracked-files=no"]).stdout
        patterns = [f"{package}/*.py" for package in PACKAGES]
        new = run(["git", "ls-files", "--others", "--exclude-standard", "--", *patterns]).stdout
        return Revision(sha, dirty=bool(changed.strip() or new.strip()))
    except OSError:  # no git on this machine
        return Revision("", dirty=False)

"""Which revision of the code runs."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("pretext", "downstream", "retrieval", "benchmarks")
"""Where a file that no commit holds can be part of what runs: tasks, probes and data sets are found by being there."""


class Revision(NamedTuple):
    """A commit, and what was done since."""

    sha: str
    """Empty where the code lies in no checkout of its own."""
    dirty: bool
    """Whether tracked files were changed since, or the packages hold code that is not tracked."""


@functools.cache
def revision() -> Revision:
    """Return the revision of this process's code; asked once, at the first call."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # installed, perhaps into somebody else's checkout
        return Revision("", dirty=False)
    ask = functools.partial(subprocess.run, cwd=root, capture_output=True, text=True, check=False)
    try:
        sha = ask(["git", "rev-parse", "HEAD"]).stdout.strip()
        changed = ask(["git", "status", "--porcelain", "--untracked-files=no"]).stdout
        ours = [f"{package}/*.py" for package in PACKAGES]
        new = ask(["git", "ls-files", "--others", "--exclude-standard", "--", *ours]).stdout
        return Revision(sha, dirty=bool(changed.strip() or new.strip()))
    except OSError:  # no git on this machine
        return Revision("", dirty=False)

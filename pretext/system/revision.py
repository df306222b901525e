"""The Git revision of the running code, or the version of an installed wheel."""

from __future__ import annotations

import functools
import subprocess
from typing import NamedTuple

from pretext.system.installation import PACKAGES, ROOT, version


class Revision(NamedTuple):
    """A commit, and whether the code differs from it."""

    sha: str
    """Commit hash; `v` and the version if the code is installed; empty if it is neither."""
    dirty: bool
    """Whether tracked files have changed, or the packages hold untracked Python files: tasks, probes and data sets are
    found by their files."""


@functools.cache
def revision() -> Revision:
    """Return the revision of the running code. It is read once, at the first call."""
    if not (ROOT / ".git").exists():  # installed, perhaps inside the checkout of another project
        return Revision(f"v{version()}" if version() else "", dirty=False)
    run = functools.partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        sha = run(["git", "rev-parse", "HEAD"]).stdout.strip()
        changed = run(["git", "status", "--porcelain", "--untracked-files=no"]).stdout
        patterns = [f"{package}/*.py" for package in PACKAGES]
        new = run(["git", "ls-files", "--others", "--exclude-standard", "--", *patterns]).stdout
        return Revision(sha, dirty=bool(changed.strip() or new.strip()))
    except OSError:  # no git on this machine
        return Revision("", dirty=False)

"""The installed distribution: its version, and whether its packages are still its own."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
from importlib import metadata
from pathlib import Path

from pretext.system.errors import UserError

DISTRIBUTION = "pretext-bench"
PACKAGES = ("pretext", "downstream", "retrieval", "benchmarks")
"""The packages of this distribution. Their names are plain words, which another distribution may have too."""
ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the packages."""


def version() -> str:
    """Return the version of the installed distribution; empty if it is not installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return ""


def check_installation() -> None:
    """Check that the packages lie beside each other, and that no other distribution has overwritten one.

    Raises:
        UserError: If a package is missing, lies elsewhere, or its first file is not the one that was installed.
    """
    remedy = f"install {DISTRIBUTION} in an environment of its own"
    for name in PACKAGES:
        found = importlib.util.find_spec(name)
        place = Path(found.origin).resolve().parent if found is not None and found.origin else None
        if place != ROOT / name:
            where = f"comes from {place}" if place else "is missing"
            raise UserError(f"the package {name} {where}, and pretext from {ROOT / 'pretext'}; {remedy}")
    for name, digest in _installed().items():
        if hashlib.sha256((ROOT / name / "__init__.py").read_bytes()).digest() != digest:
            raise UserError(f"another distribution has overwritten the package {name} in {ROOT}; {remedy}")


def _installed() -> dict[str, bytes]:
    """Return the SHA-256 of each package's first file as pip has recorded it; none for an editable installation."""
    try:
        files = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return {}
    found = {}
    for file in files:
        own = file.name == "__init__.py" and len(file.parts) == 2 and file.parts[0] in PACKAGES
        if own and file.hash is not None and Path(file.locate()).resolve() == ROOT / file:  # type: ignore[arg-type]
            found[file.parts[0]] = base64.urlsafe_b64decode(file.hash.value + "=" * (-len(file.hash.value) % 4))
    return found

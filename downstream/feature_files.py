"""Files of the cache of features: a checksum for every block of rows, so that a part can be read and trusted."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from safetensors import SafetensorError
from torch import Tensor

from pretext.system.checkpoint import open_tensors, remove_leftovers_in, write_tensors

CHECKSUMS = "crc32 by block"
"""Key of the checksums in a file's metadata: JSON, a list per tensor."""
BLOCK = 256
"""Rows that share a checksum and are read together."""
DTYPES = {"F32": torch.float32, "I64": torch.int64}
"""Type by its name in a file."""


def rows_of(places: Int[Tensor, "N"], wanted: Int[Tensor, "M"]) -> Int[Tensor, "M"]:
    """Return the position of each wanted index in `places`; -1 if it is not there."""
    last = torch.cat((places, wanted, torch.tensor([-1]))).max().item()
    row_of = torch.full((1 + int(last),), -1)
    row_of[places] = torch.arange(len(places))
    return row_of[wanted]


def of_images(stored: dict[str, Tensor], wanted: Int[Tensor, "M"]) -> dict[str, Tensor]:
    """Return the rows of some images, in their order, without those that cannot be decoded."""
    rows = rows_of(stored["kept"], wanted)
    rows = rows[rows >= 0]
    return {name: values if name == "asked" else values[rows] for name, values in stored.items()}


def load(file: Path, wanted: Int[Tensor, "M"] | None) -> dict[str, Tensor] | None:
    """Return what a file holds of some images, or all of it; only the blocks of those images are read and checked.

    Returns:
        None if the file is missing or damaged, or some images were not asked for when it was written.
    """
    try:
        with open_tensors(file) as opened:
            checksums = json.loads((opened.metadata() or {})[CHECKSUMS])
            names = {*opened.keys()}
            known = {name: _read(opened, name, None, checksums[name]) for name in ("asked", "kept")}
            if wanted is None:
                found = known | {name: _read(opened, name, None, checksums[name]) for name in names - {*known}}
            elif not torch.isin(wanted, known["asked"]).all():
                return None
            else:
                rows = rows_of(known["kept"], wanted)
                rows = rows[rows >= 0]
                found = {name: _read(opened, name, rows, checksums[name]) for name in names - {*known}}
                found |= {"asked": known["asked"], "kept": known["kept"][rows]}
    except (OSError, SafetensorError, KeyError, ValueError):  # missing, damaged, or of an earlier version
        return None
    with contextlib.suppress(OSError):  # deleted by another process
        os.utime(file)
    return found


def _read(opened: Any, name: str, rows: Int[Tensor, "M"] | None, checksums: list[str]) -> Tensor:
    """Return some rows of a stored tensor, or all of them.

    Args:
        opened: The open file.
        name: Name of the tensor.
        rows: The rows; None reads all.
        checksums: Of each block of `BLOCK` rows.

    Raises:
        ValueError: If a block that is read differs from what was written.
    """
    part = opened.get_slice(name)
    wanted = torch.arange(part.get_shape()[0]) if rows is None else rows
    blocks = wanted.div(BLOCK, rounding_mode="floor")
    found = torch.empty(len(wanted), *part.get_shape()[1:], dtype=DTYPES[part.get_dtype()])
    for block in torch.unique(blocks).tolist():
        values = part[block * BLOCK : (block + 1) * BLOCK]
        if _checksum(name, values) != checksums[block]:
            raise ValueError(f"{name}: block {block} is damaged")
        here = blocks == block
        found[here] = values[wanted[here] - block * BLOCK]
    return found


def _checksum(name: str, values: Tensor) -> str:
    """Return a checksum of name, type, shape and values."""
    known = zlib.crc32(f"{name} {values.dtype} {tuple(values.shape)}".encode())
    return f"{zlib.crc32(np.ascontiguousarray(values.numpy()).data, known):08x}"


def store(file: Path, tensors: dict[str, Tensor]) -> None:
    """Write a file; say so, and go on, if the disk is full."""
    checksums = {
        name: [_checksum(name, block) for block in torch.split(values, BLOCK)] for name, values in tensors.items()
    }
    try:
        write_tensors(file, tensors, {CHECKSUMS: json.dumps(checksums)})
    except FileNotFoundError:  # the folder may be deleted at any time
        return
    except OSError as error:  # e.g. a full disk: other probes compute the features again
        print(f"features are not cached: {file.parent}: {error.strerror}", file=sys.stderr)


def evict(folder: Path, limit_gb: float) -> None:
    """Delete what killed processes of this machine left, and the least recently used entries beyond the limit.

    An entry is a file of the cache, or what a process of another machine has begun to write. What the cache has not
    written is neither counted nor deleted.
    """
    remove_leftovers_in(folder)
    entries = []
    with contextlib.suppress(FileNotFoundError):  # the folder was deleted
        for entry in folder.iterdir():
            if re.fullmatch(r"\.?[0-9a-f]{32}\.safetensors(\.[\w.-]+\.tmp)?", entry.name) is None:
                continue
            with contextlib.suppress(FileNotFoundError):  # deleted by another process
                size = sum(each.stat().st_size for each in (entry, *entry.glob("*")))
                entries.append((entry.stat().st_mtime, size, entry))
    total = sum(size for _, size, _ in entries)
    for _, size, entry in sorted(entries):
        if total <= limit_gb * 1e9:
            return
        with contextlib.suppress(PermissionError):  # another user's, in a shared cache
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
            total -= size

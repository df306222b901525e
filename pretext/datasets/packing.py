"""Build, check and open packs: many worker processes decode, one process writes.

A pack is built in a temporary folder and renamed, so that it is complete or absent. The manifest holds a checksum
of each file; a pack with a wrong checksum is built again. Each machine compares the checksums once, and again when a
file's size, times or inode have changed: see `pretext.system.stamps`.

Who builds a pack holds its lock; other processes wait and open what it has built. The operating system frees the lock
of a dead process, so a temporary folder whose lock is free was left by one and is deleted.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import multiprocessing
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from pretext.datasets.base import BadImage, ImageDataset, Target
from pretext.datasets.decoding import passing_fault
from pretext.datasets.fingerprints import digest
from pretext.datasets.fitting import Fit, fitted, kept_annotations
from pretext.datasets.objects import Objects
from pretext.system.cache import cache_folder, locked_entry, new_folder, remove, remove_leftovers, sweep
from pretext.system.errors import UserError
from pretext.system.progress import progress_bar, working
from pretext.system.stamps import is_stamped, stamp, state_to_check

VERSION = 2
"""Raise it whenever decoding, resizing or the layout of a pack changes."""
CHUNK = 64
"""Number of pictures that a worker returns at once."""
IN_PROCESS = 500
"""Up to this number of pictures, decoding here is faster than starting workers."""


@dataclass(frozen=True)
class Pack:
    """The arrays of one data set at one size S."""

    images: UInt8[Tensor, "..."]
    """N×3×S×S; or with `Fit` "keep" the pixels of one picture after the other, each three values."""
    sizes: Int[Tensor, "N 2"] | None
    """Height and width of each picture, with `Fit` "keep" only."""
    label: Int[Tensor, "N"] | None
    clip_of: Int[Tensor, "N"] | None
    objects: Objects | None
    masks: UInt8[Tensor, "N S S"] | None
    skipped: tuple[str, ...]
    """The pictures that could not be decoded, each with the reason."""


def item_at(data: ImageDataset, index: int, size: int, fit: Fit) -> tuple[UInt8[Tensor, "3 _ _"], Target]:
    """Return an item at a size; its file is decoded at a reduced size where possible.

    Args:
        data: The data set.
        index: The item's index.
        size: Side of the squares in pixels; with "keep" the most pixels of the shorter side.
        fit: See `Fit`.

    Raises:
        BadImage: If the file cannot be decoded.
    """
    # at twice the size or more, the antialiasing is left to `fitted`
    image, target = data.read(index, size if fit == "keep" else 2 * size)
    return fitted(image, target, size, fit)


def open_or_build(data: ImageDataset, size: int, fit: Fit) -> Pack:
    """Return the pack of `data` at `size` from the cache, or decode the data into it.

    Raises:
        UserError: If a picture cannot be read at the moment; nothing is stored then.
        OSError: If the pack cannot be written. The error names the folder.
    """
    packs = cache_folder("packs")
    kind = {"squash": (), "keep": ("keep", "by pixels")}.get(fit, (fit,))
    folder = packs / digest(data.fingerprint, str(size), str(VERSION), *kind)
    pack = _stamped(folder)
    if pack is not None:
        return pack
    sweep(packs)
    with locked_entry(folder, waiting_for=data.spec, work="decoding or checking") as alone:
        pack = _checked(folder)  # another process may have built it meanwhile
        if pack is not None:
            return pack
        if alone:
            remove_leftovers(folder)
        temporary = new_folder(folder)
        try:
            _build(data, size, fit, temporary)
            _move(temporary, folder)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), error.filename or str(packs)) from error
        finally:
            remove(temporary)
        pack = _checked(folder)
    if pack is None:
        raise OSError(errno.EIO, "the pack just written does not match its checksums; check the disk", str(folder))
    return pack


def _move(temporary: Path, folder: Path) -> None:
    """Rename a finished pack to `folder`, unless another process has put a valid one there meanwhile."""
    while True:
        try:
            temporary.rename(folder)
            return
        except OSError:
            if not folder.exists():
                raise
        if _checked(folder) is not None:
            return
        damaged = new_folder(folder)
        with contextlib.suppress(FileNotFoundError):  # another process moved it first
            folder.rename(damaged / "pack")
        remove(damaged)


def _stamped(folder: Path) -> Pack | None:
    """Return the pack in a folder if this machine has checked it and it has not changed since, else None."""
    return _opened(folder, check=False) if is_stamped(folder) else None


def _checked(folder: Path) -> Pack | None:
    """Return the pack in a folder, checked in full unless it is stamped; None if it is absent or damaged."""
    pack = _stamped(folder)
    if pack is None:
        state = state_to_check(folder)
        with working(f"check {folder}"):
            pack = _opened(folder, check=True)
        if pack is not None:
            stamp(folder, state)
    return pack


def _opened(folder: Path, *, check: bool) -> Pack | None:
    """Return the pack in a folder, or None if it is absent or damaged.

    Args:
        folder: The folder.
        check: Whether to read all of it and compare the checksums; sizes are always compared.

    Raises:
        UserError: If a pack is there and cannot be read.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        arrays = {}
        for name, about in manifest["arrays"].items():
            shape, dtype = tuple(about["shape"]), np.dtype(about["dtype"])
            path = folder / f"{name}.bin"
            if path.stat().st_size != int(np.prod(shape)) * dtype.itemsize:
                return None
            if check and _crc32(path) != about["crc32"]:
                return None
            # copy-on-write: torch wants writable arrays, but the file must not change
            array = np.memmap(path, dtype, "c", shape=shape) if np.prod(shape) else np.zeros(shape, dtype)
            arrays[name] = torch.from_numpy(array)
        objects = None
        if "labels" in arrays:
            objects = Objects(arrays["labels"], arrays["offsets"], arrays.get("boxes"), arrays.get("difficult"))
        skipped = tuple(manifest["skipped"])
        label, clip_of, masks = arrays.get("label"), arrays.get("clip"), arrays.get("masks")
        return Pack(arrays["images"], arrays.get("sizes"), label, clip_of, objects, masks, skipped)
    except PermissionError:
        raise UserError(
            f"{folder}: another user's pack, which you may not read; "
            f"let its owner run chmod -R a+rX {folder}, or set PRETEXT_CACHE to a folder of your own"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        passing = passing_fault(error)
        if passing is not None:
            raise UserError(f"{folder}: {passing}; run the same command again, or delete the folder") from None
        return None


def _crc32(path: Path) -> int:
    """Return a file's checksum, block by block: pages of a mapping that were read count as memory of the process."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            found = zlib.crc32(block, found)
    return found


def _build(data: ImageDataset, size: int, fit: Fit, folder: Path) -> None:
    """Decode the data set into the files of a pack in `folder`."""
    skipped: list[str] = []
    targets: list[Target] = []
    sizes: list[tuple[int, int]] = []
    sums = {"images": 0}
    with (folder / "images.bin").open("wb") as images, (folder / "masks.bin").open("wb") as masks:
        streams = {"images": images, "masks": masks}
        annotations = kept_annotations(data.annotations, fit)
        if "masks" in annotations:
            sums["masks"] = 0
        with progress_bar(f"decode {data.spec}", len(data), unit="img") as bar:
            for chunk in _chunks(data, size, fit):
                if "failed" in chunk:
                    raise UserError(chunk["failed"])
                for name, known in sums.items():
                    sums[name] = zlib.crc32(chunk[name], known)
                    streams[name].write(chunk[name])
                targets += chunk["targets"]
                sizes += chunk["sizes"]
                skipped += chunk["bad"]
                bar.update(chunk["count"])
        for stream in streams.values():
            stream.flush()
            os.fsync(stream.fileno())
    count = len(targets)
    shapes: dict[str, tuple[int, ...]] = {"images": (count, 3, size, size), "masks": (count, size, size)}
    small = _small_arrays(targets, annotations)
    if fit == "keep":
        small["sizes"] = np.array(sizes, dtype=np.int64).reshape(-1, 2)
        shapes["images"] = (3 * int(small["sizes"].prod(axis=1).sum()),)
    arrays = {name: {"shape": shapes[name], "dtype": "uint8", "crc32": sums[name]} for name in sums}
    for name, array in small.items():
        (folder / f"{name}.bin").write_bytes(array.tobytes())  # `tofile` does not say that the disk is full
        arrays[name] = {"shape": array.shape, "dtype": str(array.dtype), "crc32": zlib.crc32(array.tobytes())}
    manifest = {"spec": data.spec, "size": size, "version": VERSION, "skipped": skipped, "arrays": arrays}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))


def _small_arrays(targets: list[Target], annotations: frozenset[str]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for name in {"label", "clip"} & annotations:
        arrays[name] = np.array([target[name] for target in targets], dtype=np.int64)
    if "labels" in annotations:
        arrays["labels"] = np.concatenate([target["labels"] for target in targets] or [np.zeros(0, np.int64)])
        arrays["offsets"] = np.cumsum([0, *(len(target["labels"]) for target in targets)], dtype=np.int64)
    if "boxes" in annotations:
        arrays["boxes"] = np.concatenate([t["boxes"] for t in targets] or [np.zeros((0, 4), np.float32)])
    if any("difficult" in target for target in targets):
        arrays["difficult"] = np.concatenate([target["difficult"] for target in targets])
    return arrays


@final
class _Chunks(Dataset[dict[str, Any]]):
    """A data set in chunks of consecutive pictures, decoded and stacked."""

    def __init__(self, data: ImageDataset, size: int, fit: Fit) -> None:
        self.data, self.size, self.fit = data, size, fit

    def __len__(self) -> int:
        return math.ceil(len(self.data) / CHUNK)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a chunk, or one line under `failed`: an error that a worker raises arrives as a traceback."""
        try:
            return self._decoded(index)
        except UserError as error:
            return {"failed": str(error)}
        except Exception as error:
            passing = passing_fault(error)
            if passing is None:
                raise
            return {"failed": f"{self.data.spec}: {passing}; run the same command again"}

    def _decoded(self, index: int) -> dict[str, Any]:
        images, sizes, masks, targets, bad = [], [], [], [], []
        numbers = range(index * CHUNK, min((index + 1) * CHUNK, len(self.data)))
        for number in numbers:
            try:
                image, target = item_at(self.data, number, self.size, self.fit)
            except BadImage as error:
                bad.append(str(error))
                continue
            images.append((image.permute(1, 2, 0) if self.fit == "keep" else image).numpy())
            sizes.append(image.shape[1:])
            if "masks" in target:
                masks.append(target.pop("masks").numpy())
            targets.append({name: value.numpy() for name, value in target.items()})
        return {
            "images": b"".join(image.tobytes() for image in images),
            "masks": b"".join(mask.tobytes() for mask in masks),
            "sizes": sizes,
            "targets": targets,
            "bad": bad,
            "count": len(numbers),
        }


def _chunks(data: ImageDataset, size: int, fit: Fit) -> Iterator[dict[str, Any]]:
    chunks = _Chunks(data, size, fit)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # a daemon may not start processes, and a loader's worker should not
    is_worker = multiprocessing.current_process().daemon or get_worker_info() is not None
    if len(data) <= IN_PROCESS or workers < 2 or is_worker:
        yield from (chunks[index] for index in range(len(chunks)))
    else:
        try:
            yield from DataLoader(chunks, batch_size=None, num_workers=workers, collate_fn=_unchanged)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker (pid"):
                raise
            raise UserError(
                f"{data.spec}: a process that decodes was killed, perhaps for want of memory; run it again"
            ) from None


def _unchanged(chunk: Any) -> Any:
    return chunk

"""Decode every picture of a data set once, and count what its splits hold."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from pretext.datasets.base import IGNORE, BadImage, Fault, ImageDataset, Target
from pretext.datasets.decoding import read_header
from pretext.datasets.files import FileDataset, some
from pretext.datasets.findings import standing
from pretext.datasets.fingerprints import digest
from pretext.datasets.view import source_of
from pretext.system.cache import cache_folder
from pretext.system.checkpoint import atomic_write
from pretext.system.progress import counted

VERSION = 1
"""Raise it whenever what is counted changes, so that remembered audits are made again."""
SIDE = 64
"""Pictures are decoded at a reduced size of at least this many pixels, because only masks and faults are looked at."""
AT_ONCE = 1024
"""Pictures that are decoded ahead."""


@dataclass
class Counted:
    """What one split holds."""

    pictures: int = 0
    """Number of pictures, with those that cannot be decoded."""
    unreadable: list[str] = field(default_factory=list)
    """The pictures that cannot be decoded, each with the reason."""
    objects: int = 0
    """Number of objects."""
    difficult: int = 0
    """Number of objects that an evaluation ignores."""
    empty: int = 0
    """Number of pictures without any object or class, if such are annotated."""
    pictures_of: list[int] = field(default_factory=list)
    """Number of pictures that show each class."""
    objects_of: list[int] = field(default_factory=list)
    """Number of objects of each class."""
    pixels_of: list[int] = field(default_factory=list)
    """Number of mask pixels: background, each class, ignored."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Number of pictures of each size, WIDTH×HEIGHT as stored after turning upright."""
    modes: dict[str, int] = field(default_factory=dict)
    """Number of pictures of each file format and colour mode."""
    turned: int = 0
    """Number of pictures that EXIF turns or mirrors."""


def audit(data: ImageDataset) -> dict[str, Counted]:
    """Return what each split holds, from the cache if the data has not changed.

    Args:
        data: Any split of a data set.

    Raises:
        UserError: If a file cannot be read at the moment, or the cache folder cannot be written.
    """
    prints = [part for name, split in data.splits.items() for part in (name, split.fingerprint)]
    cached = cache_folder("audits") / f"{digest(str(VERSION), data.spec, *prints)}.json"
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError, AttributeError):
        return {name: Counted(**stored) for name, stored in json.loads(cached.read_bytes()).items()}
    counted = {name: _count(data.splits[name]) for name in sorted(data.splits, key=standing)}
    with atomic_write(cached) as temporary:
        temporary.write_text(json.dumps({name: dataclasses.asdict(each) for name, each in counted.items()}))
    return counted


def faults_seen(data: ImageDataset, counted: dict[str, Counted]) -> list[Fault]:
    """Return what is wrong with a data set and shows only when every picture is looked at."""
    faults = []
    for name, each in counted.items():
        if each.unreadable:
            faults.append(
                Fault(
                    f"{len(each.unreadable):,} of {each.pictures:,} pictures in {name} cannot be decoded: "
                    f"{some(each.unreadable)}."
                )
            )
        known_before = data.splits[name].objects is not None or data.splits[name].label is not None
        missing = [data.classes[k] for k, count in enumerate(each.pictures_of) if not count]
        if missing and not known_before and name != "val":
            faults.append(
                Fault(
                    f"No picture of {name} shows {some(missing)} ({len(missing):,} of {len(data.classes):,} classes)."
                )
            )
    return faults


@dataclass(frozen=True)
class _Seen:
    """What one picture shows."""

    unreadable: str = ""
    size: str = ""
    mode: str = ""
    turned: bool = False
    classes: Int[NDArray[np.int64], "C"] | None = None
    objects: Int[NDArray[np.int64], "M"] | None = None
    difficult: int = 0
    pixels: Int[NDArray[np.int64], "256"] | None = None


def _count(part: ImageDataset) -> Counted:
    classes = len(part.classes)
    found = Counted(pictures=len(part))
    pictures, objects = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    pixels = np.zeros(256, np.int64)
    for seen in counted(_seen(part), f"look at {part.spec}", len(part), unit="img"):
        if seen.unreadable:
            found.unreadable.append(seen.unreadable)
            continue
        found.sizes[seen.size] = found.sizes.get(seen.size, 0) + 1
        found.modes[seen.mode] = found.modes.get(seen.mode, 0) + 1
        found.turned += seen.turned
        found.difficult += seen.difficult
        if seen.classes is not None:
            pictures[seen.classes] += 1
            found.empty += not len(seen.classes)
        if seen.objects is not None:
            objects += np.bincount(seen.objects, minlength=classes)
        if seen.pixels is not None:
            pixels += seen.pixels
    found.pictures_of = pictures.tolist()
    if "boxes" in part.annotations:
        found.objects_of, found.objects = objects.tolist(), int(objects.sum())
    if "masks" in part.annotations:
        found.pixels_of = [*pixels[: classes + 1].tolist(), int(pixels[IGNORE])]
    return found


def _seen(part: ImageDataset) -> Iterator[_Seen]:
    """Yield what each picture shows, in order; several are decoded at once."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(part), AT_ONCE):
            yield from pool.map(lambda index: _look(part, index), range(start, min(start + AT_ONCE, len(part))))


def _look(part: ImageDataset, index: int) -> _Seen:
    source, place = source_of(part, index)
    try:
        if isinstance(source, FileDataset):
            _, target = source.read(place, SIDE)
            header = read_header(source.file(place))
            size, mode, turned = f"{header.width}×{header.height}", header.mode, header.is_turned
        else:
            image, target = source[place]
            size, mode, turned = f"{image.shape[2]}×{image.shape[1]}", "drawn" if part.synthetic else "array", False
    except BadImage as error:
        return _Seen(unreadable=str(error))
    return _Seen(size=size, mode=mode, turned=turned, **_shown(target))


def _shown(target: Target) -> dict[str, Any]:
    """Return the classes, objects and mask pixels of a target, as fields of `_Seen`."""
    shown: dict[str, Any] = {}
    if "label" in target:
        label = int(target["label"])
        shown["classes"] = np.array([label] if label >= 0 else [], np.int64)
    if "labels" in target:
        shown["classes"] = np.unique(target["labels"].numpy())
        if "boxes" in target:
            shown["objects"] = target["labels"].numpy()
    if "difficult" in target:
        shown["difficult"] = int(target["difficult"].sum())
    if "masks" in target:
        shown["pixels"] = np.bincount(np.asarray(target["masks"]).ravel(), minlength=256)
    return shown

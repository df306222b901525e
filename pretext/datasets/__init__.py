"""Data sets: a spec in, a picture and its target out. One file a kind; `open_dataset` finds it by name.

A kind is a module with a frozen dataclass `Options`, whose fields are the keys after `?`, and

    def open_splits(path: str, options: Options) -> dict[str, ImageDataset]

which returns the splits that the source has, `train` among them, and finds fault with what it is given then
and there, by `UserError`. The keys `limit` and `download`, and the splits that a source lacks, are dealt with
here.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

from pretext.datasets.base import ANNOTATIONS, IGNORE, BadImage, ImageDataset, Target
from pretext.datasets.packed import PackedDataset, at_size
from pretext.datasets.splitting import Subset, complete, limited
from pretext.system.errors import UserError, did_you_mean
from pretext.system.specs import options_into, parse_spec

__all__ = [
    "ANNOTATIONS",
    "IGNORE",
    "BadImage",
    "ImageDataset",
    "PackedDataset",
    "Subset",
    "Target",
    "at_size",
    "dataset_kinds",
    "open_dataset",
]

OpenSplits = Callable[[str, Any], dict[str, ImageDataset]]


def dataset_kinds() -> list[str]:
    """Return the known kinds: those with a file of their own, and torchvision's sets."""
    from pretext.datasets import torchvision_sets

    own = [info.name for info in pkgutil.iter_modules(__path__) if _module(info.name) is not None]
    return sorted([*own, *torchvision_sets.SETS])


def open_dataset(spec: str, *, download: bool = False) -> ImageDataset:
    """Open a data set and return its training split; `.splits` has train, val and test.

    A split that the source lacks is drawn from train by a fixed seed, by class where classes are known, and
    `.notes` says so: val 10 %, test 20 %; where there is a val but no test, that val is the test.

    Args:
        spec: `KIND[:PATH][?key=value&…]`. Every kind takes `limit=N`: at most N pictures of each split, drawn
            by a fixed seed.
        download: Fetch a torchvision set that is not there.

    Raises:
        UserError: If the spec or what it names cannot be used.
    """
    parsed = parse_spec(spec)
    options_type, open_splits = _opener(parsed.kind)
    with_limit: Any = dataclasses.make_dataclass(
        "Options", [("limit", int | None, None)], bases=(options_type,), frozen=True
    )
    options = options_into(with_limit, parsed)
    if options.limit is not None and options.limit < 1:
        raise UserError(f"{parsed.kind}: limit={options.limit}: give at least 1")
    if download:
        if not hasattr(options, "download"):
            raise UserError(f"{parsed.kind}: there is nothing to download; leave --download out")
        options = dataclasses.replace(options, download=True)

    # the kind gets its own class, which a data set may keep: unlike the one made above, it can be pickled
    own = {field.name: getattr(options, field.name) for field in dataclasses.fields(options_type)}
    given = open_splits(parsed.path, options_type(**own))
    notes = [note for part in given.values() for note in part.notes]
    splits, drawn = complete(spec, given)
    notes += drawn
    if options.limit is not None and any(len(part) > options.limit for part in splits.values()):
        splits = {name: limited(part, options.limit) for name, part in splits.items()}
        notes.append(f"limit={options.limit}: at most that many pictures of each split, drawn by a fixed seed.")
    for part in splits.values():
        part.spec, part.splits, part.notes = spec, splits, tuple(dict.fromkeys(notes))
    return splits["train"]


def _opener(kind: str) -> tuple[type, OpenSplits]:
    from pretext.datasets import torchvision_sets

    if kind in torchvision_sets.SETS:
        return torchvision_sets.Options, functools.partial(torchvision_sets.open_named, kind)
    known = dataset_kinds()
    if kind not in known:
        raise UserError(f"unknown kind of data {kind!r}; {did_you_mean(kind, known)}")
    module = _module(kind)
    assert module is not None
    return module.Options, module.open_splits


def _module(name: str) -> ModuleType | None:
    """Return the module of that name where it is one of a kind of data set."""
    module = importlib.import_module(f"{__name__}.{name}")
    return module if hasattr(module, "open_splits") else None

"""Say what a refused weight file holds besides tensors, without running the code that it names."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from torch.serialization import MAGIC_NUMBER

_TENSORS = ("torch", "torch._utils", "torch._tensor", "torch.storage", "torch.nn.parameter", "torch.serialization")
"""Modules of the objects that a state dict consists of."""
_FURTHER = ("collections.OrderedDict", "_codecs.encode", "builtins.set", "collections.defaultdict", "builtins.dict")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class _Named:
    """Stands for an object of the file; `its_class` is the name that the file gives it. Nothing is called."""

    its_class = ""

    def __new__(cls, *args: object, **options: object) -> _Named:
        return super().__new__(cls)

    def __init__(self, *args: object, **options: object) -> None: ...

    def __call__(self, *args: object, **options: object) -> _Named:
        return self

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, value: object) -> None: ...

    def extend(self, values: object) -> None: ...

    def add(self, value: object) -> None: ...


class _Unpickler(pickle._Unpickler):
    """Builds dictionaries, lists and numbers; every class and function of the file becomes a `_Named`."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        return type("_Named", (_Named,), {"its_class": f"{module}.{name}", "__hash__": object.__hash__})

    def persistent_load(self, pid: Any) -> Any:
        """Return the class of a module in a file of torch before 1.6; the numbers of tensors are not needed."""
        return pid[1] if pid[0] == "module" else None

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError(f"extension {code}")


def why_refused(path: Path, error: Exception) -> str:
    """Return one line about a file that torch refuses: the class that is no tensor and its key, or torch's reason.

    Args:
        path: The file.
        error: What torch raised.
    """
    reason = _COLOURS.sub("", str(error)).strip()
    named = re.search(r"GLOBAL (\S+)", reason)
    try:
        places = list(_places(_structure(path), "", set()))
    except Exception:  # the bytes can be anything; then torch's reason is all that is known
        places = []
    if named is None and not places:
        return reason.splitlines()[0].rstrip(" .") if reason else type(error).__name__
    shown = [f"{f'the key {key}' if key else 'the file'} holds {its_class}" for key, its_class in places[:3]]
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return "; ".join(shown) + more if places else f"it holds {named[1] if named else ''}"


def _structure(path: Path) -> object:
    """Return the object in a file, with `_Named` for everything that is not a plain value."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(name) as opened:
                return _load(opened)
    with path.open("rb") as opened:
        found = _load(opened)
        if found == MAGIC_NUMBER:  # files of torch before 1.6: number, version, system, object
            _load(opened), _load(opened)
            found = _load(opened)
        return found


def _load(opened: IO[bytes]) -> object:
    return _Unpickler(opened, encoding="utf-8", errors="replace").load()


def _places(value: object, key: str, seen: set[int]) -> Iterator[tuple[str, str]]:
    """Yield the key and the class of every object that is no plain value and no tensor.

    Each container is looked through once: a file can hold one a million times over, or in itself.
    """
    if isinstance(value, dict | list | tuple | set):
        if id(value) in seen:
            return
        seen.add(id(value))
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _places(inner, f"{key}.{name}" if key else str(name), seen)
    elif isinstance(value, list | tuple | set):
        for inner in value:
            yield from _places(inner, key, seen)
    elif isinstance(value, _Named) or (isinstance(value, type) and issubclass(value, _Named)):
        name = value.its_class
        if name.rpartition(".")[0] not in _TENSORS and name not in _FURTHER:
            yield key, name

"""Tasks, probes and encoders in a user's file: imported by path, identified by content."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from pretext.system.errors import UserError
from pretext.system.specs import parse_spec


def is_file(spec: str) -> bool:
    """Whether a spec names a user's file, `my_task.py`, and not a task, probe or encoder of this suite."""
    return parse_spec(spec).kind.endswith(".py")


def file_row(spec: str) -> str:
    """Return the name of a file's row or column: the spec without folders and without `.py`."""
    kind = parse_spec(spec).kind
    return Path(kind).stem + spec.removeprefix(kind)


def absolute_file(spec: str) -> str:
    """Return the spec with the absolute path of its file; any other spec is returned as it is.

    Raises:
        UserError: If the path contains `?` or `:`, which end it in a spec.
    """
    if not is_file(spec):
        return spec
    kind = parse_spec(spec).kind
    path = str(Path(kind).parent.resolve() / Path(kind).name)
    if "?" in path or ":" in path:
        raise UserError(f"{path}: a folder has ? or : in its name, which a spec cannot contain; move the file")
    return path + spec.removeprefix(kind)


def by_content(spec: str) -> str:
    """Return the spec with its file named by its content, wherever it lies; any other spec is returned as it is.

    Raises:
        UserError: If the file cannot be read.
    """
    if not is_file(spec):
        return spec
    kind = parse_spec(spec).kind
    return _name(Path(kind), "file") + spec.removeprefix(kind)


def module_of_file(path: Path, what: str) -> ModuleType:
    """Import a file. The same content is imported only once.

    The module's name contains a hash of the content, so that results of different versions differ in identity.

    Args:
        path: The file; importing it runs it.
        what: What it should be, for the error.

    Raises:
        UserError: If the file is missing or cannot be imported.
    """
    name = _name(path, what)
    return sys.modules.get(name) or _imported(name, path)


def fault_in_file(path: Path, error: Exception) -> UserError:
    """Return the error for an exception that the code of a file raised: its last line there, and the exception."""
    place = str(path.resolve())
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == place]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else "?"
    reason = str(error).splitlines()[0] if str(error) else ""
    return UserError(f"{path}, line {line}: {type(error).__name__}: {reason}")


def _name(path: Path, what: str) -> str:
    from pretext.system.checkpoint import file_sha256

    try:
        return f"{path.stem}@{file_sha256(path)[:16]}"
    except OSError as error:
        raise UserError(f"{what} {path}: {error.strerror}") from None


def _imported(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and type hints look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise fault_in_file(path, error) from error
    return module

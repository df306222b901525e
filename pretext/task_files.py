"""A pretext task in a file of one's own: imported by its path, and known by its content."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from pretext.checkpoint import file_sha256
from pretext.errors import UserError, did_you_mean
from pretext.specs import parse_spec

PARTS = ("Config", "VARIANTS", "build")
"""What a task's file must define."""


def is_file(spec: str) -> bool:
    """Whether a task spec names a file, `my_task.py`, and not a task of this suite."""
    return parse_spec(spec).kind.endswith(".py")


def file_row(spec: str) -> str:
    """Return the name of a file's row in a table: the spec without folders and without `.py`."""
    kind = parse_spec(spec).kind
    return Path(kind).stem + spec.removeprefix(kind)


def module_of_file(path: Path, variant: str = "") -> ModuleType:
    """Import a file as a task's module; the same content is imported once.

    Its name holds a hash of the content, by which results of another version are told apart.

    Args:
        path: The file; importing it runs it.
        variant: One that it must define.

    Raises:
        UserError: If the file is missing, cannot be imported, or lacks a part of a task.
    """
    try:
        name = f"{path.stem}@{file_sha256(path)[:16]}"
    except OSError as error:
        raise UserError(f"pretext task {path}: {error.strerror}") from None
    module = sys.modules.get(name) or _imported(name, path)
    missing = [part for part in PARTS if not hasattr(module, part)]
    if missing:
        raise UserError(f"{path} defines no {' and no '.join(missing)}; CONTRIBUTING.md shows a whole task")
    if variant and variant not in module.VARIANTS:
        raise UserError(f"{path} has no variant {variant!r}; {did_you_mean(variant, module.VARIANTS)}")
    return module


def _imported(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and type hints look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == spec.origin]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else "?"
        reason = str(error).splitlines()[0] if str(error) else ""
        raise UserError(f"{path}, line {line}: {type(error).__name__}: {reason}") from error
    return module

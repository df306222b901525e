"""Reading JSON that an earlier call has written: whatever has become of the file, the user gets one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from pretext.system.errors import UserError

LIMITS = {int: 2**63, float: 2.0**1023}
"""Numbers must be smaller than this, so that every later step can compute with them."""
Shape = type | Mapping[str, "Shape"] | tuple["Shape", ...] | list["Shape"]
"""What a value must be.

A type: `str`, `int`, `bool`, `float` (any finite number), `dict`, `list`, `NoneType`; `object` is anything.
A mapping: an object with these keys. A key with a question mark at its end may be missing; `*` is every other key.
A tuple: one of several. A list with one shape: a list of such values.
"""

_WORDS = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false", NoneType: "null"}
_WORDS |= {dict: "an object", list: "a list"}


def read_json(path: Path, shape: Shape = object, *, remedy: str) -> Any:
    """Return the content of a JSON file.

    Args:
        path: The file.
        shape: What the content must be.
        remedy: Advice at the end of the error message.

    Raises:
        UserError: If the file is not valid JSON, or has another shape.
    """
    return parse_json(path.read_bytes(), shape, source=str(path), remedy=remedy)


def parse_json(text: str | bytes, shape: Shape = object, *, source: str, remedy: str) -> Any:
    """Return the value of JSON text; see `read_json`.

    Args:
        text: The text, or its bytes in UTF-8.
        shape: What the value must be.
        source: Where the text stands, for the error message.
        remedy: Advice at the end of the error message.

    Raises:
        UserError: If the text is not valid JSON, or the value has another shape.
    """
    try:
        value = json.loads(text.decode() if isinstance(text, bytes) else text)
    except (ValueError, RecursionError) as error:  # includes UnicodeDecodeError, and integers of too many digits
        raise UserError(f"{source}: not valid JSON ({error}); {remedy}") from None
    wrong = misfit(value, shape)
    if wrong:
        raise UserError(f"{source}: {wrong}; {remedy}")
    return value


def misfit(value: Any, shape: Shape, name: str = "") -> str:
    """Return what is wrong with the first part of a value that does not have its shape; empty if all is well."""
    if isinstance(shape, tuple):
        found = [misfit(value, each, name) for each in shape]
        return "" if "" in found else found[0]
    if isinstance(shape, type):
        return "" if _is(value, shape) else f"{name or 'the content'} is not {_WORDS[shape]}"
    if isinstance(shape, list):
        if not isinstance(value, list):
            return misfit(value, list, name)
        if shape[0] in (int, float) and _are_numbers(value, shape[0]):  # at once: results have a million
            return ""
        return next(filter(None, (misfit(each, shape[0], f"{name}[{i}]") for i, each in enumerate(value))), "")
    if not isinstance(value, dict):
        return misfit(value, dict, name)
    for key, wanted in shape.items():
        if key == "*":
            others = {other: wanted for other in value if other not in shape and f"{other}?" not in shape}
            if wrong := misfit(value, others, name):
                return wrong
            continue
        plain = key.removesuffix("?")
        inner = f"{name}.{plain}" if name else plain
        if plain not in value:
            if plain == key:
                return f"{inner} is missing"
        elif wrong := misfit(value[plain], wanted, inner):
            return wrong
    return ""


def _are_numbers(values: list[Any], kind: Any) -> bool:
    """Return what `_is` says of all values, for `int` and `float`, in a tenth of the time."""
    of_kind = {int} if kind is int else {int, float}
    return of_kind.issuperset(map(type, values)) and all(map(LIMITS[kind].__gt__, map(abs, values)))


def _is(value: Any, kind: type) -> bool:
    if kind is object:
        return True
    if kind not in (int, float):
        return isinstance(value, kind)
    number = int if kind is int else int | float
    return isinstance(value, number) and not isinstance(value, bool) and abs(value) < LIMITS[kind]

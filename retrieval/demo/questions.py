"""Check the values in a request: numbers, the box, and yes or no."""

from __future__ import annotations

import reprlib
from typing import Any

from retrieval.demo.guard import RequestError
from retrieval.regions import WHOLE, Box


def requested_box(body: dict[str, Any]) -> Box:
    """Return the box in a request; the whole picture if it has none.

    Raises:
        RequestError: If it is not four finite numbers, or not inside the picture.
    """
    given = body.get("box")
    if given is None:
        return WHOLE
    if not (isinstance(given, list) and len(given) == 4 and all(map(_is_number, given))):
        raise RequestError("box must be left, top, width and height, as shares of the picture")
    # compared before conversion: an integer may be too large for a float; NaN fails too
    if not all(0 <= value <= 2 for value in given):
        raise RequestError("this box is outside the picture or too small; draw another")
    x, y, w, h = (float(value) for value in given)
    if not (w > 0.01 and h > 0.01 and x + w <= 1.001 and y + h <= 1.001):
        raise RequestError("this box is outside the picture or too small; draw another")
    return x, y, min(w, 1 - x), min(h, 1 - y)


def requested_flag(body: dict[str, Any], name: str) -> bool:
    """Return a true or false in a request; false if it has none.

    Raises:
        RequestError: If it is something else.
    """
    given = body.get(name, False)
    if not isinstance(given, bool):
        raise RequestError(f"{name} is {reprlib.repr(given)}; it must be true or false")
    return given


def whole_number(value: Any, end: int, *, low: int = 0) -> int:
    """Return a whole number from `low` to `end` - 1.

    Raises:
        RequestError: If it is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < end:
        raise RequestError(f"{reprlib.repr(value)} is not a whole number from {low} to {end - 1}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""Ranges that hold for every setting: seeds of 32 bits, whole numbers of 64 bits, finite numbers, sizes."""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import Any

MOST_SEED = 2**32 - 1
"""The largest seed that NumPy, scikit-learn and PyTorch all take."""
MOST = {
    "width": 2**14,
    "hidden": 2**14,
    "batch_size": 2**20,
    "image_size": 2**13,
    "grid": 2**8,
    "pool": 2**6,
    "folds": 2**10,
    "samples": 2**14,
}
"""Limits by the end of a setting's name: more is a typing error that would end in a lack of memory, or never."""
LEAST_SIDE, MOST_SIDE = 8, 4096
"""Limits of `--image-size`, in pixels."""
MOST_TIMES = 64
"""Limit of a width that is a factor, not a number of channels."""


def check_range(
    settings: Any,
    *names: str,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    unit: str = "",
) -> None:
    """Raise a ValueError that names a setting and its range, if its value is outside. None, no value, is never outside.

    Args:
        settings: Holds the settings as attributes.
        names: Settings that have this range.
        least: Smallest value that is allowed.
        above: Allowed is only more than this.
        most: Largest value that is allowed.
        below: Allowed is only less than this.
        unit: What the error counts in, such as `pixels`.
    """
    bounds = ((least, operator.ge), (above, operator.gt), (most, operator.le), (below, operator.lt))
    for name in names:
        value = getattr(settings, name)
        if value is not None and not all(bound is None or inside(value, bound) for bound, inside in bounds):
            words = _range_in_words(least=least, above=above, most=most, below=below)
            raise ValueError(f"{name} is {value}; allowed is {words} {unit}".rstrip())


def _range_in_words(*, least: float | None, above: float | None, most: float | None, below: float | None) -> str:
    if most is None and below is None:
        return f"{least} or more" if above is None else f"above {above}"
    if least is None and above is None:
        return f"at most {most}" if below is None else f"below {below}"
    if above is None:
        return f"from {least} to {f'below {below}' if most is None else most}"
    return f"above {above} and {f'below {below}' if most is None else f'up to {most}'}"


def check_image_size(size: int | None) -> None:
    """Raise a ValueError if a command's `--image-size` is outside its range."""
    if size is not None and not LEAST_SIDE <= size <= MOST_SIDE:
        raise ValueError(f"--image-size is {size}; allowed is from {LEAST_SIDE} to {MOST_SIDE}")


def check_numbers(settings: Any) -> None:
    """Raise a ValueError if a field of a dataclass, or of one inside it, holds a number that nothing can use.

    A subclass of a settings class checks narrower ranges in its own `__post_init__`.
    """
    for field in dataclasses.fields(settings):
        name, value = field.name, getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            check_numbers(value)
        for each in value if isinstance(value, tuple) else (value,):
            if each is value and isinstance(each, float) and not math.isfinite(each):  # a tuple has checks of its own
                raise ValueError(f"{name} is {each}; allowed is a finite number")
            if isinstance(each, int) and not -(2**63) <= each < 2**63:
                raise ValueError(f"{name} is {each}; allowed is a whole number of 64 bits")
        most = next((most for end, most in MOST.items() if name.endswith(end)), None)
        if most is not None and isinstance(value, int | float):
            check_range(settings, name, most=MOST_TIMES if isinstance(value, float) else most)
        if name == "seed" and isinstance(value, int | float):
            check_range(settings, "seed", least=0, most=MOST_SEED)

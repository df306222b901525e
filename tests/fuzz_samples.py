"""How the fuzz tests share out their inputs, draw them, and judge what the project answers."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import random
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from pretext.system.errors import UserError, run_command

SHARES = {
    "damaged files": 2400,
    "pictures": 1800,
    "masks": 300,
    "annotations": 1900,
    "specs": 1100,
    "flags": 1200,
    "weight files": 500,
    "requests": 600,
    "files of users": 200,
}
"""Inputs by surface, 10,000 together: the proportions."""
INPUTS = int(os.environ.get("PRETEXT_FUZZ", "500"))
"""Inputs of a run, over all surfaces."""
BEGUN = "all flags were accepted and the computation began"
SLOW_S = 5.0
"""Inputs that took longer are printed."""


def share(surface: str, part: str, parts: list[str]) -> int:
    """Return how many inputs a part of a surface gets, as evenly as whole numbers allow, and at least one."""
    at, total = parts.index(part), SHARES[surface] * INPUTS // sum(SHARES.values())
    return max(total * (at + 1) // len(parts) - total * at // len(parts), 1)


def check(name: str, count: int, attempt: Callable[[random.Random], object], start: int = 0) -> None:
    """Make `count` inputs, each drawn from its own seed; every one is used, or is refused by one line.

    Args:
        name: Name of the surface; with an input's number it seeds the input.
        count: Number of inputs.
        attempt: Draws an input and uses it. It may return what describes the input.
        start: Number of the first input, to repeat a single one.
    """
    seen: collections.Counter[str] = collections.Counter()
    for number in range(start, start + count):
        began = time.monotonic()
        about, answer = answered(attempt, random.Random(f"{name} {number}"))
        seen[answer] += 1
        if answer not in ("used", "refused"):
            print(f"{name}, number {number}: {answer}\n  {about}")
        if (took := time.monotonic() - began) > SLOW_S:
            print(f"{name}, number {number}: {took:.0f} s\n  {about}")
    print(f"{name}: {count} inputs, {seen['used']} used, {seen['refused']} refused by one line")
    assert not set(seen) - {"used", "refused"}, "\n".join(f"{times} x {what}" for what, times in seen.most_common())


def answered(attempt: Callable[[random.Random], object], drawn: random.Random) -> tuple[str, str]:
    """Return what an input was, as far as is known, and how it was answered: used, refused, or the fault."""
    printed = io.StringIO()
    about: list[object] = []
    drawn.about = about  # type: ignore[attr-defined] # an attempt adds to it before it uses its input
    try:
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            warnings.catch_warnings(record=True) as warned,
        ):
            warnings.simplefilter("default")
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            attempt(drawn)
        answer = "used"
    except UserError as error:
        answer = "refused" if str(error) and not set("\n\r\x1b") & set(str(error)) else f"not one line: {error!r}"
        warned = []
    except SystemExit as leaving:
        answer = "used" if not leaving.code else f"exit code {leaving.code}"
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        where = next((frame for frame in reversed(frames) if _is_ours(frame.filename)), frames[-1])
        answer = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"[:200]
    if "Traceback" in printed.getvalue():
        answer = f"printed a traceback: {printed.getvalue()[-300:]}"
    elif answer == "used" and warned:
        answer = f"warned: {warned[0].message} at {Path(warned[0].filename).name}:{warned[0].lineno}"[:200]
    return repr(about)[:600], answer


def command(main: Callable[[list[str]], int | None], words: list[str]) -> None:
    """Run a command line as its process would; what it refuses is raised as the line that it printed."""
    before, sys.argv = sys.argv, ["command", *words]
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            run_command(main)
    except SystemExit as leaving:
        lines = [line for line in printed.getvalue().split("\n") if line.strip()]
        assert leaving.code in (0, None, 1, 2), (leaving.code, lines)
        if leaving.code == 2:
            errors = [line for line in lines if line.startswith("error: ")]
            assert errors == lines[-1:], lines
            if errors == [f"error: {BEGUN}"]:
                return
            raise UserError(errors[0]) from None
        assert leaving.code == 0, lines
    finally:
        sys.argv = before


def _is_ours(file: str) -> bool:
    return any(f"/{package}/" in file for package in ("pretext", "downstream", "retrieval", "benchmarks")) and (
        "site-packages" not in file and "/tests/" not in file
    )

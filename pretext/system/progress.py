"""Progress on stderr: a bar on a terminal, elsewhere a line every ten seconds with the time left."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

Thing = TypeVar("Thing")
LINE_S = 10.0
"""Seconds between lines if stderr is not a terminal."""
LOOK_S = 1.0
"""Seconds after which a step that cannot count looks whether a line is due."""
LINE = "{desc}: {percentage:.0f} %, {n_fmt} of {total_fmt} {unit}, {elapsed} so far, {remaining} left{postfix}"
"""One line of progress."""
LINE_WITHOUT_TOTAL = "{desc}: {n_fmt} {unit}, {elapsed} so far{postfix}"
"""One line of progress towards an unknown number."""
_spoken = [0.0]
"""When a line or bar was last printed, on the monotonic clock."""


def progress_bar(name: str, total: float | None, *, unit: str, initial: float = 0, leave: bool = False) -> Any:
    """Return a tqdm bar, for a `with` statement; `update` moves it. Of several processes only the first shows one.

    Args:
        name: What is being done.
        total: Number of units in all; None if it is not known.
        unit: Name of a unit: `img`, `step`, or `s` for a bar that is moved by the clock.
        initial: Units that an earlier call has done.
        leave: Keep the finished bar on the terminal.
    """
    return _bar(None, name, total, unit=unit, initial=initial, leave=leave)


def counted(things: Iterable[Thing], name: str, total: int | None, *, unit: str) -> Iterator[Thing]:
    """Yield some things, and show a bar that counts them; see `progress_bar`."""
    yield from _bar(things, name, total, unit=unit, initial=0, leave=False)


@contextmanager
def working(name: str) -> Iterator[None]:
    """Print a line whenever ten seconds pass without any other progress: for steps that cannot count what they do.

    A thread prints. A block must not start processes by a fork.
    """
    ended = threading.Event()
    started = time.monotonic()

    def speak() -> None:
        from tqdm import tqdm

        while not ended.wait(LOOK_S):
            now = time.monotonic()
            if now - max(started, _spoken[0]) >= LINE_S and not _has_terminal_bar():
                _spoken[0] = now
                print(f"{name}: {tqdm.format_interval(now - started)} so far", file=sys.stderr, flush=True)

    if _is_silent():
        yield
        return
    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        ended.set()
        speaker.join()


def _is_silent() -> bool:
    """Return whether another process shows progress."""
    from pretext.system.distributed import rank  # here, because it imports torch

    return rank() > 0


def _has_terminal_bar() -> bool:
    """Return whether a bar stands on a terminal, which a line would break."""
    from tqdm import tqdm

    return sys.stderr.isatty() and bool(getattr(tqdm, "_instances", ()))


def _bar(things: Any, name: str, total: float | None, *, unit: str, initial: float, leave: bool) -> Any:
    from tqdm import tqdm

    plain: dict[str, Any] = {"initial": initial, "unit": unit, "disable": _is_silent()}
    if sys.stderr.isatty():
        seconds = "{l_bar}{bar}| {n:.0f}/{total:.0f} s{postfix}"
        return tqdm(things, name, total, delay=2, leave=leave, bar_format=seconds if unit == "s" else None, **plain)
    form = LINE if total is not None else LINE_WITHOUT_TOTAL
    if unit == "s":
        form = form.replace("{n_fmt}", "{n:.0f}").replace("{total_fmt}", "{total:.0f}")
    return _lines()(things, name, total, delay=LINE_S, mininterval=LINE_S, miniters=1, bar_format=form, **plain)


@cache
def _lines() -> type[Any]:
    from tqdm import tqdm

    class Lines(tqdm):  # type: ignore[misc]
        """A bar that prints each of its states as a line of its own, and no other characters."""

        disable: bool

        def display(self, msg: str | None = None, pos: int | None = None) -> bool:
            """Print the state."""
            if msg is None:
                _spoken[0] = time.monotonic()
                print(self, file=sys.stderr, flush=True)
            return False

        @classmethod
        def write(cls, s: str, file: Any = None, end: str = "\n", nolock: bool = False) -> None:
            """Print a message; the bar is no line that it could break."""
            print(s, file=file or sys.stdout, end=end, flush=True)

        def clear(self, nolock: bool = False) -> None:
            """Do nothing: a line stays."""

        def close(self) -> None:
            """End without a further line."""
            if not self.disable:
                self.disable = True
                self._decr_instances(self)

    return Lines

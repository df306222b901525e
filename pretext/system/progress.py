"""Progress on stderr: a bar on a terminal, elsewhere a line every ten seconds with the time left."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

LINE_S = 10.0
"""Seconds between lines if stderr is not a terminal."""
LINE = "{desc}: {percentage:.0f} %, {n_fmt} of {total_fmt} {unit}, {elapsed} so far, {remaining} left{postfix}"
"""One line of progress."""


def progress_bar(
    name: str, total: float, *, unit: str, initial: float = 0, leave: bool = False, hidden: bool = False
) -> Any:
    """Return a tqdm bar, for a `with` statement; `update` moves it.

    Args:
        name: What is being done.
        total: Number of units in all.
        unit: Name of a unit: `img`, `step`, or `s` for a bar that is moved by the clock.
        initial: Units that an earlier call has done.
        leave: Keep the finished bar on the terminal.
        hidden: Show nothing, as in all processes but the first.
    """
    from tqdm import tqdm

    plain: dict[str, Any] = {"initial": initial, "unit": unit, "disable": hidden}
    if sys.stderr.isatty():
        seconds = "{l_bar}{bar}| {n:.0f}/{total:.0f} s{postfix}"
        return tqdm(None, name, total, delay=2, leave=leave, bar_format=seconds if unit == "s" else None, **plain)
    form = LINE if unit != "s" else LINE.replace("{n_fmt}", "{n:.0f}").replace("{total_fmt}", "{total:.0f}")
    return _lines()(None, name, total, delay=LINE_S, mininterval=LINE_S, miniters=1, bar_format=form, **plain)


@cache
def _lines() -> type[Any]:
    from tqdm import tqdm

    class Lines(tqdm):  # type: ignore[misc]
        """A bar that prints each of its states as a line of its own, and no other characters."""

        disable: bool

        def display(self, msg: str | None = None, pos: int | None = None) -> bool:
            """Print the state."""
            if msg is None:
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

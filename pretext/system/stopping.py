"""Stop a run in order: on Ctrl-C or SIGTERM the current step is finished and saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """Whether a signal has requested the run to end."""

    requested = False


@contextmanager
def stop_politely() -> Iterator[Stop]:
    """Turn SIGINT and SIGTERM into a flag, so that the loop can finish and save its step."""
    stop = Stop()

    def request(*_: object) -> None:
        stop.requested = True

    try:
        previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # only the main thread receives signals
        previous = {}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

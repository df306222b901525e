"""Ending a training run in order: Ctrl-C and a polite kill let the step at hand be finished and saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """Whether the run has been asked to end."""

    asked = False


@contextmanager
def stop_politely() -> Iterator[Stop]:
    """Turn SIGINT and SIGTERM into a flag, so that the step at hand is finished and saved."""
    stop = Stop()

    def note(*_: object) -> None:
        stop.asked = True

    try:
        previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread, which alone gets signals
        previous = {}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

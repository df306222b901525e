"""The time that a run has taken, on the clock and on the processor."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import NamedTuple


class Spent(NamedTuple):
    """Time of a run."""

    seconds: float = 0.0
    """On the clock: other work on the machine makes it longer."""
    cpu_seconds: float = 0.0
    """On the processor, by all threads of this process and by its worker processes that have ended; times the number
    of processes that train together, which do the same work."""


def stopwatch(earlier: Spent, *, processes: int) -> Callable[[], Spent]:
    """Return a function that returns the time since now, added to `earlier`.

    Args:
        earlier: Time of earlier calls of the run.
        processes: Processes that train together.
    """
    wall, processor = time.monotonic(), _processor()
    return lambda: Spent(
        earlier.seconds + time.monotonic() - wall,
        earlier.cpu_seconds + (_processor() - processor) * processes,
    )


def _processor() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime

"""Stop a run in order: on Ctrl-C, SIGTERM or SIGHUP the current step is finished and saved."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stop:
    """Whether a signal has requested the run to end."""

    requested = False


@contextmanager
def stop_politely() -> Iterator[Stop]:
    """Turn SIGINT, SIGTERM and SIGHUP into a flag, so that the loop can finish and save its step."""
    stop = Stop()

    def request(*_: object) -> None:
        stop.requested = True

    with _on_signals(request):
        yield stop


@contextmanager
def stop_at_once() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into KeyboardInterrupt: where there is no step to save yet."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with _on_signals(interrupt):
        yield


@contextmanager
def _on_signals(handler: Callable[..., None]) -> Iterator[None]:
    numbers = [signal.SIGINT, signal.SIGTERM]
    # nohup ignores SIGHUP, so that a run outlives its terminal
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    try:
        previous = {number: signal.signal(number, handler) for number in numbers}
    except ValueError:  # only the main thread receives signals
        previous = {}
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)

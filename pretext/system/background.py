"""Compute a value in a thread, while something else goes on that does not need it yet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Value = TypeVar("Value")


def begun(compute: Callable[[], Value]) -> Callable[[], Value]:
    """Begin to compute a value; return a function that waits for it, and raises what computing it raised.

    A process that ends before does not wait.
    """
    value: Future[Value] = Future()

    def run() -> None:
        try:
            value.set_result(compute())
        except BaseException as error:
            value.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return value.result

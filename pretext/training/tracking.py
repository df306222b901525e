"""Trackers receive the lines of log.jsonl and the sample sheets while a run goes on: TensorBoard, or a user's own file.

Such a file, `my_tracker.py`, has a function that returns a `Tracker`; docs/training.md has an example:

    def open_tracker(out: Path, settings: dict, step: int) -> Tracker

`out` is the folder of the run, `settings` are those that its encoder file records, and `step` is the number of steps
that are done. An interrupted run may send lines after that step, which its resumption sends again.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from pretext.system.errors import UserError, did_you_mean, on_one_line
from pretext.system.plugins import fault_in_file, module_of_file

TENSORBOARD = "tensorboard"


class Tracker(Protocol):
    """What receives a run's lines and sheets. If it raises, it is closed, and the run goes on without it."""

    def line(self, row: Mapping[str, Any]) -> None:
        """Receive a line of log.jsonl: `step`, `images`, and numbers or dicts of numbers, such as `loss` or `watch`."""

    def image(self, name: str, path: Path, step: int) -> None:
        """Receive a PNG file that was written after a step."""

    def close(self) -> None:
        """End: the run is finished, was stopped, or has failed."""


class TensorBoard:
    """Writes event files to OUT/tensorboard: a curve for every number of a line, and the sample sheets."""

    def __init__(self, out: Path, settings: Mapping[str, Any], step: int) -> None:
        """Open an event file; later steps that an interrupted call has written are hidden."""
        from torch.utils.tensorboard import SummaryWriter

        untyped: Any = SummaryWriter
        self._writer = untyped(str(out / TENSORBOARD), purge_step=step + 1)

    def line(self, row: Mapping[str, Any]) -> None:
        """See `Tracker.line`; numbers of a dict are grouped under its name."""
        for name, value in row.items():
            for tag, number in value.items() if isinstance(value, Mapping) else [("", value)]:
                if name != "step":
                    self._writer.add_scalar(f"{name}/{tag}" if tag else name, number, row["step"])
        self._writer.flush()

    def image(self, name: str, path: Path, step: int) -> None:
        """See `Tracker.image`."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as sheet:
            self._writer.add_image(name, np.asarray(sheet), step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


def check_trackers(names: Iterable[str]) -> None:
    """Raise a `UserError` if a tracker is unknown, is not installed, or is a file that cannot be used."""
    for name in names:
        _opener(name)


class Trackers:
    """The open trackers of a run."""

    def __init__(
        self, names: Iterable[str], out: Path, settings: Mapping[str, Any], step: int, say: Callable[[str], None]
    ) -> None:
        """Open them.

        Args:
            names: `tensorboard`, or paths of files of the user's own.
            out: Folder of the run.
            settings: Settings of the run.
            step: Steps that are done.
            say: Prints that a tracker has failed.

        Raises:
            UserError: See `check_trackers`; or if a user's own file raises.
        """
        self._say = say
        self._open: dict[str, Tracker] = {}
        for name in names:
            try:
                self._open[name] = _opener(name)(out, dict(settings), step)
            except (UserError, OSError):
                raise
            except Exception as error:
                raise fault_in_file(Path(name), error) from error

    def line(self, row: Mapping[str, Any]) -> None:
        """See `Tracker.line`."""
        self._each(lambda tracker: tracker.line(row))

    def image(self, name: str, path: Path, step: int) -> None:
        """See `Tracker.image`."""
        self._each(lambda tracker: tracker.image(name, path, step))

    def close(self) -> None:
        """See `Tracker.close`."""
        self._each(lambda tracker: tracker.close())

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in [*self._open.items()]:
            try:
                call(tracker)
            except Exception as error:  # a network or a disk of the tracker's must not end the training
                del self._open[name]
                reason = on_one_line(f"{type(error).__name__}: {error}")
                self._say(f"--track {name}: {reason}; the run goes on without this tracker")
                with suppress(Exception):  # what has failed may fail to close, too
                    tracker.close()


def _opener(name: str) -> Callable[[Path, dict[str, Any], int], Tracker]:
    """Return what opens a tracker."""
    if name == TENSORBOARD:
        if importlib.util.find_spec(TENSORBOARD) is None:
            raise UserError("--track tensorboard: TensorBoard is not installed; run pip install 'pretext-bench[track]'")
        return TensorBoard
    if not name.endswith(".py"):
        raise UserError(f"--track {name}: no such tracker; {did_you_mean(name, [TENSORBOARD, 'my_tracker.py'])}")
    opener: Any = getattr(module_of_file(Path(name), "tracker"), "open_tracker", None)
    if not callable(opener):
        raise UserError(f"{name} has no function open_tracker(out, settings, step); docs/training.md has an example")
    return opener

"""The log of a training run: `log.jsonl` and a progress bar."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pretext.encoders.base import Encoder
from pretext.system.checkpoint import atomic_write
from pretext.system.distributed import rank
from pretext.system.errors import UserError
from pretext.system.memory import peak_memory
from pretext.system.progress import progress_bar
from pretext.system.stored_json import Shape, parse_json
from pretext.tasks.base import Batch, Task
from pretext.training.collapse import COLLAPSED, MIN_IMAGES, feature_statistics
from pretext.training.config import TrainConfig
from pretext.training.tracking import Trackers
from pretext.training.watching import Watch

LOGGED_SHARE = 0.05
"""Share of a budget in seconds after which a line is due."""
ROW: Shape = {"step": int, "images": int, "loss?": {"*": float}, "watch?": {"*": float}}
"""What every line of a log has: the loss of at least one player, or what `Watch` has measured."""


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a `log.jsonl`; those that cannot be read, such as a torn last one, are left out and said."""
    rows, dropped = [], []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            row = parse_json(line, ROW, source=f"{path}, line {number}", remedy="left out")
            if not row.get("loss") and not row.get("watch"):
                raise UserError(f"{path}, line {number}: neither loss nor watch; left out")
            rows.append(row)
        except UserError as error:
            dropped.append(str(error))
    if dropped:
        more = f" (and {len(dropped) - 1} more lines)" if dropped[1:] else ""
        print(f"{dropped[0]}{more}", file=sys.stderr)
    return rows


class TrainingLog:
    """Writes one JSON line every `log_every` steps, and shows a progress bar. Only the first process does."""

    def __init__(
        self,
        out: Path,
        settings: Mapping[str, Any],
        *,
        step: int,
        total_steps: int | None,
        config: TrainConfig,
        progress: float = 0.0,
        images_seen: int = 0,
    ) -> None:
        """Keep the lines that an earlier call wrote up to `step`.

        Args:
            out: Folder of the run.
            settings: Settings of the run, for trackers; its task is the label of the progress bar.
            step: Steps that are done.
            total_steps: Steps of the whole run; None if the budget is in seconds.
            config: Settings of the run.
            progress: Share of the budget that is spent.
            images_seen: Images that the run has seen, over all processes.
        """
        self.out, self.settings, self.config, self.total_steps = out, settings, config, total_steps
        self.rows: list[dict[str, Any]] = []
        self.warned: set[str] = set()
        """Kinds of warnings that were printed; each is printed once."""
        path = out / "log.jsonl"
        if step and rank() == 0 and path.is_file():
            self.rows = [row for row in read_log(path) if row["step"] <= step]
        self.last_watched = max((row["step"] for row in self.rows if "watch" in row), default=0)
        self.first_step, self.last_images = step, images_seen
        self.waiting_seconds, self.interval_started = 0.0, time.monotonic()
        self.logged = progress
        total, unit = (config.seconds or 0.0, "s") if total_steps is None else (total_steps, "step")
        initial = step if total_steps is not None else round(min(progress, 1.0) * total, 1)
        self.bar = progress_bar(settings["task"], total, initial=initial, unit=unit)

    def __enter__(self) -> TrainingLog:
        if rank() == 0:
            self.out.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.out / "log.jsonl") as temporary:
                temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
            self.trackers = Trackers(self.config.track, self.out, self.settings, self.first_step, self._say)
        return self

    def __exit__(self, *_: object) -> None:
        if rank() == 0:
            self.trackers.close()
        self.bar.close()

    def add_waiting(self, seconds: float) -> None:
        """Add time that the loop spent waiting for a batch."""
        self.waiting_seconds += seconds

    def advance(self, progress: float) -> None:
        """Move the bar by a step; a budget in seconds, to the share that is spent."""
        spent = min(progress, 1.0) * (self.config.seconds or 0.0)
        self.bar.update(1 if self.total_steps is not None else spent - self.bar.n)

    def step(
        self,
        step: int,
        losses: dict[str, Tensor],
        learning_rate: float,
        model: Task,
        batch: Batch,
        *,
        progress: float,
        images_seen: int,
    ) -> None:
        """Log a step if it is due, and warn once if the encoder's features have collapsed or the task warns.

        Args:
            step: Steps that are done, this one included.
            losses: Loss of each player.
            learning_rate: Learning rate of this step.
            model: The task, for its metrics and its encoder.
            batch: Pictures of this step; the features of some of them are checked for collapse.
            progress: Share of the budget that is spent, this step included; that of seconds may exceed 1.
            images_seen: Images that the run has seen, over all processes, this step included.

        Raises:
            UserError: If a loss is not finite. On a GPU only the steps that are due are checked.
        """
        self.advance(progress)
        due = step % self.config.log_every == 0 or step == self.total_steps
        if self.total_steps is None:  # steps may take long: a budget in seconds is logged by its share too
            due = due or progress >= 1 or progress - self.logged >= LOGGED_SHARE
        if not due and next(iter(losses.values())).is_cuda:  # reading a loss would stall the GPU
            return
        values = {player: float(loss) for player, loss in losses.items()}
        for player, value in values.items():
            if not math.isfinite(value):
                raise UserError(
                    f"{self.out.name}: the loss of {player} is {value} at step {step}; "
                    "lower --learning-rate or set --clip-norm"
                )
        if not due or rank():
            return
        features = feature_statistics(model.encoder, batch.images)
        if len(batch) >= MIN_IMAGES and features["feature_std"] < COLLAPSED:
            self._warn(
                "collapse",
                f"the encoder has collapsed at step {step}: the standard deviation of its features is "
                f"{features['feature_std']:.1e}; lower --learning-rate, or change the task's settings",
            )
        if (warning := model.warning()) is not None:
            self._warn("task", f"at step {step} {warning}")
        elapsed = max(time.monotonic() - self.interval_started, 1e-9)
        count = images_seen - self.last_images
        self._write(
            {
                "step": step,
                "images": images_seen,
                "loss": values,
                "learning_rate": learning_rate,
                "images_per_second": count / elapsed,
                "data_share": self.waiting_seconds / elapsed,
                "memory_bytes": peak_memory(),
                "metrics": {name: float(value) for name, value in model.metrics().items()},
                "features": features,
            }
        )
        self.bar.set_postfix({player: f"{value:.4f}" for player, value in values.items()}, refresh=False)
        self.waiting_seconds, self.interval_started, self.last_images = 0.0, time.monotonic(), images_seen
        self.logged = progress

    def watched(self, step: int, watch: Watch, encoder: Encoder, *, images_seen: int) -> None:
        """Measure the encoder after a step, and log it, unless the log has it already.

        `images_per_second` leaves out the time that it takes.
        """
        if step == self.last_watched:
            return
        began, self.last_watched = time.monotonic(), step
        self._write({"step": step, "images": images_seen, "watch": watch.measure(encoder)})
        self.interval_started += time.monotonic() - began

    def sheet(self, step: int, path: Path | None) -> None:
        """Send a sample sheet to the trackers, if one was written."""
        if path is not None:
            self.trackers.image("samples", path, step)

    def _write(self, row: dict[str, Any]) -> None:
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.trackers.line(row)

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self.warned:
            self.warned.add(kind)
            self._say(text)

    def _say(self, text: str) -> None:
        self.bar.write(f"{self.out.name}: {text}", file=sys.stderr)

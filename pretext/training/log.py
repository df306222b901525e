"""The log of a training run: one JSON line an interval, and a progress bar."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from pretext.system.checkpoint import atomic_write
from pretext.system.distributed import rank
from pretext.system.errors import UserError
from pretext.system.memory import peak_memory
from pretext.tasks.base import Task
from pretext.training.collapse import COLLAPSED, watched
from pretext.training.config import TrainConfig


class TrainingLog:
    """One JSON line an interval, and a progress bar."""

    def __init__(self, out: Path, settings: dict[str, Any], step: int, total: int | None, config: TrainConfig) -> None:
        from tqdm import tqdm

        self.out, self.config, self.total = out, config, total
        self.rows: list[dict[str, Any]] = []
        self.collapsed = False
        path = out / "log.jsonl"
        if step and path.is_file():
            self.rows = [row for row in map(json.loads, path.read_text().splitlines()) if row["step"] <= step]
        self.waiting, self.since, self.last = 0.0, time.monotonic(), step
        hidden = True if rank() else None
        self.bar = tqdm(None, settings["task"], total, initial=step, delay=2, disable=hidden, leave=False, unit="step")

    def __enter__(self) -> TrainingLog:
        if rank() == 0:
            self.out.mkdir(parents=True, exist_ok=True)
            self._write()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def waited(self, seconds: float) -> None:
        """Take note of time spent waiting for pictures."""
        self.waiting += seconds

    def step(self, step: int, losses: dict[str, Tensor], learning_rate: float, model: Task, images: Tensor) -> None:
        """Take note of a step and its pictures; stop where a loss is not finite, warn where features collapse."""
        self.bar.update()
        due = step % self.config.log_every == 0 or step == self.total
        if not due and next(iter(losses.values())).is_cuda:  # asking a GPU each step would make it wait
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
        features = watched(model.encoder, images)
        if features["feature_std"] < COLLAPSED and not self.collapsed:
            self.collapsed = True
            self.bar.write(
                f"{self.out.name}: the encoder has collapsed at step {step}: the standard deviation of its features is "
                f"{features['feature_std']:.1e}; lower --learning-rate, or see to the task's settings",
                file=sys.stderr,
            )
        elapsed = max(time.monotonic() - self.since, 1e-9)
        count = (step - self.last) * self.config.batch_size
        self.rows.append(
            {
                "step": step,
                "images": step * self.config.batch_size,
                "loss": values,
                "learning_rate": learning_rate,
                "images_per_second": count / elapsed,
                "data_share": self.waiting / elapsed,
                "memory_bytes": peak_memory(),
                "metrics": {name: float(value) for name, value in model.metrics().items()},
                "features": features,
            }
        )
        self.bar.set_postfix({player: f"{value:.4f}" for player, value in values.items()})
        self.waiting, self.since, self.last = 0.0, time.monotonic(), step
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")

    def _write(self) -> None:
        with atomic_write(self.out / "log.jsonl") as beside:
            beside.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

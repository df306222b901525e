"""A row of a comparison: how its encoder is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pretext.training.config import BUDGETS, TrainConfig

UNTOUCHED = "random:untouched"
"""The row whose batch normalisation has seen no picture; probes that read features judge it."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a comparison. Its encoder is trained by `task`, or comes from `source`; one of the two is given."""

    name: str
    task: str | None = None
    """Spec of the task that trains it."""
    source: str | None = None
    """An encoder that is not trained here: an encoder file, or a spec, with or without weights."""
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of `TrainConfig` in which the row differs from the others. The budget is the same for all."""

    def __post_init__(self) -> None:
        if (self.task is None) == (self.source is None):
            raise ValueError(f"{self.name}: give a task or a source, and not both")
        if unfair := {*BUDGETS} & {*self.training}:
            raise ValueError(f"{self.name} sets {', '.join(sorted(unfair))}; all rows must have one budget")

    def train_config(self, common: TrainConfig, *, seed: int) -> TrainConfig:
        """Return the row's training settings, from those that all rows have."""
        return dataclasses.replace(common, **self.training, seed=seed)


PLAIN = (Row("hog", source="hog"), Row("pixels", source="pixels"))
"""Rows without learning, in every comparison. Probes that read features judge them."""


def by_name(rows: tuple[Row, ...]) -> dict[str, Row]:
    """Return rows by their names."""
    return {row.name: row for row in rows}

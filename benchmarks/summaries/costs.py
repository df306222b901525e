"""What the pretraining of a row cost, read from the records of its runs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from benchmarks.records.results import read_plan
from pretext.system.stored_json import Shape, read_json

if TYPE_CHECKING:
    from benchmarks.records.results import Measurement

RUN: Shape = {
    "images_seen": float,
    "wall_s": float,
    "peak_mem_bytes": float,
    "cpu_s?": float,
    "flops_per_image?": float,
    "train_config?": {"seconds?": (NoneType, float)},
}
"""What a `run.json` must hold."""
COSTS = (("images", "seen"), ("work", "TFLOP"), ("processor", "s"), ("memory", "MB"))
"""Columns of a row's cost: name and unit; see `cost_values`."""
COST_FORMATS = (",.0f", ",.1f", ",.0f", ",.0f")
"""How their values are written."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of a row's pretraining, averaged over seeds."""

    images_seen: float
    wall_s: float
    peak_mem_bytes: float
    flops: float | None = None
    """Floating-point operations, forward and backward; None if a run did not count them."""
    cpu_s: float | None = None
    """Processor time; None if a run did not count it."""
    seconds_given: bool = False
    """Whether the budget was given in seconds, which makes `wall_s` meaningless as a cost."""


def read_costs(out: Path, measurements: Iterable[Measurement]) -> dict[str, Cost]:
    """Return the cost of each trained row, from the `run.json` files of its encoders.

    Args:
        out: The results folder.
        measurements: Its measurements. Their encoders count, and those of OUT/plan.json that no probe has judged yet.
    """
    cells = {(m.pretext, m.config_json) for m in measurements}
    names = {(row, json.loads(settings).get("pretrain")) for row, settings in cells}
    names |= {(cell["pretext"], cell["name"]) for cell in read_plan(out).get("cells", ()) if not cell["probe"]}
    runs: dict[str, list[dict[str, Any]]] = {}
    for row, name in sorted((row, name) for row, name in names if name):
        path = out / "pretrain" / name / "run.json"
        if path.exists():
            runs.setdefault(row, []).append(read_run_file(path))
    return {
        row: Cost(
            images_seen=_mean(run["images_seen"] for run in seeds),
            wall_s=_mean(run["wall_s"] for run in seeds),
            peak_mem_bytes=_mean(run["peak_mem_bytes"] for run in seeds),
            flops=_mean(run["images_seen"] * run["flops_per_image"] for run in seeds)
            if all("flops_per_image" in run for run in seeds)
            else None,
            cpu_s=_mean(run["cpu_s"] for run in seeds) if all("cpu_s" in run for run in seeds) else None,
            seconds_given=any(run.get("train_config", {}).get("seconds") is not None for run in seeds),
        )
        for row, seeds in runs.items()
    }


def read_run_file(path: Path) -> dict[str, Any]:
    """Return the content of a `run.json`; a damaged one raises a UserError."""
    run: dict[str, Any] = read_json(path, RUN, remedy="move its folder away to train again")
    return run


def _mean(numbers: Iterable[float]) -> float:
    values = list(numbers)
    return sum(values) / len(values)


def cost_values(cost: Cost | None) -> list[float | None]:
    """Return images, floating-point operations in 10¹², seconds on the processor and megabytes; None if not known."""
    if cost is None:
        return [None] * len(COSTS)
    return [cost.images_seen, None if cost.flops is None else cost.flops / 1e12, cost.cpu_s, cost.peak_mem_bytes / 1e6]


def cost_texts(cost: Cost | None) -> list[str]:
    """Return the columns of a row's cost as text."""
    pairs = zip(cost_values(cost), COST_FORMATS, strict=True)
    return ["–" if value is None else format(value, how) for value, how in pairs]

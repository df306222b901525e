"""Measurement rows on disk: one JSON file a cell, whole or absent, and the CSV and Parquet that are derived from them.

This module imports neither torch nor pandas: who only reads results should not wait for them.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import math
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pretext.system.checkpoint import atomic_write
from pretext.system.errors import UserError

SCHEMA_VERSION = 1
"""Rises whenever a field of `Measurement` is added, removed or changes its meaning."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One number and everything needed to understand it: a row of the results."""

    schema_version: int
    cell: str
    """Name of the cell and of its file: row, probe, seed, and a hash of all that the value depends on."""
    pretext: str
    """The row: a task's name (a variant behind a colon), `random`, `supervised`, a foreign encoder's name."""
    encoder: str
    """The architecture, as `build_encoder` takes it."""
    pretrain_data: str
    """Spec of the data that the encoder was trained on; empty for random weights."""
    images_seen: int
    """Pictures that pretraining went through, repeats counted."""
    probe: str
    stage: str
    data: str
    data_fingerprint: str
    split: str
    metric: str
    value: float
    unit: str
    higher_is_better: bool
    chance: float | None
    n: int
    headline: bool
    seed: int
    wall_s: float
    """Seconds that the whole cell took."""
    peak_mem_bytes: int
    """Most memory that the cell's process held: on the accelerator where there is one, else resident."""
    device: str
    config_json: str
    """Task, training, encoder and probe settings; under `pretrain` the folder that the encoder lies in."""
    encoder_sha256: str
    git_sha: str
    git_dirty: bool
    torch_version: str
    started_at: str
    items: list[float] | None = None
    """Per-item results whose mean is `value`; in the JSON, not in the CSV."""


COLUMNS = tuple(field.name for field in dataclasses.fields(Measurement) if field.name != "items")


def result_path(out: Path, cell: str) -> Path:
    """Return where a cell's rows lie."""
    return out / "results" / f"{cell}.json"


def failure_path(out: Path, cell: str) -> Path:
    """Return where a cell's failure lies."""
    return out / "failures" / f"{cell}.json"


def encoder_path(out: Path, encoder_cell: str) -> Path:
    """Return where the encoder file that a cell makes lies."""
    return out / "pretrain" / encoder_cell / "encoder.safetensors"


def write_cell(out: Path, cell_name: str, rows: list[Measurement]) -> Path:
    """Write a cell's rows, all or none, and forget its earlier failure.

    Raises:
        ValueError: If there are no rows, or a value is not a finite number: that is a failure, not a result.
    """
    if not rows:
        raise ValueError(f"{cell_name}: the probe yielded no score")
    for row in rows:
        if not math.isfinite(row.value) or not all(map(math.isfinite, row.items or ())):
            raise ValueError(f"{cell_name}: {row.metric} {row.stage} is {row.value}, or one of its items is no number")
    path = result_path(out, cell_name)
    write_json(path, {"schema_version": SCHEMA_VERSION, "measurements": [vars(row) for row in rows]})
    failure_path(out, cell_name).unlink(missing_ok=True)
    return path


def write_failure(out: Path, cell_name: str, error: BaseException | str, **about: Any) -> None:
    """Write what went wrong in a cell, with the traceback where there is one."""
    text = error if isinstance(error, str) else "".join(traceback.format_exception(error))
    summary = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    write_json(failure_path(out, cell_name), {"cell": cell_name, "error": summary, "traceback": text, **about})


def read_failures(out: Path) -> list[dict[str, Any]]:
    """Return the failures: cell, error, traceback, and what else was noted."""
    return [read_json(path) for path in sorted((out / "failures").glob("*.json"))]


def read_measurements(out: Path) -> list[Measurement]:
    """Return all rows of a results folder, in the order of the cells' names.

    Raises:
        UserError: If a file was written by another version of this suite, or cannot be read.
    """
    return [row for path in sorted((out / "results").glob("*.json")) for row in read_cell(path)]


def read_cell(path: Path) -> list[Measurement]:
    """Return the rows of one cell; raise a UserError as `read_measurements` does."""
    content = read_json(path)
    _check_schema(path, content, "move the file away, and its cell is computed again")
    try:
        rows = [Measurement(**row) for row in content["measurements"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: not a cell's results ({error}); move it away, and it is computed again") from None
    if not rows:
        raise UserError(f"{path}: not a cell's results (none is there); move it away, and it is computed again")
    return rows


def write_plan(out: Path, plan: dict[str, Any]) -> None:
    """Write OUT/plan.json."""
    write_json(out / "plan.json", {"schema_version": SCHEMA_VERSION, **plan})


def read_plan(out: Path) -> dict[str, Any]:
    """Return what OUT/plan.json says; nothing where there is none.

    Raises:
        UserError: If it was written by another version of this suite, or is no plan.
    """
    path = out / "plan.json"
    if not path.exists():
        return {}
    remedy = "move it away and start the same command again"
    plan: Any = read_json(path, remedy)
    if not (isinstance(plan, dict) and isinstance(plan.get("cells"), list)):
        raise UserError(f"{path}: not a comparison's plan; {remedy}")
    _check_schema(path, {"schema_version": SCHEMA_VERSION} | plan, remedy)  # the first plans did not say
    return plan


def _check_schema(path: Path, content: Any, remedy: str) -> None:
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(f"{path}: schema_version is {version}, this suite reads {SCHEMA_VERSION}; {remedy}")


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a row's pretraining took, averaged over its seeds."""

    images_seen: float
    wall_s: float
    peak_mem_bytes: float
    flops: float | None = None
    """Forward and backward; None where a run did not count them."""
    seconds_given: bool = False
    """Whether seconds were its budget, so that they tell nothing of the row."""


def read_costs(out: Path) -> dict[str, Cost]:
    """Return each trained row's cost, from the `run.json` beside the encoders that OUT/plan.json lists."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for cell in read_plan(out).get("cells", ()):
        path = out / "pretrain" / cell["name"] / "run.json"
        if not cell["probe"] and path.exists():
            runs.setdefault(cell["pretext"], []).append(read_json(path))
    return {
        row: Cost(
            images_seen=_mean(run["images_seen"] for run in seeds),
            wall_s=_mean(run["wall_s"] for run in seeds),
            peak_mem_bytes=_mean(run["peak_mem_bytes"] for run in seeds),
            flops=_mean(run["images_seen"] * run["flops_per_image"] for run in seeds)
            if all("flops_per_image" in run for run in seeds)
            else None,
            seconds_given=any(run.get("train_config", {}).get("seconds") is not None for run in seeds),
        )
        for row, seeds in runs.items()
    }


def _mean(numbers: Iterable[float]) -> float:
    values = list(numbers)
    return sum(values) / len(values)


def write_csv(out: Path) -> Path:
    """Write `results.csv` from the JSON files; return its path."""
    path = out / "results.csv"
    with atomic_write(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(vars(row) for row in read_measurements(out))
    return path


def write_parquet(out: Path) -> Path | None:
    """Write `results.parquet`, the columns of `results.csv`, where pyarrow is installed; return its path.

    Where it is not, an older one is deleted rather than left to be taken for this one.
    """
    path = out / "results.parquet"
    if importlib.util.find_spec("pyarrow") is None:
        path.unlink(missing_ok=True)
        return None
    import pandas as pd

    frame = pd.DataFrame([[getattr(row, name) for name in COLUMNS] for row in read_measurements(out)], columns=COLUMNS)
    with atomic_write(path) as beside:
        frame.astype({"chance": float}).to_parquet(beside, engine="pyarrow", index=False)  # not of objects if all None
    return path


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all; a number that is not finite raises ValueError."""
    with atomic_write(path) as beside:
        beside.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")


def read_json(path: Path, remedy: str = "move it away, and its cell is computed again") -> Any:
    """Return a JSON file's content.

    Raises:
        UserError: If it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: no JSON ({error}); {remedy}") from None

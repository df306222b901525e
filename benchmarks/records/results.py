"""The results folder on disk: one JSON file per cell, the plan, failures and costs, and the derived CSV and Parquet.

Files are written atomically. This module imports neither torch nor pandas, so that reading results starts fast.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import math
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from benchmarks.words.columns import sets_of, with_columns
from pretext.system.checkpoint import atomic_write
from pretext.system.errors import UserError
from pretext.system.stored_json import Shape, misfit, parse_json, read_json

SCHEMA_VERSION = 1
"""Increase it when a field of `Measurement` is added, removed or changes its meaning."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One measured number with everything needed to interpret it: a row of the results."""

    schema_version: int
    cell: str
    """Name of the cell and its file: row, probe, seed, and a hash of all settings that the value depends on."""
    pretext: str
    """Name of the row: a task with its variant, `random`, `supervised`, or an external encoder."""
    encoder: str
    """Architecture spec, as `build_encoder` takes it."""
    pretrain_data: str
    """Spec of the training data of the encoder, as far as it is known; empty for HOG and pixels."""
    images_seen: int
    """Images that pretraining processed, with repeats."""
    probe: str
    """The probe, in the files; `read_measurements` gives the column, `linear on camvid` with several data sets."""
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
    """Wall-clock seconds of the whole cell."""
    peak_mem_bytes: int
    """Peak memory of the cell's process: on the GPU if there is one, else resident."""
    device: str
    config_json: str
    """Settings of task, training, encoder and probe; `pretrain` names the folder of the encoder."""
    encoder_sha256: str
    git_sha: str
    git_dirty: bool
    torch_version: str
    started_at: str
    items: list[float] | None = None
    """Per-item results whose mean is `value`; only in the JSON, not in the CSV."""


_KINDS: dict[str, Shape] = {"str": str, "int": int, "float": float, "bool": bool, "float | None": (NoneType, float)}
_KINDS["list[float] | None"] = (NoneType, [float])
CELL: Shape = {
    "measurements": [
        {
            field.name + "?" * (field.name == "items"): _KINDS[str(field.type)]
            for field in dataclasses.fields(Measurement)
        }
    ]
}
"""What a results file must hold; the shapes below are those of the other files."""
FAILURE: Shape = {"cell": str, "error": str, "traceback": str}
PLAN: Shape = {
    "cells": [{"name": str, "pretext": str, "probe": str, "trains?": bool, "processes?": int}],
    "data?": (str, [str]),
    "synthetic_sets?": [str],
    **dict.fromkeys(("profile?", "pretrain_data?", "command?", "encoder?", "sized?", "bad_images?"), str),
    "image_size?": int,
    "expected_s?": {"*": float},
    "train_pictures?": {"*": int},
    "notes?": [str],
    "left_out?": [str],
}
COLUMNS = tuple(field.name for field in dataclasses.fields(Measurement) if field.name != "items")


def result_path(out: Path, cell: str) -> Path:
    """Return the file of a probe cell's rows."""
    return out / "results" / f"{cell}.json"


def superseded_path(out: Path, cell: str) -> Path:
    """Return where a probe cell's rows lie while no plan has the cell."""
    return out / "superseded" / f"{cell}.json"


def failure_path(out: Path, cell: str) -> Path:
    """Return the file of a cell's failure."""
    return out / "failures" / f"{cell}.json"


def encoder_path(out: Path, encoder_cell: str) -> Path:
    """Return the encoder file that an encoder cell writes."""
    return out / "pretrain" / encoder_cell / "encoder.safetensors"


def write_cell(out: Path, cell_name: str, rows: list[Measurement]) -> Path:
    """Write all rows of a cell in one file, and delete its earlier failure.

    Raises:
        ValueError: If there are no rows, or a value is not finite: that is a failure, not a result.
    """
    if not rows:
        raise ValueError(f"{cell_name}: the probe yielded no score")
    for row in rows:
        if not math.isfinite(row.value) or not all(map(math.isfinite, row.items or ())):
            raise ValueError(f"{cell_name}: {row.metric} {row.stage} is {row.value}, or one of its items is not finite")
    path = result_path(out, cell_name)
    write_json(path, {"schema_version": SCHEMA_VERSION, "measurements": [vars(row) for row in rows]})
    failure_path(out, cell_name).unlink(missing_ok=True)
    return path


def write_failure(out: Path, cell_name: str, error: BaseException | str, **about: Any) -> None:
    """Write the error of a cell, with the traceback if there is one.

    Args:
        out: The results folder.
        cell_name: The failed cell.
        error: The exception, or a message.
        about: Further fields of the file: row, probe and seed.
    """
    text = error if isinstance(error, str) else "".join(traceback.format_exception(error))
    summary = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    write_json(failure_path(out, cell_name), {"cell": cell_name, "error": summary, "traceback": text, **about})


def read_failures(out: Path) -> list[dict[str, Any]]:
    """Return the failures: cell, error, traceback and further fields.

    Raises:
        UserError: If a file is damaged.
    """
    return [read_failure(path) for path in sorted((out / "failures").glob("*.json"))]


def read_failure(path: Path) -> dict[str, Any]:
    """Return one failure.

    Raises:
        UserError: If the file is damaged.
    """
    failure: dict[str, Any] = read_json(path, FAILURE, remedy="delete it; its cell is computed again")
    return failure


def read_measurements(out: Path, *, sets: Sequence[str] | None = None) -> list[Measurement]:
    """Return all rows of a results folder, sorted by cell name; with several data sets by set first.

    Args:
        out: The results folder.
        sets: Data sets whose columns `Measurement.probe` names; those of OUT/plan.json if None.

    Raises:
        UserError: If a file has another schema version, or cannot be read.
    """
    found = [row for path in sorted((out / "results").glob("*.json")) for row in read_cell(path)]
    return with_columns(found, sets_of(read_plan(out)) if sets is None else sets)


def read_cell(path: Path) -> list[Measurement]:
    """Return the rows of one cell.

    Raises:
        UserError: If the file has another schema version, or cannot be read.
    """
    remedy = "move the file away to compute its cell again"
    content = read_json(path, remedy=remedy)
    _check_schema(path, content, remedy)
    wrong = misfit(content, CELL)
    try:
        rows = [] if wrong else [Measurement(**row) for row in content["measurements"]]
    except TypeError as error:  # an unknown field
        raise UserError(f"{path}: not the results of a cell ({error}); {remedy}") from None
    if not rows:
        raise UserError(f"{path}: not the results of a cell ({wrong or 'no rows'}); {remedy}")
    for row in rows:
        parse_json(row.config_json, {"pretrain?": str, "train?": dict}, source=f"{path}: config_json", remedy=remedy)
    return rows


def latest(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Drop replaced measurements: of several cells for one row, probe and seed, only the latest counts."""
    counts: dict[tuple[str, str, int], tuple[str, str]] = {}
    for m in measurements:
        key = (m.pretext, m.probe, m.seed)
        counts[key] = max(counts.get(key, ("", "")), (m.started_at, m.cell))
    return [m for m in measurements if counts[m.pretext, m.probe, m.seed][1] == m.cell]


def write_plan(out: Path, plan: dict[str, Any]) -> None:
    """Write OUT/plan.json."""
    write_json(out / "plan.json", {"schema_version": SCHEMA_VERSION, **plan})


def read_plan(out: Path) -> dict[str, Any]:
    """Return the content of OUT/plan.json; an empty dictionary if the file does not exist.

    Raises:
        UserError: If the file has another schema version, or is not a plan.
    """
    path = out / "plan.json"
    if not path.exists():
        return {}
    remedy = "move it away and start the same command again"
    plan: Any = read_json(path, remedy=remedy)
    if not (isinstance(plan, dict) and isinstance(plan.get("cells"), list)):
        raise UserError(f"{path}: not the plan of a comparison; {remedy}")
    _check_schema(path, {"schema_version": SCHEMA_VERSION} | plan, remedy)  # early plans have no version
    if wrong := misfit(plan, PLAN):
        raise UserError(f"{path}: not the plan of a comparison ({wrong}); {remedy}")
    return plan


def _check_schema(path: Path, content: Any, remedy: str) -> None:
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(f"{path}: schema_version is {version}, this suite reads {SCHEMA_VERSION}; {remedy}")


def write_csv(out: Path, measurements: Sequence[Measurement] | None = None) -> Path:
    """Write `results.csv` from the measurements, those of the folder if None; return its path."""
    measurements = read_measurements(out) if measurements is None else measurements
    path = out / "results.csv"
    with atomic_write(path) as beside, beside.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(vars(row) for row in measurements)
    return path


def write_parquet(out: Path, measurements: Sequence[Measurement] | None = None) -> Path | None:
    """Write `results.parquet`, with the rows and columns of `results.csv`, and return its path.

    Without pyarrow the result is None, and an older file is deleted because it would be outdated.
    """
    path = out / "results.parquet"
    if importlib.util.find_spec("pyarrow") is None:
        path.unlink(missing_ok=True)
        return None
    import pandas as pd

    measurements = read_measurements(out) if measurements is None else measurements

    def printable(value: Any) -> Any:
        return value.encode(errors="replace").decode() if isinstance(value, str) else value

    rows = [[printable(getattr(row, name)) for name in COLUMNS] for row in measurements]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    with atomic_write(path) as beside:  # as bytes: pyarrow itself takes only paths in UTF-8
        # a column that is all None would have the type object
        beside.write_bytes(frame.astype({"chance": float}).to_parquet(engine="pyarrow", index=False))
    return path


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically.

    Raises:
        ValueError: If a number is not finite.
    """
    with atomic_write(path) as beside:
        beside.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")

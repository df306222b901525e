"""A cell made again: from the settings that lie beside its numbers, whatever profiles and command lines say today."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cells import Cell, Inpainting, Judge, apart, encoder_cell, flat, judge_cell
from benchmarks.results import Measurement, read_plan
from benchmarks.wording import and_list
from pretext.system.errors import UserError

if TYPE_CHECKING:
    from benchmarks.cells import DataSource
    from pretext.datasets.packed import BadImages

GPU_TOLERANCE = 0.02
"""Largest difference that counts as the same on a GPU, as a share of the value. There sums are added in an order that
changes from run to run, and training carries the roundings on; so far from bitwise are about five roundings of
bfloat16 (1/256). Chosen, not measured."""
CPU = "cpu"
"""What `Measurement.device` says of a machine without a GPU."""


def stored_cell(out: Path, stored: Measurement) -> tuple[Cell, Cell]:
    """Return the encoder cell and the judge cell that a measurement is of, made from its own settings.

    Args:
        out: The results folder; its plan says what was done with pictures that cannot be decoded.
        stored: Any row of the cell.

    Raises:
        UserError: If its data, task, probe or encoder file is no more what it was, or today's code takes the same
            settings for others.
    """
    from benchmarks.plan import open_data

    settings = json.loads(stored.config_json)
    bad_images: BadImages = read_plan(out).get("bad_images", "skip")
    try:

        def opened(spec: str) -> DataSource:
            return open_data(spec, settings["image_size"], bad_images=bad_images, download=False)[0]

        source = opened(stored.data)
        elsewhere = "task" in settings and stored.pretrain_data not in ("", stored.data)
        maker = encoder_cell(
            stored.pretext,
            seed=settings["seed"],
            data=opened(stored.pretrain_data) if elsewhere else source,
            encoder=settings.get("encoder", stored.encoder),
            task=settings["spec"] if "task" in settings else None,
            train=_train_config(settings["train"]) if "task" in settings else None,
            foreign=settings["spec"] if "foreign" in settings else None,
        )
        judge = _judge(stored.probe, settings)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{stored.cell}: today's code cannot read its settings ({error}); {_checkout(stored)}"
        ) from None
    except OSError as error:
        raise UserError(
            f"{stored.cell}: {error.filename}: {error.strerror}; put it back, or start where that path leads to it"
        ) from None
    cell = judge_cell(maker, stored.probe, judge, seed=stored.seed, data=source)
    if cell.name != stored.cell:
        changed = apart(flat(settings), flat(json.loads(cell.settings)))
        raise UserError(f"{stored.cell} would be another cell today: {and_list(changed)}; {_checkout(stored)}")
    return maker, cell


def same_value(was: float, now: float, device: str) -> bool:
    """Whether a value was reproduced: to the last bit on a CPU, within `GPU_TOLERANCE` on a GPU.

    Args:
        was: As it was found.
        now: As it is found again.
        device: As `Measurement.device` says where it was found.
    """
    return was == now or (device != CPU and abs(was - now) <= GPU_TOLERANCE * max(abs(was), abs(now)))


def held_against(before: Sequence[Measurement], again: Sequence[Measurement]) -> tuple[list[str], bool]:
    """Return a line for each value of a cell and one for all, and whether all are the same.

    Args:
        before: The cell's rows as they were found; one at least.
        again: As they are found again.
    """
    first, now = before[0], {(row.metric, row.stage): row for row in again}
    was = {(row.metric, row.stage): row for row in before}
    lines, same = [], True
    for key in dict.fromkeys((*was, *now)):
        ends = [str(rows[key].value) if key in rows else "missing" for rows in (was, now)]
        same &= key in was and key in now and same_value(was[key].value, now[key].value, first.device)
        lines.append(f"{' '.join(filter(None, key))}: was {ends[0]}, is {ends[1]}")
    how = "to the last bit, as on a CPU" if first.device == CPU else f"within {GPU_TOLERANCE:.0%}, as on a GPU"
    if same:
        return [*lines, f"reproduced {how}"], True
    return [*lines, f"NOT reproduced {how}{''.join(f'; {reason}' for reason in _reasons(first, again))}"], False


def _reasons(before: Measurement, again: Sequence[Measurement]) -> list[str]:
    """Return what is not as it was, and may be why the value is not."""
    reasons = []
    seconds = json.loads(before.config_json).get("train", {}).get("seconds")
    if seconds is not None:
        reasons.append(f"it was trained for {seconds} seconds, which nothing repeats")
    if before.git_dirty:
        reasons.append("it was found by code that no commit holds")
    for name, field in (("device", "device"), ("PyTorch", "torch_version"), ("revision", "git_sha")):
        ends = [getattr(row, field) or "unknown" for row in (before, again[0])]
        if ends[0] != ends[1]:
            reasons.append(f"{name} was {ends[0]}, is {ends[1]}")
    return reasons or ["code, PyTorch and device are what they were: see processor and threads in environment.json"]


def _judge(name: str, settings: Mapping[str, Any]) -> Judge:
    from benchmarks import recipes
    from pretext.judging import probe_in_file

    fields = {key: _frozen(value) for key, value in settings["probe_config"].items()}
    if "@" in settings["probe"]:  # a file of the user's own
        return probe_in_file(Path(settings["probe_file"]))(**fields)
    return Inpainting(**fields) if name == "inpainting" else recipes.probe_types()[name](**fields)


def _train_config(fields: Mapping[str, Any]) -> Any:
    from pretext.training.config import TrainConfig

    return TrainConfig(**{key: _frozen(value) for key, value in fields.items()})


def _frozen(value: Any) -> Any:
    """Return lists, as JSON has them, as the tuples that settings hold."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _checkout(stored: Measurement) -> str:
    dirty = " (with changes that no commit holds)" if stored.git_dirty else ""
    return f"check out {stored.git_sha}{dirty}" if stored.git_sha else "no revision was recorded"

"""Compute a stored cell again, from the settings in its results file; profiles and command lines do not matter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.planning.cells import AnyProbe, Cell, Inpainting, differing_settings, encoder_cell, flat, probe_cell
from benchmarks.records.results import Measurement, read_plan
from benchmarks.words.wording import and_list
from pretext.system.errors import UserError
from pretext.system.installation import DISTRIBUTION
from pretext.system.specs import parse_spec

if TYPE_CHECKING:
    from benchmarks.planning.cells import DataSource
    from pretext.datasets.packed import BadImages

GPU_TOLERANCE = 0.02
"""Relative difference up to which a value counts as reproduced on a GPU. A GPU sums in an order that changes between
runs, and training amplifies the rounding errors. The tolerance is about five roundings of bfloat16 (1/256 each);
it was chosen, not measured."""
CPU = "cpu"
"""`Measurement.device` of a machine without a GPU."""


def stored_cell(out: Path, stored: Measurement) -> tuple[Cell, Cell]:
    """Return the encoder cell and the probe cell of a measurement, rebuilt from its stored settings.

    Args:
        out: The results folder; its plan says how undecodable images were handled.
        stored: Any row of the cell.

    Raises:
        UserError: If data, task, probe or encoder file have changed, or today's code gives the cell another hash.
    """
    from benchmarks.planning.making import open_data

    settings = json.loads(stored.config_json)
    bad_images: BadImages = read_plan(out).get("bad_images", "skip")
    try:

        def opened(spec: str) -> DataSource:
            return open_data(spec, settings["image_size"], bad_images=bad_images, download=False)[0]

        source = opened(stored.data)
        own_pretrain_data = "task" in settings and stored.pretrain_data not in ("", stored.data)
        encoder = encoder_cell(
            stored.pretext,
            seed=settings["seed"],
            data=opened(stored.pretrain_data) if own_pretrain_data else source,
            encoder=_architecture(settings.get("encoder", stored.encoder), stored.encoder),
            task=settings["spec"] if "task" in settings else None,
            train=_train_config({**settings["train"], "init": settings.get("init_file")})
            if "task" in settings
            else None,
            foreign=settings["spec"] if "foreign" in settings else None,
            processes=settings.get("processes", 1),
        )
        protocol = _probe(stored.probe, settings)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{stored.cell}: this version cannot read its settings ({error}); {_checkout(stored)}"
        ) from None
    except OSError as error:
        raise UserError(
            f"{stored.cell}: {error.filename}: {error.strerror}; restore the file, or run from the folder of that path"
        ) from None
    cell = probe_cell(encoder, stored.probe, protocol, seed=stored.seed, data=source)
    if cell.name != stored.cell:
        changed = differing_settings(flat(settings), flat(json.loads(cell.settings)))
        raise UserError(f"{stored.cell}: its settings have changed: {and_list(changed)}; {_checkout(stored)}")
    return encoder, cell


def _architecture(hashed: str, spec: str) -> str:
    """Return the spec of an encoder; a file of the user's own is hashed by its content and found by its path."""
    kind = parse_spec(hashed).kind
    return parse_spec(spec).kind + hashed.removeprefix(kind) if "@" in kind else hashed


def same_value(was: float, now: float, device: str) -> bool:
    """Whether a value was reproduced: exactly on a CPU, within `GPU_TOLERANCE` on a GPU.

    Args:
        was: The stored value.
        now: The new value.
        device: `Measurement.device` of the stored value.
    """
    return was == now or (device != CPU and abs(was - now) <= GPU_TOLERANCE * max(abs(was), abs(now)))


def compare_values(before: Sequence[Measurement], again: Sequence[Measurement]) -> tuple[list[str], bool]:
    """Compare the stored and the new values of a cell.

    Args:
        before: The stored rows of the cell; at least one.
        again: The new rows.

    Returns:
        One line per value and a last line on the whole cell, and whether all values were reproduced.
    """
    first, now = before[0], {(row.metric, row.stage): row for row in again}
    was = {(row.metric, row.stage): row for row in before}
    lines, same = [], True
    for key in dict.fromkeys((*was, *now)):
        ends = [str(rows[key].value) if key in rows else "missing" for rows in (was, now)]
        same &= key in was and key in now and same_value(was[key].value, now[key].value, first.device)
        lines.append(f"{' '.join(filter(None, key))}: was {ends[0]}, is {ends[1]}")
    exact = first.device == CPU
    rule = "bit for bit, as required on a CPU" if exact else f"within {GPU_TOLERANCE:.0%}, as required on a GPU"
    if same:
        return [*lines, f"reproduced {rule}"], True
    return [*lines, f"NOT reproduced {rule}{''.join(f'; {reason}' for reason in _reasons(first, again))}"], False


def _reasons(before: Measurement, again: Sequence[Measurement]) -> list[str]:
    """Return the changes that may explain a difference."""
    reasons = []
    seconds = json.loads(before.config_json).get("train", {}).get("seconds")
    if seconds is not None:
        reasons.append(f"the training budget was {seconds} seconds, which is not repeatable")
    if before.git_dirty:
        reasons.append("the stored value comes from uncommitted code")
    for name, field in (("device", "device"), ("PyTorch", "torch_version"), ("revision", "git_sha")):
        ends = [getattr(row, field) or "unknown" for row in (before, again[0])]
        if ends[0] != ends[1]:
            reasons.append(f"{name} was {ends[0]}, is {ends[1]}")
    return reasons or ["code, PyTorch and device are the same: compare processor and threads in environment.json"]


def _probe(name: str, settings: Mapping[str, Any]) -> AnyProbe:
    from benchmarks.planning import probes
    from pretext.judging import probe_in_file

    fields = {key: _frozen(value) for key, value in settings["probe_config"].items()}
    if "@" in settings["probe"]:  # a user's file
        return probe_in_file(Path(settings["probe_file"]))(**fields)
    return Inpainting(**fields) if name == "inpainting" else probes.probe_types()[name](**fields)


def _train_config(fields: Mapping[str, Any]) -> Any:
    from pretext.training.config import TrainConfig

    return TrainConfig(**{key: _frozen(value) for key, value in fields.items()})


def _frozen(value: Any) -> Any:
    """Convert JSON lists to tuples, as settings have them."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _checkout(stored: Measurement) -> str:
    dirty = " (plus uncommitted changes)" if stored.git_dirty else ""
    if stored.git_sha.startswith("v"):
        return f"install {DISTRIBUTION} {stored.git_sha[1:]}"
    return f"check out {stored.git_sha}{dirty}" if stored.git_sha else "no revision was recorded"

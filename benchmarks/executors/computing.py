"""Compute one cell: make an encoder, or run a probe and write its scores as measurements."""

from __future__ import annotations

import inspect
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.planning.cells import Cell, Inpainting, as_json, encoder_cell
from benchmarks.records.results import SCHEMA_VERSION, Measurement, encoder_path, failure_path, write_cell
from pretext.datasets.base import ImageDataset
from pretext.judging import Score
from pretext.system.checkpoint import remove_leftovers_in
from pretext.system.device import device_of
from pretext.system.errors import UserError
from pretext.system.memory import peak_memory, reset_peak_memory
from pretext.system.plugins import is_file
from pretext.system.revision import revision
from pretext.system.specs import parse_spec

if TYPE_CHECKING:
    from pretext.encoders.base import Encoder

SHEET_IMAGES = 8
"""Test images on the sheet of inpaintings."""


def compute(cell: Cell, out: Path) -> None:
    """Compute a cell and write its result.

    Args:
        cell: An encoder cell, or a probe cell whose encoder file exists.
        out: The results folder.

    Raises:
        RuntimeError: If the training of an encoder writes no encoder file.
    """
    reset_peak_memory()  # training records the peak too
    if cell.protocol is None:
        _make_encoder(cell, out)
        if not cell.is_done(out):
            raise RuntimeError(f"{cell.name}: training ended without {encoder_path(out, cell.name)}")
        failure_path(out, cell.name).unlink(missing_ok=True)
        return
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    encoder, scores = _run_probe(cell, out)
    write_cell(out, cell.name, _measurements(cell, encoder, scores, started, time.monotonic() - clock))


def _make_encoder(cell: Cell, out: Path) -> None:
    from pretext.encoders import load_encoder, save_encoder
    from pretext.encoders.weights import is_spec

    path = encoder_path(out, cell.name)
    _check_own_files(cell)
    if cell.foreign is not None:
        size = cell.data.size if is_spec(cell.foreign) else None
        encoder = load_encoder(cell.foreign, input_size=size)
        save_encoder(encoder, path, encoder.record)
    elif cell.processes == 1:
        _train(cell, path.parent)
    else:
        from pretext.system.launching import launch

        launch(_train, cell.processes, cell, path.parent)


def _train(cell: Cell, out: Path) -> None:
    """Train the encoder of a cell, in this process alone or as one of several."""
    from pretext.training.loop import train

    assert cell.task is not None and cell.train is not None
    train(cell.task, cell.encoder, cell.data.open(), cell.train, out, image_size=cell.data.size)


def _check_own_files(cell: Cell) -> None:
    """Raise a UserError if a file of the user's own has changed since the plan: its content is in the cell's name."""
    for spec in (cell.encoder, cell.task, cell.foreign):
        if spec is not None and is_file(spec):
            planned = encoder_cell(
                cell.pretext,
                seed=cell.seed,
                data=cell.data,
                encoder=cell.encoder,
                task=cell.task,
                train=cell.train,
                foreign=cell.foreign,
                processes=cell.processes,
            )
            if planned.name != cell.name:
                raise UserError(f"{parse_spec(spec).kind} was changed during the run; start the command again")


def _run_probe(cell: Cell, out: Path) -> tuple[Encoder, list[Score]]:
    from pretext.encoders import load_encoder

    assert cell.made_by is not None
    path = encoder_path(out, cell.made_by)
    encoder = load_encoder(path)
    data = cell.data.open()
    sheets = out / "artifacts" / cell.name
    for folder in (sheets, *(path for path in sheets.rglob("*") if path.is_dir())):
        remove_leftovers_in(folder)  # of a killed worker; its checkpoint stays
    if isinstance(cell.protocol, Inpainting):
        return encoder, _score_inpainting(cell, cell.protocol, data, path.parent, sheets)
    assert cell.protocol is not None
    encoder = encoder.to(device_of("auto"))
    return encoder, list(cell.protocol.evaluate(encoder, data, sheets))


def _score_inpainting(cell: Cell, protocol: Inpainting, data: ImageDataset, run: Path, out: Path) -> list[Score]:
    """Return the scores of a run's decoder, and write a sheet of filled images.

    Args:
        cell: The probe cell.
        protocol: Its probe.
        data: The probe's data.
        run: Folder of the training run.
        out: Folder of the sheet.
    """
    from pretext.inpainting import measuring as inpainting
    from pretext.tasks.base import Inpainter
    from pretext.training.run_folder import load_task
    from pretext.training.sample_sheets import sample_sheet

    task = load_task(run).to(device_of("auto"))
    assert isinstance(task, Inpainter)
    size, seed = cell.data.size, protocol.seed
    sample = inpainting.drawn_pictures(data, image_size=size, test_images=SHEET_IMAGES, seed=seed, hole="central")
    columns = {
        "input": sample.shown().float() / 255,
        cell.pretext: inpainting.filled_by(task, sample),
        "original": sample.images.float() / 255,
    }
    sample_sheet(columns, out / "inpainting.png")
    return inpainting.inpainting_scores(
        task, data, image_size=size, test_images=protocol.test_images, seed=seed, hole="central"
    )


def _measurements(cell: Cell, encoder: Encoder, scores: list[Score], started: str, wall_s: float) -> list[Measurement]:
    import torch

    from pretext.encoders.files import encoder_digest

    sha, dirty = revision()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    config = json.loads(cell.settings) | {"pretrain": cell.made_by, "spec": cell.task or cell.foreign}
    if cell.train is not None and cell.train.init is not None:
        config |= {"init_file": cell.train.init}
    if "@" in config["probe"]:  # a user's file is identified by its content and found by its path
        config |= {"probe_file": inspect.getfile(type(cell.protocol))}
    record = encoder.record
    dirty = dirty or record.get("git_dirty") is True  # the encoder was trained by uncommitted code
    images_seen = record.get("images_seen")
    pretrain_data = str(record.get("data", ""))
    digest, memory = encoder_digest(encoder), peak_memory()
    return [
        Measurement(
            schema_version=SCHEMA_VERSION,
            cell=cell.name,
            pretext=cell.pretext,
            encoder=encoder.spec,
            pretrain_data=pretrain_data,
            images_seen=int(images_seen) if isinstance(images_seen, int | float) else 0,
            probe=cell.probe,
            stage=score.stage,
            data=cell.data.spec,
            data_fingerprint=cell.data.fingerprint("test"),
            split="test",
            metric=score.metric,
            value=float(score.value),
            unit=score.unit,
            higher_is_better=score.higher_is_better,
            chance=None if score.chance is None else float(score.chance),
            n=int(score.n),
            headline=score.headline,
            seed=cell.seed,
            wall_s=round(wall_s, 3),
            peak_mem_bytes=memory,
            device=device,
            config_json=as_json(config),
            encoder_sha256=digest,
            git_sha=sha,
            git_dirty=dirty,
            torch_version=str(torch.__version__),
            started_at=started,
            items=None if score.items is None else np.asarray(score.items, dtype=np.float64).tolist(),
        )
        for score in scores
    ]

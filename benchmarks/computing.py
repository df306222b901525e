"""How a cell is computed: an encoder made, or a judge asked and its scores written as measurements."""

from __future__ import annotations

import inspect
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.cells import Cell, Inpainting, as_json
from benchmarks.results import SCHEMA_VERSION, Measurement, encoder_path, failure_path, write_cell
from pretext.datasets.base import ImageDataset
from pretext.judging import Score
from pretext.system.device import device_of
from pretext.system.memory import peak_memory, reset_peak_memory
from pretext.system.revision import revision

if TYPE_CHECKING:
    from pretext.encoders.base import Encoder

SHEET_PICTURES = 8
"""Test pictures on a sheet of inpaintings."""


def compute(cell: Cell, out: Path) -> None:
    """Compute a cell and write its result; the encoder that it needs is there."""
    reset_peak_memory()  # training reads the peak too
    if cell.judge is None:
        _make_encoder(cell, out)
        if not cell.is_done(out):
            raise RuntimeError(f"{cell.name}: training came back without {encoder_path(out, cell.name)}")
        failure_path(out, cell.name).unlink(missing_ok=True)
        return
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    encoder, scores = _judged(cell, out)
    write_cell(out, cell.name, _measurements(cell, encoder, scores, started, time.monotonic() - clock))


def _make_encoder(cell: Cell, out: Path) -> None:
    from pretext.encoders import build_encoder, load_encoder, save_encoder
    from pretext.encoders.weights import is_spec
    from pretext.training.loop import train

    path = encoder_path(out, cell.name)
    if cell.foreign is not None:
        size = cell.data.size if is_spec(cell.foreign) else None
        encoder = load_encoder(cell.foreign, input_size=size)
        save_encoder(encoder, path, encoder.record)
    elif cell.task is None:
        encoder = build_encoder(cell.encoder, input_size=cell.data.size, seed=cell.seed)
        save_encoder(encoder, path, {"task": "random", "images_seen": 0})
    else:
        assert cell.train is not None
        train(cell.task, cell.encoder, cell.data.open(), cell.train, path.parent, image_size=cell.data.size)


def _judged(cell: Cell, out: Path) -> tuple[Encoder, list[Score]]:
    from pretext.encoders import load_encoder

    assert cell.made_by is not None
    path = encoder_path(out, cell.made_by)
    encoder = load_encoder(path)
    data = cell.data.open()
    sheets = out / "artifacts" / cell.name
    for begun in sheets.rglob(".*.tmp"):  # by a worker that was killed; its checkpoint stays, its sheets are made anew
        begun.unlink(missing_ok=True)
    if isinstance(cell.judge, Inpainting):
        return encoder, _inpainted(cell, cell.judge, data, path.parent, sheets)
    assert cell.judge is not None
    encoder = encoder.to(device_of("auto"))
    return encoder, list(cell.judge.evaluate(encoder, data, sheets))


def _inpainted(cell: Cell, judge: Inpainting, data: ImageDataset, run: Path, out: Path) -> list[Score]:
    """Return the scores of a run's decoder, and write a sheet of what it paints."""
    from pretext.inpainting import measuring as inpainting
    from pretext.tasks.base import Inpainter
    from pretext.training.run_folder import load_task
    from pretext.training.sample_sheets import sample_sheet

    task = load_task(run).to(device_of("auto"))
    assert isinstance(task, Inpainter)
    size, seed = cell.data.size, judge.seed
    some = inpainting.drawn_pictures(data, image_size=size, test_images=SHEET_PICTURES, seed=seed, hole="central")
    columns = {
        "input": some.shown().float() / 255,
        cell.pretext: inpainting.filled_by(task, some),
        "original": some.images.float() / 255,
    }
    sample_sheet(columns, out / "inpainting.png")
    return inpainting.inpainting_scores(
        task, data, image_size=size, test_images=judge.test_images, seed=seed, hole="central"
    )


def _measurements(cell: Cell, encoder: Encoder, scores: list[Score], started: str, wall_s: float) -> list[Measurement]:
    import torch

    from pretext.encoders.files import encoder_digest

    sha, dirty = revision()
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    about = json.loads(cell.settings) | {"pretrain": cell.made_by, "spec": cell.task or cell.foreign}
    if "@" in about["probe"]:  # a user's file: known by its content, found by its path
        about |= {"probe_file": inspect.getfile(type(cell.judge))}
    record = encoder.record
    dirty = dirty or record.get("git_dirty") is True  # an encoder that such code trained
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
            device=where,
            config_json=as_json(about),
            encoder_sha256=digest,
            git_sha=sha,
            git_dirty=dirty,
            torch_version=str(torch.__version__),
            started_at=started,
            items=None if score.items is None else np.asarray(score.items, dtype=np.float64).tolist(),
        )
        for score in scores
    ]

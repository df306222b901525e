"""The folder of a training run: what decided it, its checkpoint, its encoder, and the task put together again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from pretext.datasets.base import ImageDataset
from pretext.encoders import build_encoder
from pretext.encoders.files import load_strictly, save_encoder
from pretext.encoders.foreign import FILE_OPTIONS
from pretext.system.checkpoint import (
    atomic_write,
    file_sha256,
    load_optimizer,
    optimizer_tensors,
    read_checkpoint,
    save_checkpoint,
)
from pretext.system.errors import UserError
from pretext.system.memory import peak_memory
from pretext.system.plugins import is_file
from pretext.system.revision import revision
from pretext.system.specs import parse_spec, without_options
from pretext.tasks import build_task, task_config
from pretext.tasks.base import LabelKind, Task, label_kind
from pretext.training.config import NOT_IN_RESULT, TrainConfig

CHECKPOINT = "checkpoint.safetensors"


class Reached(NamedTuple):
    """How far a run has come."""

    step: int
    seconds: float
    """Of training, over all sittings."""
    flops_per_image: float
    """Forward and backward."""
    finished: bool


class Checkpoint(NamedTuple):
    """A run as it lies on disk."""

    tensors: dict[str, Tensor]
    reached: Reached


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what it makes."""

    path: Path
    settings: Mapping[str, Any]
    """All that decides the encoder that comes out; see `run_settings`."""

    @property
    def encoder(self) -> Path:
        """The file that a finished run leaves."""
        return self.path / "encoder.safetensors"

    def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint that lies here, if any.

        Raises:
            UserError: If it is of another run, or cannot be read.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; give --out a folder")
        file = self.path / CHECKPOINT
        if not file.is_file():
            return None
        tensors, about = read_checkpoint(file)
        there = _flat(about.pop("settings", {}))
        for key, value in _flat(self.settings).items():
            if key != "data" and there.get(key) != value:
                raise UserError(
                    f"{self.path} holds a run with {key} = {there.get(key)}, and {value} is asked for; "
                    "give another --out, or delete it"
                )
        return Checkpoint(tensors, Reached(**about))

    def restore(self, model: Task, optimizers: Mapping[str, Optimizer], tensors: dict[str, Tensor]) -> None:
        """Put a checkpoint's tensors back."""
        load_strictly(model, _of_task(tensors), str(self.path))
        for player, optimizer in optimizers.items():
            load_optimizer(player, optimizer, tensors)

    def save(self, model: Task, optimizers: Mapping[str, Optimizer], reached: Reached) -> None:
        """Write the checkpoint."""
        tensors = {f"task.{name}": value for name, value in model.state_dict().items()}
        for player, optimizer in optimizers.items():
            tensors |= optimizer_tensors(player, optimizer)
        save_checkpoint(self.path / CHECKPOINT, tensors, reached._asdict() | {"settings": self.settings})

    def finish(self, model: Task, reached: Reached, *, images_seen: int) -> None:
        """Write `run.json`, what the run was and cost, and the encoder's file."""
        started_from = model.encoder.record.get("weights")
        record = {
            **({"started_from": started_from} if started_from else {}),
            **self.settings,
            "images_seen": images_seen,
            "version": version("pretext-bench"),
            "git_sha": revision().sha,
            "git_dirty": revision().dirty,
        }
        about = record | {
            "wall_s": reached.seconds,
            "peak_mem_bytes": peak_memory(),
            "flops_per_image": reached.flops_per_image,
            "parameters": {
                "encoder": sum(p.numel() for p in model.encoder.parameters()),
                "task": sum(p.numel() for p in model.parameters()),
            },
        }
        with atomic_write(self.path / "run.json") as beside:
            beside.write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")
        save_encoder(model.encoder, self.encoder, record)


def run_settings(
    task: str, task_settings: Any, encoder: str, data: ImageDataset, config: TrainConfig, *, image_size: int
) -> dict[str, Any]:
    """Return all that decides the encoder that comes out of a run; see `train` for the arguments."""
    name = task.split("?", maxsplit=1)[0]
    own: dict[str, Any] = {}
    if is_file(task):  # whose path says where, and whose hash says what
        own = {"task_sha256": file_sha256(Path(parse_spec(task).kind))}
        name = f"{Path(name).parent.resolve()}/{Path(name).name}"
    chosen = dataclasses.asdict(config)
    kind = label_kind(data)
    return own | {
        "task": name,
        "task_config": dataclasses.asdict(task_settings),
        "encoder": encoder,
        "image_size": image_size,
        "train_config": {key: value for key, value in chosen.items() if key not in NOT_IN_RESULT},
        "data": data.spec,
        "data_fingerprint": data.fingerprint,
        "labels": list(kind) if kind else None,
    }


def load_task(folder: str | Path) -> Task:
    """Return the task of a run's folder with its trained weights, in evaluation mode.

    Raises:
        UserError: If the folder holds no checkpoint, or one that does not match its own settings.
    """
    file = Path(folder) / CHECKPOINT
    tensors, about = read_checkpoint(file)
    settings = about["settings"]
    kind = settings["labels"]
    config = dataclasses.replace(task_config(settings["task"]), **settings["task_config"])
    architecture = without_options(settings["encoder"], "pretrained", *FILE_OPTIONS)
    encoder = build_encoder(architecture, input_size=settings["image_size"], seed=0)
    task = build_task(config, encoder, labels=LabelKind(*kind) if kind else None, seed=0)
    load_strictly(task, _of_task(tensors), str(file))
    return task.eval()


def _of_task(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("task."): value for name, value in tensors.items() if name.startswith("task.")}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat

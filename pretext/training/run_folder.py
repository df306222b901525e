"""The folder of a training run: its settings, its checkpoint, its encoder file, and how to load its task again."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from pretext.datasets.base import ImageDataset
from pretext.encoders import Encoder, build_encoder
from pretext.encoders.files import encoder_digest, load_strictly, read_record, save_encoder
from pretext.encoders.foreign import FILE_OPTIONS
from pretext.encoders.own import check_code
from pretext.encoders.weights import is_spec, weights_file
from pretext.system.background import begun
from pretext.system.checkpoint import (
    atomic_write,
    file_sha256,
    load_optimizer,
    optimizer_tensors,
    read_checkpoint,
    remove_leftovers,
    remove_leftovers_in,
    save_checkpoint,
)
from pretext.system.distributed import world
from pretext.system.errors import UserError
from pretext.system.memory import peak_memory
from pretext.system.plugins import absolute_file, is_file
from pretext.system.revision import revision
from pretext.system.specs import parse_spec, without_options
from pretext.system.stored_json import Shape, misfit
from pretext.tasks import build_task, task_config
from pretext.tasks.base import LabelKind, Task, label_kind
from pretext.training.config import BY_CONTENT, NOT_IN_RESULT, TrainConfig
from pretext.training.run_state import STATE, RunState

CHECKPOINT = "checkpoint.safetensors"
KEPT = "kept"
"""Folder of the encoder files from earlier steps; see `TrainConfig.keep`."""
SETTINGS: Shape = {
    "task": str,
    "task_config": dict,
    "encoder": str,
    "image_size": int,
    "labels": (NoneType, list),
}


class Checkpoint(NamedTuple):
    """A checkpoint as read from disk: the tensors of the task and its optimisers, and the state of the run."""

    tensors: dict[str, Tensor]
    state: RunState


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The folder of one run. `settings` decide which run it is: a checkpoint with other settings is refused."""

    path: Path
    settings: Mapping[str, Any]
    """Everything that determines the trained encoder, but for the content of the data; see `run_folder`."""
    fingerprint: Callable[[], str] | None = None
    """Returns the data's fingerprint. A new run does not need it before its first checkpoint."""

    @property
    def identity(self) -> dict[str, Any]:
        """The settings and the data's fingerprint."""
        return {**self.settings, **({"data_fingerprint": self.fingerprint()} if self.fingerprint else {})}

    @property
    def encoder(self) -> Path:
        """The encoder file of a finished run."""
        return self.path / "encoder.safetensors"

    def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint in this folder; None if there is none.

        Raises:
            UserError: If it belongs to a run with other settings, or cannot be read.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--out {self.path} is a file; give a folder")
        file = self.path / CHECKPOINT
        if not file.is_file():
            return None
        tensors, about = read_checkpoint(file)
        for key, stored, own in self._differences(parsed_settings(about, file, {})):
            raise UserError(
                f"{self.path} holds a run with {key} = {stored}, but this run has {key} = {own}; "
                "give another --out, or delete the folder"
            )
        about = {"cpu_seconds": 0.0} | about  # earlier versions did not count it
        wrong = misfit(about, STATE)
        if wrong:
            raise UserError(f"{file}: its record: {wrong}; delete it and train again")
        return Checkpoint(tensors, RunState(**{field: about[field] for field in RunState._fields if field in about}))

    def has_its_encoder(self) -> bool:
        """Return whether the encoder file is there and whole, and by its record is of this run."""
        try:
            record = read_record(self.encoder)["record"]
        except UserError:
            return False
        return not self._differences(record)

    def _differences(self, stored: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
        """Return name, stored value and own value of every setting in which a record is not of this run."""
        found = _flat(stored)
        own = {"encoder_sha256": None, **_flat(self.identity)}  # None: weights of the seed
        own.pop("data", None)  # the fingerprint decides, wherever the data lies
        return [(key, found.get(key), value) for key, value in own.items() if found.get(key) != value]

    def remove_former_run(self, init: str | None) -> None:
        """Delete what an earlier run has left whose checkpoint is gone: its encoders, `run.json` and sample sheets.

        Args:
            init: See `TrainConfig`.

        Raises:
            UserError: If this run starts from one of these files.
        """
        left = [self.encoder, self.path / "run.json"]
        for folder in (self.path / KEPT, self.path / "samples"):
            left += [file for file in folder.glob("step-*") if re.fullmatch(r"step-\d+\.(png|safetensors)", file.name)]
        source = None if init is None else weights_file(init) if is_spec(init) else Path(init)
        for file in left:
            if source is not None and file.exists() and source.exists() and file.samefile(source):
                raise UserError(f"init {init} is a file of the run that was in {self.path}; give another --out")
        for file in left:
            file.unlink(missing_ok=True)

    def remove_unfinished_files(self) -> None:
        """Delete the temporary files of a run that was killed while it wrote; no file of another name is touched."""
        for name in (CHECKPOINT, self.encoder.name, "run.json", "log.jsonl"):
            remove_leftovers(self.path / name)
        for sheet in {
            self.path / "samples" / found[1]
            for file in (self.path / "samples").glob(".step-*.tmp")
            if (found := re.match(r"\.(step-\d+\.png)\.", file.name))
        }:
            remove_leftovers(sheet)
        remove_leftovers_in(self.path / KEPT)

    def restore(self, model: Task, optimizers: Mapping[str, Optimizer], tensors: dict[str, Tensor]) -> None:
        """Load a checkpoint's tensors into the task and its optimisers."""
        load_strictly(model, _task_tensors(tensors), str(self.path))
        for player, optimizer in optimizers.items():
            load_optimizer(player, optimizer, tensors)

    def save(self, model: Task, optimizers: Mapping[str, Optimizer], state: RunState) -> None:
        """Write the checkpoint."""
        tensors = {f"task.{name}": value for name, value in model.state_dict().items()}
        for player, optimizer in optimizers.items():
            tensors |= optimizer_tensors(player, optimizer)
        save_checkpoint(self.path / CHECKPOINT, tensors, state._asdict() | {"settings": self.identity})

    def keep(self, model: Task, step: int, *, images_seen: int) -> None:
        """Write the encoder after a step to `kept/`; a resumed run that repeats the step replaces the file."""
        file = self.path / KEPT / f"step-{step:07d}.safetensors"
        save_encoder(model.encoder, file, self._record(model, images_seen))

    def finish(self, model: Task, state: RunState, *, precision: str, notes: Sequence[str] = ()) -> None:
        """Write the encoder file, and `run.json` with the settings, the cost and the data's notes of the run.

        Args:
            model: The task.
            state: Its last state.
            precision: Number format in which the layers have computed.
            notes: Notes of the data.
        """
        record = self._record(model, state.images_seen)
        about = record | {
            "wall_s": state.seconds,
            "cpu_s": state.cpu_seconds,
            "peak_mem_bytes": peak_memory(),
            "processes": world(),
            "device": state.device,
            "precision": precision,
            "flops_per_image": state.flops_per_image,
            "notes": list(notes),
            "parameters": {
                "encoder": sum(p.numel() for p in model.encoder.parameters()),
                "task": sum(p.numel() for p in model.parameters()),
            },
        }
        with atomic_write(self.path / "run.json") as temporary:
            temporary.write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")
        save_encoder(model.encoder, self.encoder, record)

    def _record(self, model: Task, images_seen: int | None) -> dict[str, Any]:
        """Return the record in an encoder file."""
        started_from = model.encoder.record.get("weights")
        return {
            **({"started_from": started_from} if started_from else {}),
            **self.identity,
            "images_seen": images_seen,
            "version": version("pretext-bench"),
            "git_sha": revision().sha,
            "git_dirty": revision().dirty,
        }


def run_folder(
    path: Path,
    task: str,
    task_settings: Any,
    encoder: str | Encoder,
    data: ImageDataset,
    config: TrainConfig,
    *,
    image_size: int,
) -> RunFolder:
    """Return the folder of a run, and begin to compute the data's fingerprint; see `train` for the arguments."""
    name = task.split("?", maxsplit=1)[0]
    own: dict[str, Any] = {}
    if is_file(task):  # a task file of the user's own: its content counts too, by its hash
        own = {"task_sha256": file_sha256(Path(parse_spec(task).kind))}
        name = absolute_file(name)
    if isinstance(encoder, Encoder):  # its weights are not those of a seed
        own |= {"encoder_sha256": encoder_digest(encoder)}
        encoder = encoder.spec
    if is_file(encoder):  # as for a task file
        own |= {"encoder_code_sha256": file_sha256(Path(parse_spec(encoder).kind))}
    kind = label_kind(data)
    settings = own | {
        "task": name,
        "task_config": dataclasses.asdict(task_settings),
        "encoder": absolute_file(encoder),
        "image_size": image_size,
        "train_config": {
            key: value for key, value in dataclasses.asdict(config).items() if key not in (*NOT_IN_RESULT, *BY_CONTENT)
        },
        "data": data.spec,
        "labels": list(kind) if kind else None,
    }
    return RunFolder(path, settings, begun(lambda: data.fingerprint))


def load_task(folder: str | Path) -> Task:
    """Return the task of a run folder with its trained weights, in evaluation mode on the CPU.

    Raises:
        UserError: If the folder holds no checkpoint, or the tensors do not match the stored settings.
    """
    file = Path(folder) / CHECKPOINT
    tensors, about = read_checkpoint(file)
    settings = parsed_settings(about, file, SETTINGS)
    kind = settings["labels"]
    try:
        config = dataclasses.replace(task_config(settings["task"]), **settings["task_config"])
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: task_config cannot be read ({error}); train again") from None
    architecture = without_options(settings["encoder"], "pretrained", *FILE_OPTIONS)
    if is_file(architecture):
        check_code(architecture, str(settings.get("encoder_code_sha256", "")), file)
    encoder = build_encoder(architecture, input_size=settings["image_size"], seed=0)
    task = build_task(config, encoder, labels=LabelKind(*kind) if kind else None, seed=0)
    load_strictly(task, _task_tensors(tensors), str(file))
    return task.eval()


def parsed_settings(about: dict[str, Any], file: Path, shape: Shape) -> dict[str, Any]:
    """Return the settings in the record of a checkpoint.

    Raises:
        UserError: If they have another shape.
    """
    wrong = misfit(about, {"settings": shape})
    if wrong:
        raise UserError(f"{file} is not the checkpoint of a training run ({wrong}); train again")
    settings: dict[str, Any] = about["settings"]
    return settings


def _task_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("task."): value for name, value in tensors.items() if name.startswith("task.")}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted keys, with tuples as lists, as JSON returns them."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat

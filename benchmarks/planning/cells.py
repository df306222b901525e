"""One cell of the comparison: its settings, and the hash of all that its value depends on.

There are two kinds. An *encoder cell* writes an encoder file to OUT/pretrain/NAME: trained, drawn at random, or
loaded from an external checkpoint. A *probe cell* runs one probe on that file and writes OUT/results/NAME.json.
A cell is plain data that can be pickled, so any process on any machine that sees OUT can compute it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.records.results import encoder_path, result_path
from benchmarks.words.columns import column
from pretext.datasets.base import ImageDataset
from pretext.datasets.packed import BadImages
from pretext.encoders.weights import is_spec, weights_file
from pretext.judging import Probe
from pretext.system.checkpoint import file_sha256
from pretext.system.errors import UserError
from pretext.system.plugins import by_content
from pretext.system.ranges import check_numbers, check_range
from pretext.system.specs import without_options

if TYPE_CHECKING:
    from pretext.training.config import TrainConfig

CODE = 6
"""Increase it when a change of the code changes values: every cell is then computed again. What concerns one task or
one probe alone raises its `revision`."""
MAX_NAMED = 3
"""Differing settings that a message names; the others are counted."""
NOT_HASHED = ("pretrain", "spec", "probe_file", "init_file")
"""Keys of `Measurement.config_json` beside a cell's settings: names and paths of files that are hashed by content."""
LATER = ("precision",)
"""Settings that probes got within this code version. Their defaults are not hashed, so that earlier cells stay
valid."""


@dataclasses.dataclass(frozen=True)
class Inpainting:
    """The inpainting probe: how well a task's own decoder fills holes; see `pretext.inpainting.measuring`."""

    test_images: int = 500
    """Maximum number of test images; the seed draws them."""
    seed: int = 0
    """Seed of the images and holes."""

    def __post_init__(self) -> None:
        check_numbers(self)
        check_range(self, "test_images", least=1)


AnyProbe = Probe | Inpainting
"""A probe with all its settings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSource:
    """A data set at the image size of the comparison."""

    spec: str
    size: int
    """Image side in pixels."""
    bad_images: BadImages
    fingerprints: tuple[tuple[str, str], ...]
    """Pairs of split and fingerprint; undecodable images are excluded."""

    def fingerprint(self, split: str) -> str:
        """Return the fingerprint of a split."""
        return dict(self.fingerprints)[split]

    def open(self) -> ImageDataset:
        """Return the training split, with pictures of any size."""
        return _opened(self.spec)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One unit of work: an encoder to make, or a probe to run."""

    name: str
    """ROW.PROBE.sSEED.HASH for a probe cell, ROW.sSEED.HASH for an encoder cell."""
    pretext: str
    """Name of the row."""
    seed: int
    data: DataSource
    """Training data of an encoder cell, probe data of a probe cell."""
    encoder: str
    """Architecture spec, as `build_encoder` takes it."""
    task: str | None = None
    """Task spec; None for external encoders."""
    train: TrainConfig | None = None
    """Training settings; None for external encoders."""
    foreign: str | None = None
    """Encoder file, or spec with weights, of an external encoder."""
    processes: int = 1
    """Processes that train the encoder together, each on a GPU of its own; 1 for all other cells."""
    probe: str = ""
    """Name of the probe; empty for an encoder cell."""
    label: str = ""
    """Label of the probe's data set among several of the comparison; no part of the name or the value."""
    protocol: AnyProbe | None = None
    """The probe with its settings; None for an encoder cell."""
    made_by: str | None = None
    """Name of the encoder cell that a probe cell needs."""
    settings: str = ""
    """The hashed settings, as JSON."""

    @property
    def trains(self) -> bool:
        """Whether the cell trains an encoder; loading weights does not count."""
        return self.protocol is None and self.task is not None

    @property
    def column(self) -> str:
        """Name of the probe's column in this comparison; empty for an encoder cell."""
        return column(self.probe, self.label)

    def is_done(self, out: Path) -> bool:
        """Whether the cell's result exists."""
        return (result_path(out, self.name) if self.protocol else encoder_path(out, self.name)).exists()


def encoder_cell(
    row: str,
    *,
    seed: int,
    data: DataSource,
    encoder: str,
    task: str | None = None,
    train: TrainConfig | None = None,
    foreign: str | None = None,
    processes: int = 1,
) -> Cell:
    """Return the cell that makes a row's encoder.

    Args:
        row: Name of the row.
        seed: Seed of weights and training.
        data: The training data.
        encoder: Architecture spec; not used for an external encoder.
        task: Task spec; None for external encoders.
        train: Training settings; required with a task.
        foreign: Encoder file, or spec with weights, of an external encoder.
        processes: Processes that train the encoder together. Tasks that take no steps have one.

    Raises:
        UserError: If the batches cannot be split among the processes.
    """
    settings: dict[str, Any] = {"code": CODE, "seed": seed, "image_size": data.size}
    if foreign is not None:
        settings |= {"foreign": _foreign_digest(foreign)}
    else:
        settings |= {"encoder": by_content(encoder)}
    if task is not None:
        from pretext.tasks import task_class, task_config
        from pretext.tasks.base import Fitted
        from pretext.training.config import BY_CONTENT, NOT_IN_RESULT, TrainConfig

        # the fingerprint already says which images were excluded
        not_hashed = {*NOT_IN_RESULT, *BY_CONTENT, "bad_images"}
        if issubclass(task_class(task), Fitted) and train is not None:  # takes no steps
            train = TrainConfig(seed=train.seed, bad_images=train.bad_images, init=train.init)
            processes = 1
        config = task_config(task)
        settings |= {
            "task": type(config).__module__.rsplit(".", 1)[-1],
            "task_config": dataclasses.asdict(config),
            "train": {
                key: value
                for key, value in dataclasses.asdict(train).items()  # type: ignore[arg-type]
                if key not in not_hashed
            },
            "pretrain_data": data.fingerprint("train"),
        }
        if revision := task_class(task).revision:
            settings |= {"task_revision": revision}
        if train is not None and train.init is not None:
            settings |= {"init": _foreign_digest(train.init)}
    if train is not None and train.batch_size % processes:
        raise UserError(
            f"--gpus-per-cell {processes}: row {row} has batches of {train.batch_size} images; "
            "give a number that divides it"
        )
    if processes > 1:  # each draws for its own images; cells from before it was shared have no such batch statistics
        settings |= {"processes": processes, "batch_statistics": "of all processes"}
    return Cell(
        name=f"{slug(row)}.s{seed}.{settings_hash(settings)}",
        pretext=row,
        seed=seed,
        data=data,
        encoder=encoder,
        task=task,
        train=train,
        foreign=foreign,
        processes=processes,
        settings=as_json(settings),
    )


def probe_cell(
    encoder: Cell, name: str, protocol: AnyProbe, *, seed: int, data: DataSource | None = None, label: str = ""
) -> Cell:
    """Return the cell that runs one probe on one encoder.

    Args:
        encoder: The cell that makes the encoder.
        name: Name of the probe.
        protocol: The probe; its seed is replaced by `seed`.
        seed: Seed of the probe. An external encoder has one file and several probe seeds.
        data: The probe's data; None takes the data that the encoder was trained on.
        label: Label of the data among several sets.
    """
    data = data or encoder.data
    protocol = dataclasses.replace(protocol, seed=seed)
    module = type(protocol).__module__
    settings = json.loads(encoder.settings) | {
        "probe": module if "@" in module else name,  # a user's file is identified by its content
        "probe_config": _hashed(protocol),
        "data": dict(data.fingerprints),
    }
    if revision := getattr(protocol, "revision", 0):
        settings |= {"probe_revision": revision}
    return dataclasses.replace(
        encoder,
        data=data,
        name=f"{slug(encoder.pretext)}.{slug(name)}.s{seed}.{settings_hash(settings)}",
        seed=seed,
        processes=1,
        probe=name,
        label=label,
        protocol=protocol,
        made_by=encoder.name,
        settings=as_json(settings),
    )


def _hashed(protocol: AnyProbe) -> dict[str, Any]:
    """Return the settings of a probe that a cell's value depends on."""
    defaults = {field.name: field.default for field in dataclasses.fields(protocol)}
    settings = dataclasses.asdict(protocol)
    return {key: value for key, value in settings.items() if key not in LATER or value != defaults[key]}


def slug(name: str) -> str:
    """Return a name with only letters, digits, `_`, `=` and `-`, as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9_=]+", "-", name).strip("-")


def check_slugs(kind: str, names: Iterable[str]) -> None:
    """Raise a UserError if two names of rows or of probes give the same file names."""
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(slug(name), name)
        if other != name:
            raise UserError(
                f"{kind} {other!r} and {name!r} would share the files of {slug(name)!r}; rename one of them"
            )


@functools.lru_cache(maxsize=8)  # training data, and the sets that probes judge on
def _opened(spec: str) -> ImageDataset:
    from pretext.datasets import open_dataset

    return open_dataset(spec)


def _foreign_digest(source: str) -> str:
    """Return what identifies an external encoder wherever its file lies: the file's hash, its spec, or both."""
    if not is_spec(source):
        return _weights_digest(Path(source))
    weights = weights_file(source)
    if weights is None:
        return by_content(source)
    # allow_partial decides whether the weights load, not their values
    return f"{by_content(without_options(source, 'weights', 'allow_partial'))} {_weights_digest(weights)}"


_weights_digest = functools.cache(file_sha256)  # a large file is read once


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings that a cell's value depends on, with nested ones as `outer.inner`.

    Args:
        settings: The decoded `Cell.settings` or `Measurement.config_json`.
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in NOT_HASHED:
            found |= (
                {f"{key}.{inner}": each for inner, each in value.items()} if isinstance(value, dict) else {key: value}
            )
    return found


def differing_settings(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return the first few differences of two cells' flat settings, as `train.images 8 and 9`, and a count."""
    names = [name for name in dict.fromkeys((*ours, *theirs)) if ours.get(name) != theirs.get(name)]
    named = [f"{name} {ours.get(name, '(none)')} and {theirs.get(name, '(none)')}" for name in names[:MAX_NAMED]]
    return [*named, *([f"{len(names) - MAX_NAMED} more"] if len(names) > MAX_NAMED else [])]


def as_json(settings: Any) -> str:
    """Return settings as JSON; equal settings give equal text."""
    return json.dumps(settings, sort_keys=True, default=str)


def settings_hash(settings: Any) -> str:
    """Return the hash at the end of a cell's name, of settings as `Cell.settings` holds them."""
    return hashlib.sha256(as_json(settings).encode()).hexdigest()[:8]

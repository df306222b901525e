"""One cell of the comparison: what it is, and the hash of all that its value depends on.

Two kinds. An *encoder cell* puts an encoder file into OUT/pretrain/NAME: trained, drawn at random, or copied
from elsewhere. A *judge cell* asks one probe about that file and writes OUT/results/NAME.json. A cell is
plain data that can be pickled, so that any process, on any machine that sees OUT, can compute it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.results import (
    encoder_path,
    result_path,
)
from pretext.datasets.base import ImageDataset
from pretext.datasets.packed import BadImages
from pretext.encoders.weights import is_spec, weights_file
from pretext.judging import Probe
from pretext.system.checkpoint import file_sha256
from pretext.system.specs import without_options

if TYPE_CHECKING:
    from pretext.training.config import TrainConfig

CODE = 3
"""Raise it when a change of code changes values: every cell is then computed anew."""
MOST_SETTINGS = 3
"""Of more settings that differ the first are named and the others counted."""
BESIDE_THE_VALUE = ("pretrain", "spec", "probe_file")
"""What `Measurement.config_json` has besides a cell's settings: names and paths of what those say by content."""


@dataclasses.dataclass(frozen=True)
class Inpainting:
    """How well a task's own decoder fills holes; see `pretext.inpainting.measuring`."""

    test_images: int = 500
    """Test pictures, drawn by the seed; at most so many."""
    seed: int = 0
    """Draws the holes."""


Judge = Probe | Inpainting


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSource:
    """A data set at the size that all rows see."""

    spec: str
    size: int
    bad_images: BadImages
    fingerprints: tuple[tuple[str, str], ...]
    """By split; of what is left once undecodable pictures are."""

    def fingerprint(self, split: str) -> str:
        """Return a split's."""
        return dict(self.fingerprints)[split]

    def open(self) -> ImageDataset:
        """Return its training split, packed."""
        return _opened(self.spec, self.size, self.bad_images)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One thing to compute."""

    name: str
    """ROW.PROBE.sSEED.HASH; ROW.sSEED.HASH for an encoder cell."""
    pretext: str
    seed: int
    data: DataSource
    """What is learned from; of a judge cell, what is judged with."""
    encoder: str
    """Architecture, as `build_encoder` takes it."""
    task: str | None = None
    train: TrainConfig | None = None
    """None for random weights and foreign encoders."""
    foreign: str | None = None
    """An encoder file or a spec with weights, where the row is somebody else's."""
    probe: str = ""
    judge: Judge | None = None
    """None for an encoder cell."""
    made_by: str | None = None
    """The encoder cell that a judge cell waits for."""
    settings: str = ""
    """What was hashed, as JSON."""

    @property
    def trains(self) -> bool:
        """Whether an encoder is trained in it: neither drawn, nor somebody else's, nor judged."""
        return self.judge is None and self.task is not None

    def is_done(self, out: Path) -> bool:
        """Whether its result is there."""
        return (result_path(out, self.name) if self.judge else encoder_path(out, self.name)).exists()


def encoder_cell(
    row: str,
    *,
    seed: int,
    data: DataSource,
    encoder: str,
    task: str | None = None,
    train: TrainConfig | None = None,
    foreign: str | None = None,
) -> Cell:
    """Name the cell that makes a row's encoder."""
    settings: dict[str, Any] = {"code": CODE, "seed": seed, "image_size": data.size}
    if foreign is not None:
        settings |= {"foreign": _foreign_digest(foreign)}
    else:
        settings |= {"encoder": encoder}
    if task is not None:
        from pretext.tasks import task_config
        from pretext.training.config import NOT_IN_RESULT

        # the data's fingerprint says which pictures were left out, whatever the user had asked for
        not_hashed = {*NOT_IN_RESULT, "bad_images"}
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
    return Cell(
        name=f"{slug(row)}.s{seed}.{_hash(settings)}",
        pretext=row,
        seed=seed,
        data=data,
        encoder=encoder,
        task=task,
        train=train,
        foreign=foreign,
        settings=as_json(settings),
    )


def judge_cell(made_by: Cell, probe: str, judge: Judge, *, seed: int, data: DataSource | None = None) -> Cell:
    """Name the cell in which one judge is asked about one encoder.

    Args:
        made_by: The cell that makes the encoder.
        probe: The judge's name.
        judge: Its seed is replaced.
        seed: The judge's, which a foreign encoder's judges have several of.
        data: What it is judged with; what it learned from where None.
    """
    data = data or made_by.data
    judge = dataclasses.replace(judge, seed=seed)
    own = type(judge).__module__
    settings = json.loads(made_by.settings) | {
        "probe": own if "@" in own else probe,  # a user's file is known by its content
        "probe_config": dataclasses.asdict(judge),
        "data": dict(data.fingerprints),
    }
    return dataclasses.replace(
        made_by,
        data=data,
        name=f"{slug(made_by.pretext)}.{slug(probe)}.s{seed}.{_hash(settings)}",
        seed=seed,
        probe=probe,
        judge=judge,
        made_by=made_by.name,
        settings=as_json(settings),
    )


def slug(name: str) -> str:
    """Return a row's name as part of a file's."""
    return re.sub(r"[^A-Za-z0-9_=]+", "-", name).strip("-")


@functools.lru_cache(maxsize=2)  # what is learned from, and what is judged with
def _opened(spec: str, size: int, bad_images: BadImages) -> ImageDataset:
    from pretext.datasets import at_size, open_dataset

    return at_size(open_dataset(spec), size, bad_images=bad_images)


@functools.cache
def _foreign_digest(source: str) -> str:
    """Return what stands for a foreign encoder wherever its file lies: the file's hash, its spec, or both."""
    if not is_spec(source):
        return file_sha256(Path(source))
    weights = weights_file(source)
    if weights is None:
        return source
    # allow_partial decides whether there is a value, not which
    return f"{without_options(source, 'weights', 'allow_partial')} {file_sha256(weights)}"


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that a cell's value depends on, inner settings as `outer.inner`.

    Args:
        settings: As `Cell.settings` or `Measurement.config_json` have them.
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in BESIDE_THE_VALUE:
            found |= (
                {f"{key}.{inner}": each for inner, each in value.items()} if isinstance(value, dict) else {key: value}
            )
    return found


def apart(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return where two cells' flat settings differ, each as `train.images 8 and 9`; the first few, and a count."""
    names = [name for name in dict.fromkeys((*ours, *theirs)) if ours.get(name) != theirs.get(name)]
    named = [f"{name} {ours.get(name, '(none)')} and {theirs.get(name, '(none)')}" for name in names[:MOST_SETTINGS]]
    return [*named, *([f"{len(names) - MOST_SETTINGS} more"] if len(names) > MOST_SETTINGS else [])]


def as_json(settings: Any) -> str:
    """Return settings as JSON, equal text for equal settings."""
    return json.dumps(settings, sort_keys=True, default=str)


def _hash(settings: Any) -> str:
    return hashlib.sha256(as_json(settings).encode()).hexdigest()[:8]

"""What a judge of an encoder is: `Probe`, and the `Score` that it yields.

Downstream and retrieval implement it; benchmarks runs it. A probe is a frozen dataclass whose fields are its
whole protocol, so that the encoder file is the only thing that varies between two rows of a table.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pretext.datasets.base import ImageDataset
from pretext.encoders.base import Encoder
from pretext.system.errors import UserError
from pretext.system.plugins import module_of_file


@dataclasses.dataclass(frozen=True)
class Score:
    """One measured number.

    Attributes:
        metric: What was measured, e.g. `top1`, `mAP`, `mIoU`, `precision@10`.
        value: The number, in `unit`.
        unit: `%`, `dB`, `` …; a percentage runs from 0 to 100.
        higher_is_better: Which way is up.
        chance: What guessing would score, in the same unit; None where that has no meaning.
        n: Number of test items behind the value.
        stage: The encoder's stage that was read; empty where the whole encoder was.
        headline: True for the one score of this probe that a table quotes.
        items: Per-item results, length n, whose mean is `value`; None where the metric is no mean over items.
    """

    metric: str
    value: float
    unit: str
    higher_is_better: bool
    chance: float | None
    n: int
    stage: str = ""
    headline: bool = False
    items: NDArray[np.float64] | None = None


@dataclasses.dataclass(frozen=True)
class Probe(ABC):
    """A judge. Subclasses are frozen dataclasses, one a file, whose module name is the probe's name."""

    seed: int = 0
    """Seeds everything random in the probe."""

    needs: ClassVar[tuple[frozenset[str], ...]] = ()
    """Alternatives: the probe can run where the data set annotates all of any one of these sets."""

    def can_judge(self, data: ImageDataset) -> bool:
        """Whether the data set annotates what this probe needs."""
        return any(alternative <= data.annotations for alternative in self.needs)

    @abstractmethod
    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Judge `encoder`, which is left as it was, on `data`'s splits train, val and test.

        What is fitted sees train; what is chosen is chosen on val; scores are of test.

        Args:
            encoder: Is copied before any weight is changed.
            data: Any of its splits; the others are reached through it.
            out: A folder for sheets and curves; nothing is written where it is None.

        Raises:
            UserError: If the data set lacks an annotation or is too small for the protocol.
        """


def probes_in(package: ModuleType) -> dict[str, type[Probe]]:
    """Return the probes of a package by name: each module's one `Probe` subclass, under the module's name."""
    found: dict[str, type[Probe]] = {}
    for info in pkgutil.iter_modules(package.__path__):
        for kind in _probes_of(importlib.import_module(f"{package.__name__}.{info.name}")):
            found[info.name] = kind
    return found


def probe_in_file(path: Path) -> type[Probe]:
    """Return the probe that a file of one's own defines; what is made of it can be pickled.

    Raises:
        UserError: If the file cannot be imported, or does not define exactly one probe that can be asked.
    """
    module = module_of_file(path, "probe")
    kinds = _probes_of(module)
    if len(kinds) != 1:
        raise UserError(f"{path} defines {len(kinds)} probes, not one; CONTRIBUTING.md shows a whole probe")
    (kind,) = kinds
    if not dataclasses.is_dataclass(kind) or "evaluate" in kind.__abstractmethods__:
        raise UserError(f"{path}: {kind.__name__} has no evaluate; CONTRIBUTING.md shows a whole probe")
    # another process has no module of that name, but can read the file
    kind.__reduce__ = lambda self: (_again, (path.resolve(), module.__name__, vars(self)))  # type: ignore[method-assign]
    return kind


def _again(path: Path, module: str, settings: dict[str, object]) -> Probe:
    kind = probe_in_file(path)
    if kind.__module__ != module:
        raise UserError(f"{path} was changed while it was in use; start again")
    return kind(**settings)  # type: ignore[arg-type]


def _probes_of(module: ModuleType) -> list[type[Probe]]:
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Probe) and value.__module__ == module.__name__
    ]

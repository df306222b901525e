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
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Probe) and value.__module__ == module.__name__:
                found[info.name] = value
    return found

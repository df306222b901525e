"""The interface of a downstream evaluation: a `Probe` yields `Score`s.

`downstream` and `retrieval` implement probes, `benchmarks` runs them. A probe is a frozen dataclass whose fields are
its complete protocol: only the encoder file differs between two rows of a table.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pretext.datasets.base import ImageDataset
from pretext.datasets.given import Given, as_dataset
from pretext.encoders.base import Encoder
from pretext.system.errors import UserError
from pretext.system.plugins import module_of_file
from pretext.system.ranges import check_numbers


@dataclasses.dataclass(frozen=True)
class Score:
    """One measured number.

    Attributes:
        metric: Name of the metric, such as `top1`, `mAP`, `mIoU`, `precision@10`.
        value: The measured value, in `unit`.
        unit: `%` (0 to 100), `dB`, or empty for a plain number.
        higher_is_better: Whether a larger value is better.
        chance: Value of the best answer without learning, in the same unit: a random guess, or one answer for every
            picture; None if that is not defined.
        n: Number of test items.
        stage: Encoder stage whose features were used; empty for the whole encoder.
        headline: True for the one score of a probe that tables show.
        items: Result of each item, length n, whose mean is `value`; None if the metric is not a mean over items.
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
    """A downstream protocol. Subclasses are frozen dataclasses, one per file; the module's name is the probe's name."""

    seed: int = 0
    """Seed of all random draws of the probe."""

    title: ClassVar[str] = ""
    """Name in tables and figures; if empty, the module's name with a capital and without underscores."""
    needs: ClassVar[tuple[frozenset[str], ...]] = ()
    """Sets of annotations, as alternatives: the data set must have every annotation of at least one set."""
    revision: ClassVar[int] = 0
    """Increase it when a change of this probe's code changes its values: only its cells are then computed again."""
    reads_features: ClassVar[bool] = False
    """Whether it judges an encoder's features as they are; rows without learning (HOG, pixels) are judged by such."""

    def __init_subclass__(cls) -> None:
        """Let `evaluate` take anything that `as_dataset` takes."""
        super().__init_subclass__()
        if "evaluate" in vars(cls):
            setattr(cls, "evaluate", _on_any_data(cls.evaluate))  # noqa: B010 - mypy forbids to assign a method

    def __post_init__(self) -> None:
        check_numbers(self)

    def can_judge(self, data: ImageDataset) -> bool:
        """Return whether the data set has the annotations that this probe needs."""
        return any(alternative <= data.annotations for alternative in self.needs)

    def check_splits(self, train: ImageDataset, test: ImageDataset, size: int) -> None:  # noqa: B027 - see needs
        """Raise a UserError if this protocol can learn or score nothing on a data set that has what it `needs`.

        It is called before anything is computed.

        Args:
            train: The training split, with pictures of any size.
            test: The test split.
            size: Side in pixels at which the encoder sees them; a pack of this size is there or will be needed.
        """

    def check_encoder(self, encoder: Encoder) -> None:  # noqa: B027 - most protocols judge every encoder
        """Raise a UserError if this protocol cannot judge the encoder; called before anything is computed."""

    @abstractmethod
    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Evaluate an encoder: fit on the train split, choose settings on val, and score on test.

        Args:
            encoder: Encoder to evaluate. It is not changed: a probe that trains it works on a copy.
            data: Any split of a data set; the others are reached through it. A caller may give anything that
                `as_dataset` takes.
            out: Folder for sheets and curves; None writes nothing.

        Yields:
            The scores, one of them with `headline`.

        Raises:
            UserError: If the data set lacks an annotation or is too small for the protocol.
        """


def _on_any_data(evaluate: Callable[..., Iterator[Score]]) -> Callable[..., Iterator[Score]]:
    """Return a probe's `evaluate` with its data turned into an `ImageDataset`."""

    @functools.wraps(evaluate)
    def evaluate_any(self: Probe, encoder: Encoder, data: Given, out: Path | None = None) -> Iterator[Score]:
        return evaluate(self, encoder, as_dataset(data), out)

    return evaluate_any


def probes_in(package: ModuleType) -> dict[str, type[Probe]]:
    """Return the probes of a package: the `Probe` subclass of each module, by the module's name."""
    probes: dict[str, type[Probe]] = {}
    for info in pkgutil.iter_modules(package.__path__):
        for kind in _probes_of(importlib.import_module(f"{package.__name__}.{info.name}")):
            probes[info.name] = kind
    return probes


def probe_in_file(path: Path) -> type[Probe]:
    """Return the probe that a user's own file defines. Its instances can be pickled.

    Raises:
        UserError: If the file cannot be imported, or does not define exactly one complete probe.
    """
    module = module_of_file(path, "probe")
    kinds = _probes_of(module)
    if len(kinds) != 1:
        raise UserError(f"{path} defines {len(kinds)} probes, not one; CONTRIBUTING.md shows a complete probe")
    (kind,) = kinds
    if not dataclasses.is_dataclass(kind) or "evaluate" in kind.__abstractmethods__:
        problem = "has no evaluate, or is not a dataclass"
        raise UserError(f"{path}: {kind.__name__} {problem}; CONTRIBUTING.md shows a complete probe")
    # another process cannot import the module by its name, but can read the file again
    kind.__reduce__ = lambda self: (_rebuild, (path.resolve(), module.__name__, vars(self)))  # type: ignore[method-assign]
    return kind


def _rebuild(path: Path, module: str, settings: dict[str, object]) -> Probe:
    """Return an unpickled probe of a user's own file."""
    kind = probe_in_file(path)
    if kind.__module__ != module:
        raise UserError(f"{path} was changed during the run; start the command again")
    return kind(**settings)  # type: ignore[arg-type]


def _probes_of(module: ModuleType) -> list[type[Probe]]:
    """Return the `Probe` subclasses that a module itself defines."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Probe) and value.__module__ == module.__name__
    ]

"""Names of tasks, probes, data sets and encoders, read from the source files: nothing is imported for a list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretext.system.declarations import Declared, Module, Setting, modules_in, read_file
from pretext.system.errors import UserError


@dataclass(frozen=True)
class DeclaredTask:
    """A pretext task as its file declares it."""

    name: str
    about: str
    """First line of the module's docstring."""
    config: Declared
    """Its `Config` class."""
    variants: Mapping[str, Mapping[str, Any]]
    """The settings in which a variant differs from the defaults, by variant."""
    variant_help: Mapping[str, str]
    titles: Mapping[str, str]
    """See `titles` of `Task`."""
    needs_labels: bool
    """Whether it trains with labels."""
    training_defaults: Mapping[str, Mapping[str, Any]]
    """See `training_defaults` of `Task`."""

    def title(self, variant: str = "") -> str:
        """Return the name that people read, of the task or of a variant; see `titles` of `Task`."""
        name, colon, _ = self.about.partition(":")
        own = self.titles.get("", name if colon else self.name)
        return self.titles.get(variant, f"{own} ({variant})" if variant else own)


def declared_tasks() -> dict[str, DeclaredTask]:
    """Return every pretext task of the suite by name."""
    found = {name: _task(name, module) for name, module in modules_in("pretext.tasks").items()}
    return {name: task for name, task in found.items() if task is not None}


def declared_task_in_file(path: Path) -> DeclaredTask | None:
    """Return the task that a user's file declares; None where it declares none that can be read from its text.

    Raises:
        UserError: If the file cannot be read, or is not Python.
    """
    return _task(path.stem, _read(path))


def declared_probes(package: str) -> dict[str, Declared]:
    """Return the probes of a package by name: each module's final dataclass."""
    found = {}
    for name, module in modules_in(package).items():
        if probe := _probe(module):
            found[name] = probe
    return found


def declared_probe_in_file(path: Path) -> Declared | None:
    """Return the probe that a user's file declares; see `declared_task_in_file`."""
    return _probe(_read(path))


def dataset_kinds() -> list[str]:
    """Return the kinds of data set: those with a file of their own, and torchvision's sets."""
    modules = modules_in("pretext.datasets")
    named = modules["torchvision_sets"].assigned("SETS")
    assert named is not None
    return sorted(
        [
            *(name.rstrip("_") for name, module in modules.items() if module.defines("open_splits")),
            *named[0].evaluate(named[1]),
        ]
    )


def declared_datasets() -> dict[str, tuple[str, list[Setting]]]:
    """Return the description and the keys of each kind of data set with a file of its own.

    torchvision's sets share an entry, `torchvision_sets`.
    """
    found = {}
    for name, module in modules_in("pretext.datasets").items():
        if module.defines("open_splits") or name == "torchvision_sets":
            options = module.find("Options")
            assert options is not None
            found[name.rstrip("_")] = module.about, options.settings()
    return found


def encoder_names() -> list[str]:
    """Return the families of encoders."""
    return list(declared_encoders())


def declared_encoders() -> dict[str, str]:
    """Return the first line about each family of encoders."""
    return {
        name: (module.about.splitlines() or [""])[0]
        for name, module in modules_in("pretext.encoders").items()
        if module.defines("build")
    }


def _task(name: str, module: Module) -> DeclaredTask | None:
    for declared in module.classes():
        config = declared.inner("Config")
        if config is None:
            continue
        return DeclaredTask(
            name=name,
            about=(module.about.splitlines() or [""])[0],
            config=config,
            variants=declared.value("variants") or {},
            variant_help=declared.value("variant_help") or {},
            titles=declared.value("titles") or {},
            needs_labels=bool(declared.value("needs_labels")),
            training_defaults=declared.value("training_defaults") or {},
        )
    return None


def _probe(module: Module) -> Declared | None:
    probes = [declared for declared in module.classes() if declared.derives_from("Probe")]
    return probes[-1] if probes else None


def _read(path: Path) -> Module:
    try:
        return read_file(path.resolve())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise UserError(f"{path}{f', line {line}' if line else ''}: {type(error).__name__}: {error}") from None

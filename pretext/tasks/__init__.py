"""Pretext tasks: what an encoder can be trained for. One file a task; `build_task` finds it by name, or by its path."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from pretext.encoders.base import Encoder
from pretext.system.errors import UserError, did_you_mean
from pretext.system.plugins import is_file, module_of_file
from pretext.system.specs import options_into, parse_spec
from pretext.tasks.base import Batch, LabelKind, Task

__all__ = [
    "Batch",
    "LabelKind",
    "Task",
    "build_task",
    "task_config",
    "task_kinds",
    "task_module",
    "task_names",
    "task_training",
]


def task_names() -> list[str]:
    """Return the names of all tasks; variants are behind a colon."""
    names = []
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if hasattr(module, "build"):
            names += [info.name, *(f"{info.name}:{variant}" for variant in module.VARIANTS)]
    return names


def task_module(spec: str) -> ModuleType:
    """Return the module of the task that a spec names: one of this folder, or a file of one's own, `my_task.py`.

    Raises:
        UserError: If there is no such task or variant, or a file cannot be imported.
    """
    parsed = parse_spec(spec)
    if is_file(spec):
        return _own_module(Path(parsed.kind), parsed.path)
    known = task_names()
    name = f"{parsed.kind}:{parsed.path}" if parsed.path else parsed.kind
    if name not in known:
        raise UserError(f"unknown pretext task {name!r}; {did_you_mean(name, known)}")
    return importlib.import_module(f"{__name__}.{parsed.kind}")


def _own_module(path: Path, variant: str) -> ModuleType:
    module = module_of_file(path, "pretext task")
    missing = [part for part in ("Config", "VARIANTS", "build") if not hasattr(module, part)]
    if missing:
        raise UserError(f"{path} defines no {' and no '.join(missing)}; CONTRIBUTING.md shows a whole task")
    if variant and variant not in module.VARIANTS:
        raise UserError(f"{path} has no variant {variant!r}; {did_you_mean(variant, module.VARIANTS)}")
    return module


def task_kinds(spec: str) -> list[type[Task]]:
    """Return the tasks that the module of a spec defines."""
    module = task_module(spec)
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Task) and value.__module__ == module.__name__
    ]


def task_config(spec: str) -> Any:
    """Return the configuration that a spec `TASK[:VARIANT][?key=value&…]` stands for.

    Raises:
        UserError: If the task, the variant or an option is unknown, or a value out of range.
    """
    module, parsed = task_module(spec), parse_spec(spec)
    start = module.VARIANTS[parsed.path] if parsed.path else module.Config()
    return options_into(module.Config, parsed, start=start)


def task_training(spec: str) -> dict[str, Any]:
    """Return what a task's published training differs in from the loop's defaults; a variant's on top of its task's."""
    training: dict[str, dict[str, Any]] = getattr(task_module(spec), "TRAINING", {})
    return training.get("", {}) | training.get(parse_spec(spec).path, {})


def build_task(config: Any, encoder: Encoder, *, labels: LabelKind | None = None, seed: int) -> Task:
    """Build a task around an encoder.

    Args:
        config: A spec, or the `Config` of a task's module.
        encoder: Is trained in place.
        labels: For a task that needs them.
        seed: Of the initial weights of everything but the encoder.

    Raises:
        UserError: If the task cannot be built on this encoder, or lacks its labels.
    """
    if isinstance(config, str):
        config = task_config(config)
    module = importlib.import_module(type(config).__module__)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return module.build(config, encoder, labels)
        except ValueError as error:
            raise UserError(f"{module.__name__.rsplit('.', 1)[-1]}: {error}") from None

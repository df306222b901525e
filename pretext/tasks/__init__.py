"""Pretext tasks: one file for each, found by its name. A user's own file is found by its path.

base                                            the interface: `Task`, `Fitted` (no training steps), `Inpainter`
context_encoder, autoencoder,
denoising_autoencoder, mae, simmim              reconstruct pixels
colorization, split_brain                       predict colours, or colours and lightness from each other
rotation, relative_location, jigsaw, egomotion  classify how an image was transformed or cut into tiles
temporal                                        compares frames of video clips
simclr, moco                                    contrast views with negatives
byol, simsiam, dino, ijepa                      predict another view's or block's features, without negatives
barlow_twins, vicreg                            decorrelate the features of two views
swav                                            predicts cluster assignments
random, kmeans, data_dependent                  are fitted without training: baselines
supervised                                      uses labels: the upper bound

`context_encoder` is the one to read first, `autoencoder` the shortest to copy.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
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
    "task_class",
    "task_config",
    "task_names",
    "task_training",
]


@functools.cache
def task_names() -> tuple[str, ...]:
    """Return the names of all tasks, `TASK` and `TASK:VARIANT`."""
    names: list[str] = []
    for info in pkgutil.iter_modules(__path__):
        for task in _tasks_of(importlib.import_module(f"{__name__}.{info.name}")):
            names += [info.name, *(f"{info.name}:{variant}" for variant in task.variants)]
    return tuple(names)


def task_class(spec: str) -> type[Task]:
    """Return the class of the task that a spec names: a module of this folder, or a user's file `my_task.py`.

    Raises:
        UserError: If there is no such task or variant, or the file cannot be imported or does not define one task.
    """
    parsed = parse_spec(spec)
    if is_file(spec):
        return _task_in_file(Path(parsed.kind), parsed.path)
    known = task_names()
    name = f"{parsed.kind}:{parsed.path}" if parsed.path else parsed.kind
    if name not in known:
        raise UserError(f"unknown pretext task {name!r}; {did_you_mean(name, known)}")
    return _tasks_of(importlib.import_module(f"{__name__}.{parsed.kind}"))[0]


def task_config(spec: str) -> Any:
    """Return the `Config` of a spec `TASK[:VARIANT][?key=value&…]`.

    Raises:
        UserError: If the task, the variant or an option is unknown, or a value is out of range.
    """
    task, parsed = task_class(spec), parse_spec(spec)
    start = task.variants[parsed.path] if parsed.path else task.Config()
    return options_into(task.Config, parsed, start=start)


def task_training(spec: str) -> dict[str, Any]:
    """Return the training settings that a task replaces, and its variant's on top of them.

    Raises:
        UserError: If `training_defaults` is not a mapping from the task's variants, or "", to settings by name.
    """
    task, parsed = task_class(spec), parse_spec(spec)
    defaults: Any = task.training_defaults
    names = ["", *task.variants]
    for variant, settings in defaults.items() if isinstance(defaults, Mapping) else [(defaults, None)]:
        if not isinstance(settings, Mapping):
            raise UserError(
                f"{parsed.kind}: training_defaults is {defaults}; give settings by variant, such as "
                '{"": {"batch_size": 64}}'
            )
        if variant not in names:
            known = did_you_mean(str(variant), map(repr, names))
            raise UserError(
                f"{parsed.kind}: training_defaults has no use for {variant!r}, which is no variant; {known}"
            )
    return {**defaults.get("", {}), **defaults.get(parsed.path, {})}


def build_task(config: Any, encoder: Encoder, *, labels: LabelKind | None = None, seed: int) -> Task:
    """Build a task around an encoder.

    Args:
        config: A spec, or an instance of some task's `Config`.
        encoder: Trained in place.
        labels: Only the task that `needs_labels` receives them.
        seed: Seeds the initial weights of the heads; the global random state is left as it was.

    Raises:
        UserError: If the task does not fit this encoder, or its labels are missing.
    """
    if isinstance(config, str):
        config = task_config(config)
    module = importlib.import_module(type(config).__module__)
    (task,) = _tasks_of(module)
    build: Callable[..., Task] = task
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return build(encoder, config, labels) if task.needs_labels else build(encoder, config)
        except ValueError as error:
            raise UserError(f"{module.__name__.rsplit('.', 1)[-1]}: {error}") from None


def _task_in_file(path: Path, variant: str) -> type[Task]:
    tasks = _tasks_of(module_of_file(path, "pretext task"))
    if len(tasks) != 1:
        names = ", ".join(task.__name__ for task in tasks) or "none"
        raise UserError(f"{path} must define one Task with losses, not {names}; CONTRIBUTING.md has an example")
    (task,) = tasks
    if not dataclasses.is_dataclass(getattr(task, "Config", None)):
        raise UserError(f"{path}: {task.__name__} has no dataclass Config; CONTRIBUTING.md has an example")
    if variant and variant not in task.variants:
        raise UserError(f"{path} has no variant {variant!r}; {did_you_mean(variant, task.variants)}")
    return task


def _tasks_of(module: ModuleType) -> list[type[Task]]:
    """Return the concrete tasks that a module itself defines."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Task)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    ]

"""Choose an executor and its options by name."""

from __future__ import annotations

import importlib.util
from typing import Any

from benchmarks.executors.base import Executor
from benchmarks.executors.local import LocalProcesses
from benchmarks.executors.ray import RayTasks
from benchmarks.executors.slurm import SlurmJobs
from pretext.system.errors import UserError, did_you_mean
from pretext.system.specs import Spec, options_into

EXECUTORS: dict[str, type[Executor]] = {"local": LocalProcesses, "slurm": SlurmJobs, "ray": RayTasks}


def chosen_executor(name: str, pairs: tuple[str, ...]) -> tuple[type[Executor], Any]:
    """Return an executor's class, and its options as its `Config`.

    Args:
        name: The executor.
        pairs: Its options, each KEY=VALUE; of several values for one key the last counts.

    Raises:
        UserError: If the name or an option is unknown, a value is not allowed, or a package is not installed.
    """
    if name not in EXECUTORS:
        raise UserError(f"unknown executor {name!r}; {did_you_mean(name, EXECUTORS)}")
    kind = EXECUTORS[name]
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--executor-option {pair}: write KEY=VALUE, as in gpus=1")
        options[key] = value
    if options and kind.Config is Executor.Config:
        raise UserError(f"--executor {name} has no options; leave out --executor-option {pairs[0]}")
    config = options_into(kind.Config, Spec(f"--executor {name}", "", options))
    if kind.package and importlib.util.find_spec(kind.package) is None:
        raise UserError(f"--executor {name}: {kind.package} is not installed; run pip install 'pretext-bench[{name}]'")
    return kind, config

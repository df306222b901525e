"""What flags change of a profile: its budget, its precision, its probes, and whether runs are watched."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.planning.cells import AnyProbe
from benchmarks.planning.probes import default_probe, probe_names
from benchmarks.planning.recipes import Recipe
from downstream.fitting import FittedProbe
from downstream.probes.low_shot import LowShot
from pretext.datasets.base import ImageDataset
from pretext.judging import probe_in_file
from pretext.system.errors import UserError, did_you_mean
from pretext.system.plugins import file_row, is_file
from pretext.system.precision import Precision
from pretext.system.specs import options_into, parse_spec
from pretext.training.config import BUDGETS
from pretext.training.watching import WatchName, check_watch

P = TypeVar("P", bound=AnyProbe)
WATCHED = 10
"""Measurements of `--watch` over a run."""


def watched(recipe: Recipe, watch: WatchName | None, data: ImageDataset) -> Recipe:
    """Return the recipe with encoders that are measured while they train, about `WATCHED` times.

    Args:
        recipe: The recipe.
        watch: What to measure; None measures nothing.
        data: The training data.

    Raises:
        UserError: If the data lacks the labels for it.
    """
    check_watch(watch, data)
    every = recipe.train.watch_every
    if recipe.train.seconds is None and recipe.train.flops is None:  # else the number of steps is not known yet
        steps = recipe.train.total_steps(image_count=len(data.split("train")), flops_per_image=1.0)
        every = max(1, round((steps or 0) / WATCHED))
    return recipe.with_training(dataclasses.replace(recipe.train, watch=watch, watch_every=every))


def with_budget(recipe: Recipe, text: str | None) -> Recipe:
    """Return the recipe with another training budget for all rows.

    Args:
        recipe: Returned as it is if `text` is None.
        text: KIND=NUMBER.

    Raises:
        UserError: If the kind is unknown, or the number is not above 0.
    """
    if text is None:
        return recipe
    kind, _, number = text.partition("=")
    if kind not in BUDGETS:
        raise UserError(f"--budget {text}: {did_you_mean(kind, BUDGETS)}; write KIND=NUMBER, as in images=1000000")
    try:
        value = float(number)
        budgets: dict[str, Any] = dict.fromkeys(BUDGETS) | {kind: int(value) if kind in ("images", "steps") else value}
        train = dataclasses.replace(recipe.train, **budgets)
    except (ValueError, OverflowError):
        raise UserError(f"--budget {text}: {number!r} is not a number above 0 and up to 1e30") from None
    return dataclasses.replace(recipe.with_training(train), sized="")  # what was said of the profile's own size


def with_precision(recipe: Recipe, precision: Precision) -> Recipe:
    """Return the recipe with all rows trained in a precision; for its probes see `chosen_probes`."""
    return recipe.with_training(dataclasses.replace(recipe.train, precision=precision))


def at_precision(probe: P, precision: Precision) -> P:
    """Return a probe with its encoder trained in a precision; as it is with `auto`, or if it trains none."""
    if precision != "auto" and isinstance(probe, FittedProbe | LowShot):
        return dataclasses.replace(probe, precision=precision)
    return probe


def chosen_probes(
    probes: tuple[str, ...], profile_probes: Mapping[str, AnyProbe], *, precision: Precision = "auto"
) -> dict[str, AnyProbe]:
    """Return probes by name, with the profile's settings, or with their defaults if the profile lacks them.

    Args:
        probes: Names of probes, or files that define one; either with settings of its own, as in `svm?folds=5`.
        profile_probes: The profile's probes by name.
        precision: See `at_precision`; settings of a probe come first.

    Raises:
        UserError: If there is no such probe or setting, a file defines none, or two have one name.
    """
    chosen: dict[str, AnyProbe] = {}
    for text in probes or profile_probes:
        spec = parse_spec(text)
        if "seed" in spec.options:
            raise UserError(f"--probes {text}: leave out seed; --seeds sets the number of seeds")
        if is_file(text):
            if (column := file_row(text)) in {*probe_names(), *chosen}:
                raise UserError(f"--probes {text}: a probe is called {column} already; rename the file")
            chosen[column] = options_into(probe_in_file(Path(spec.kind)), spec)
            continue
        if (name := spec.kind) not in probe_names():
            raise UserError(f"unknown probe {name!r}; {did_you_mean(name, probe_names())}")
        if name in chosen:
            raise UserError(f"--probes {text}: {name} is given twice; a table has one column of a probe")
        base = at_precision(profile_probes.get(name) or default_probe(name), precision)
        chosen[name] = options_into(type(base), spec, start=base) if spec.options else base
    return chosen

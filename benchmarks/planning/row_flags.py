"""The rows that flags select: tasks with settings of their own, and encoders from elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from benchmarks.planning.rows import PLAIN, Row, by_name
from pretext.system.errors import UserError, did_you_mean
from pretext.system.plugins import file_row, is_file
from pretext.system.specs import options_into, parse_spec, with_option, without_options

if TYPE_CHECKING:
    from benchmarks.planning.recipes import Recipe

NOT_OF_A_ROW = ("seed", "bad_images")
"""Settings of how to train that are the comparison's, not a row's."""


def task_rows(tasks: tuple[str, ...], recipe: Recipe) -> tuple[Row, ...]:
    """Return the rows that tasks train; the rows `random` and `supervised` are always included.

    A row of the profile with settings, `ROW?key=value`, is that row's task with these settings. Those of the training
    loop become the row's `training`, after those of the profile's row.

    Args:
        tasks: As after `--tasks`; if empty, the profile's rows.
        recipe: The profile.

    Raises:
        UserError: If a name is neither a row of the profile nor a task, a file has the name of another row, a setting
            is unknown or out of range, or the task takes no training steps.
    """
    from pretext.tasks import task_config, task_names

    known, always = by_name(recipe.rows), by_name((Row("random", "random"), Row("supervised", "supervised")))
    if not tasks:
        return tuple({**always, **known}.values())
    rows = dict(always)
    for name in tasks:
        base = name.partition("?")[0]
        if name in known:
            rows[name] = known[name]
            continue
        if is_file(name):
            row, start = file_row(name), name
            if row in {*rows, *known, *by_name(PLAIN), *task_names()}:
                raise UserError(f"--tasks {name}: a row is called {row} already; rename the file")
        elif base not in {*known, *task_names()}:
            raise UserError(f"unknown task {name!r}; {did_you_mean(name, {*known, *task_names()})}")
        else:
            row, start = name, (known[base].task or base) if base in known else name
        loop = _loop_options(name, start)
        task_config(spec := _of_the_task(name, start, loop))  # an unknown option is an error now, not during the run
        rows[row] = Row(row, spec, training=_training(name, start, loop, known.get(base), recipe))
    return tuple(rows.values())


def _training(name: str, start: str, loop: Mapping[str, str], base: Row | None, recipe: Recipe) -> dict[str, Any]:
    """Return the training settings of a row: those of the profile's row that it is made from, then its own, `loop`."""
    from pretext.tasks import task_class
    from pretext.tasks.base import Fitted
    from pretext.training.config import TrainConfig

    if {*loop} - {"init"} and issubclass(task_class(start), Fitted):
        task = name.partition("?")[0]
        raise UserError(f"--tasks {name}: {task} takes no training steps, so {next(iter(loop))} has no effect")
    spec = dataclasses.replace(parse_spec(name), options=dict(loop))
    common = recipe.train if base is None else base.train_config(recipe.train, seed=0)
    made = options_into(TrainConfig, spec, start=common)
    return {**(base.training if base else {}), **{key: getattr(made, key) for key in loop}}


def _of_the_task(name: str, start: str, loop: Collection[str]) -> str:
    """Return the spec `start` with the settings of `name` that are the task's own: all but those in `loop`."""
    if name == start and not loop:
        return name
    spec = without_options(start, *loop)
    for key, value in parse_spec(name).options.items():
        if key not in loop:
            spec = with_option(spec, key, value)
    return spec


def _loop_options(name: str, start: str) -> dict[str, str]:
    """Return the settings in a row's name that are those of the training loop, as text.

    Raises:
        UserError: If a setting is neither the task's nor the loop's, or is the same for all rows.
    """
    from pretext.tasks import task_class
    from pretext.training.config import TrainConfig

    own = [field.name for field in dataclasses.fields(task_class(start).Config)]
    of_loop = [key for key in TrainConfig.groups["how"] if key not in NOT_OF_A_ROW]
    found = {}
    for key, value in parse_spec(name).options.items():
        if key in own:
            continue
        if key in of_loop:
            found[key] = value
        elif key in (field.name for field in dataclasses.fields(TrainConfig)):
            raise UserError(
                f"--tasks {name}: {key} is the same for all rows; --budget and --seeds set budget and seeds of all"
            )
        else:
            raise UserError(f"--tasks {name}: unknown option {key!r}; {did_you_mean(key, [*own, *of_loop])}")
    return found


def encoder_rows(
    encoders: tuple[str, ...], *, taken: Collection[str], size: int, allow_partial: bool = False
) -> tuple[Row, ...]:
    """Return rows of encoder files, or of specs with external weights; print which weights were loaded.

    Args:
        encoders: As after `--encoder`.
        taken: Names of other rows.
        size: Image side in pixels.
        allow_partial: Accept weights that cover a part of their model.

    Raises:
        UserError: If a name is missing or taken, a file is not an encoder file, or weights do not fit their model.
    """
    from pretext.encoders import build_encoder, load_encoder
    from pretext.encoders.foreign import FILE_OPTIONS, loaded_line, with_allow_partial
    from pretext.encoders.weights import LIBRARIES, is_spec, weights_file

    found: dict[str, Row] = {}
    for text in encoders:
        name, equals, file = text.partition("=")
        if is_spec(name) or "?" in name:  # a spec without a name; its = belongs to an option
            weights = weights_file(text)
            name, file = file_row(without_options(text, *FILE_OPTIONS)) + (f" {weights.stem}" if weights else ""), text
        elif not equals or not name or not file:
            raise UserError(f"--encoder {text}: write NAME=FILE, timm:NAME, torchvision:NAME or my_encoder.py")
        if name in taken or name in found:
            raise UserError(f"--encoder {text}: a row is called {name} already; choose another name")
        file = with_allow_partial(file, allow_partial)
        if weights_file(file) is not None or not file.startswith(LIBRARIES):  # what does not fit is an error now
            print(f"{name}: {loaded_line(load_encoder(file, input_size=size), file)}")
        else:  # the cell loads published weights
            build_encoder(without_options(file, "pretrained"), input_size=size, seed=0)
        found[name] = Row(name, source=file)
    return tuple(found.values())

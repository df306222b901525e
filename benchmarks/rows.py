"""The rows of a comparison: tasks with settings of their own, and encoders from elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pretext.system.errors import UserError, did_you_mean
from pretext.system.plugins import file_row, is_file
from pretext.system.specs import options_into, parse_spec, with_option, without_options

if TYPE_CHECKING:
    from benchmarks.recipes import Recipe

NOT_OF_A_ROW = ("seed", "bad_images")
"""Settings of how to train that are the comparison's, not a row's."""


def task_rows(tasks: tuple[str, ...], profile_rows: Mapping[str, str]) -> dict[str, str]:
    """Return task specs by row name; the rows `random` and `supervised` are always included.

    A row of the profile with settings, `ROW?key=value`, is that row's task with these settings. Settings of the
    training loop are left out; `row_training` returns them.

    Raises:
        UserError: If a name is neither a row of the profile nor a task, a file has the name of another row, or a
            setting is unknown or out of range.
    """
    from benchmarks.recipes import PLAIN
    from pretext.tasks import task_config, task_names

    rows = {"random": "random", "supervised": "supervised"}
    if not tasks:
        return rows | dict(profile_rows)
    for name in tasks:
        if name in profile_rows:
            rows[name] = profile_rows[name]
        elif is_file(name):
            task_config(spec := _of_the_task(name, name))
            if (row := file_row(name)) in {*rows, *profile_rows, *PLAIN, *task_names()}:
                raise UserError(f"--tasks {name}: a row is called {row} already; rename the file")
            rows[row] = spec
        elif name.partition("?")[0] not in (known := {*profile_rows, *task_names()}):
            raise UserError(f"unknown task {name!r}; {did_you_mean(name, known)}")
        else:
            start = profile_rows.get(name.partition("?")[0], name)
            rows[name] = spec = _of_the_task(name, start)
            task_config(spec)  # an unknown option is an error now, not during the run
    return rows


def row_training(tasks: tuple[str, ...], recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return the training settings that the specs of rows name, by row; those of a row of the profile come first.

    Args:
        tasks: As for `task_rows`, which has checked them.
        recipe: The profile.

    Raises:
        UserError: If a value is out of range, or the task takes no training steps.
    """
    from pretext.tasks import task_class
    from pretext.tasks.base import Fitted
    from pretext.training.config import TrainConfig

    found: dict[str, dict[str, Any]] = {}
    for name in tasks:
        if name in recipe.rows:
            continue
        base = name.partition("?")[0]
        start = recipe.rows.get(base, name)
        options = _loop_options(name, start)
        if {*options} - {"init"} and issubclass(task_class(start), Fitted):
            raise UserError(f"--tasks {name}: {base} takes no training steps, so {next(iter(options))} has no effect")
        spec = dataclasses.replace(parse_spec(name), options=options)
        made = options_into(TrainConfig, spec, start=recipe.train_config(base, seed=0))
        row = file_row(name) if is_file(name) else name
        found[row] = {**recipe.overrides.get(base, {}), **{key: getattr(made, key) for key in options}}
    return found


def _of_the_task(name: str, start: str) -> str:
    """Return the spec `start` with the settings of `name` that are the task's own."""
    loop = _loop_options(name, start)
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
    encoders: tuple[str, ...], *, taken: Mapping[str, str], size: int, allow_partial: bool = False
) -> dict[str, str]:
    """Return encoder files, or specs with external weights, by row name; print which weights were loaded.

    Raises:
        UserError: If a name is missing or taken, a file is not an encoder file, or weights do not fit their model.
    """
    from pretext.encoders import build_encoder, load_encoder
    from pretext.encoders.foreign import FILE_OPTIONS, loaded_line, with_allow_partial
    from pretext.encoders.weights import LIBRARIES, is_spec, weights_file

    found: dict[str, str] = {}
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
        found[name] = file
    return found

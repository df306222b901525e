"""A sweep: one row whose settings are the best of a grid, chosen on val.

Every setting is trained with seed 0 and judged by k-NN on the val split of the first data set. The best one becomes a
row of the comparison, with all seeds, judged on test like any other. The test split is not read before that.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.planning.cells import settings_hash
from benchmarks.records.results import SCHEMA_VERSION, encoder_path, read_plan, write_json
from benchmarks.words.wording import and_list, count_of
from pretext.system.errors import UserError
from pretext.system.plugins import is_file
from pretext.system.stored_json import Shape, read_json

if TYPE_CHECKING:
    from benchmarks.executors.base import Executor
    from benchmarks.options import Options
    from benchmarks.planning.cells import Cell
    from pretext.datasets.base import ImageDataset
    from pretext.encoders.base import Encoder

MOST = 100
"""Most settings of a sweep."""
TRAIN_IMAGES, VAL_IMAGES = 2000, 2000
"""Labelled pictures of train that are searched, and pictures of val that are classified, at most."""
FILE = "sweep.json"
SHAPE: Shape = {"schema_version": int, "sweeps": {"*": {"sweep": str, "chosen": str, "val": {"*": float}}}}


def settings_of(sweep: str) -> tuple[str, ...]:
    """Return the rows of a sweep: TASK?key=value&… for every combination of the values between commas.

    Raises:
        UserError: If it is not a sweep of a task by its name, or has fewer than two settings or too many.
    """
    task, _, options = sweep.partition("?")
    if is_file(task):
        raise UserError(f"--sweep {sweep}: give a task by its name; a file's rows would share its name")
    choices = []
    for part in options.split("&"):
        key, equals, values = part.partition("=")
        if not (task and key and equals and values):
            raise UserError(f"--sweep {sweep}: write TASK?key=value,value&key=value,value")
        choices.append([f"{key}={value}" for value in dict.fromkeys(values.split(","))])
    rows = tuple(f"{task}?{'&'.join(chosen)}" for chosen in itertools.product(*choices))
    if not 2 <= len(rows) <= MOST:
        allowed = f"allowed is from 2 to {MOST}, with commas between values"
        raise UserError(f"--sweep {sweep} has {len(rows)} settings; {allowed}")
    return rows


def swept(options: Options, argv: list[str], executor: tuple[type[Executor], Any]) -> tuple[Options, tuple[str, ...]]:
    """Return the options with the best row of each sweep among their tasks, and a sentence on each choice.

    What was chosen is kept in OUT/sweep.json: the same command does not choose again. A dry run chooses nothing and
    takes all settings as rows.

    Args:
        options: The flags; `sweep` is not empty.
        argv: The command line, for OUT/plan.json.
        executor: The executor that trains, and its options.

    Raises:
        UserError: If a setting is unknown or could not be trained, or the data has no classes.
    """
    from benchmarks.planning.recipes import PROFILES
    from benchmarks.planning.rows import by_name

    rows = list(options.tasks or by_name(PROFILES[options.profile]().rows))
    sentences: list[str] = []
    for sweep in options.sweep:
        if options.dry_run:
            rows += settings_of(sweep)
            sentences.append(f"The best of {len(settings_of(sweep))} settings will be a row; the plan has all of them.")
        else:
            found = _chosen(sweep, options, argv, executor)
            rows.append(found["chosen"])
            sentences.append(_sentence(found))
    return dataclasses.replace(options, tasks=tuple(rows), sweep=()), tuple(sentences)


def val_accuracy(encoder: Encoder, data: ImageDataset) -> float:
    """Return the k-NN accuracy on val in percent, at the stage where it is highest.

    Args:
        encoder: Each stage is averaged over its map.
        data: Any split of a data set with one class per picture; train and val are read.
    """
    from downstream.features import split_features
    from downstream.reading import draw
    from pretext.training.watching import knn_accuracy

    train, val = (
        split_features(encoder, data, name, most=1, indices=draw(data.split(name), count, seed=0))
        for name, count in (("train", TRAIN_IMAGES), ("val", VAL_IMAGES))
    )
    return max(knn_accuracy(train.stages[name], train.targets, val.stages[name], val.targets) for name in train.stages)


def _chosen(sweep: str, options: Options, argv: list[str], executor: tuple[type[Executor], Any]) -> Mapping[str, Any]:
    """Return what OUT/sweep.json holds of a sweep; train and judge its settings if it holds nothing yet."""
    from benchmarks.options import plan_of

    rows, out = settings_of(sweep), options.folder
    try:
        plan = plan_of(dataclasses.replace(options, tasks=rows, encoder=(), seeds=1, sweep=()))
    except UserError as error:
        raise UserError(f"--sweep {sweep}: {error}") from None
    cells = [cell for cell in plan.cells if cell.protocol is None and cell.pretext in rows]
    data = plan.judged[0].open()
    judged = [data.split(name).fingerprint for name in ("train", "val")]
    key = settings_hash([*sorted(cell.name for cell in cells), *judged])
    known = _read(out)
    if key not in known:
        if "label" not in data.annotations:
            raise UserError(f"--sweep {sweep}: it chooses by classes on val, and {data.spec} has no class per picture")
        if not read_plan(out):
            plan.write(out, argv)  # nodes of a cluster know the folder by it
        _train([cell for cell in cells if not cell.is_done(out)], options, executor, plan.recipe.expected_s)
        if failed := [cell.pretext for cell in cells if not cell.is_done(out)]:
            raise UserError(
                f"--sweep {sweep}: {len(failed)} of {count_of(len(cells), 'setting')} could not be trained "
                f"({and_list(failed)}); see {out / 'failures'}, then start the same command again or leave them out"
            )
        val = _judged(cells, data, out)
        best = max(val, key=lambda row: val[row])
        known |= {key: {"sweep": sweep, "chosen": best, "val": val}}
        write_json(out / FILE, {"schema_version": SCHEMA_VERSION, "sweeps": known})
    found: Mapping[str, Any] = known[key]
    return found


def _train(
    cells: Sequence[Cell],
    options: Options,
    executor: tuple[type[Executor], Any],
    expected_s: Mapping[str, float],
) -> None:
    from benchmarks.executors import schedule

    if not cells:
        return
    kind, config = executor
    pool = kind(options.folder, options.workers, config)
    print(f"sweep: training {count_of(len(cells), 'setting')} with seed 0", file=sys.stderr, flush=True)
    schedule.run_and_show(
        cells, options.folder, pool, expected=schedule.Estimate(expected_s, pool.workers, pool.counts_processes)
    )


def _judged(cells: Sequence[Cell], data: ImageDataset, out: Path) -> dict[str, float]:
    """Return the accuracy on val by row."""
    from pretext.encoders import load_encoder
    from pretext.system.device import device_of

    found = {}
    for cell in cells:
        encoder = load_encoder(encoder_path(out, cell.name)).to(device_of("auto"))
        found[cell.pretext] = val_accuracy(encoder, data)
        print(f"sweep: {cell.pretext}: {found[cell.pretext]:.1f} % on val", file=sys.stderr, flush=True)
    return found


def _read(out: Path) -> dict[str, Any]:
    path = out / FILE
    if not path.exists():
        return {}
    content = read_json(path, SHAPE, remedy="delete it to choose again")
    return dict(content["sweeps"])


def _sentence(found: Mapping[str, Any]) -> str:
    val, best = found["val"], found["chosen"]
    others = and_list([f"{row} {value:.1f} %" for row, value in val.items() if row != best])
    return f"Row {best} was chosen from {len(val)} settings by k-NN top-1 on val with seed 0: {val[best]:.1f} %" + (
        f"; {others}." if others else "."
    )

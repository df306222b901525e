"""The names that people read, of rows, probes and metrics.

A task or a probe declares its name in its own file; the names are read from the source text, without an import. Rows
whose names depend on more than themselves, of tasks in a user's file and of encoders that are called like a task, are
named when results are read: `name_rows`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import cache

from benchmarks.words.columns import column, label_of, probe_of
from pretext.system import catalogue
from pretext.system.errors import UserError
from pretext.system.plugins import is_file
from pretext.system.specs import parse_spec, path_of

PLAIN_TITLES = {"hog": "HOG", "pixels": "Raw pixels"}
"""Names of the rows without a network."""
ENCODERS = {"alexnet": "AlexNet", "released": "the authors' AlexNet"}
"""Names of the suite's own architectures."""
METRICS = {"top1": "top-1", "top5": "top-5"}
"""Names of metrics that are written otherwise than in results.csv."""
FEW_LABELS = re.compile(r"(?P<tuned>tuned )?(?P<name>.+)@(?:(?P<percent>[\d.e+-]+)%|k=(?P<each>\d+))(?P<sd> sd)?")
"""Metrics of probes that train on few labels: a share of them, or so many of each class."""
_own: dict[str, str] = {}
"""Names of rows that `name_rows` has found."""
_specs: dict[str, str | None] = {}
"""Task spec of each row that `name_rows` was given; None for an encoder from elsewhere."""

_started: set[str] = set()
"""Rows that `name_rows` was told of, whose training began with given weights."""


def row_title(row: str) -> str:
    """Return the name that people read: `Context encoder + adversary` for `context_encoder:adversarial`.

    Options stay, in brackets. The name of an encoder from elsewhere is as its user has chosen it.
    """
    return _own.get(row) or _title(row)


def name_rows(specs: Mapping[str, str | None], *, started: Collection[str] = ()) -> None:
    """Name the rows whose names do not follow from themselves, for `row_title`.

    A task in a user's file is called by its `titles`, or else by the file's name. An encoder from elsewhere that is
    called like another row, as in `--encoder SimCLR=FILE` beside `simclr`, is told apart.

    Args:
        specs: The task spec of each row of a comparison; None for an encoder from elsewhere.
        started: Rows whose training began with given weights.
    """
    _specs.update(specs)
    _started.difference_update(specs)
    _started.update(started)
    for row, spec in specs.items():
        if spec is not None and is_file(spec):
            _own[row] = _title_in_file(row, spec)
    for row, spec in specs.items():
        others = {row_title(other) for other in specs if other != row}
        if spec is None and row not in PLAIN_TITLES and _title(row) in others:
            _own[row] = f"{row} (encoder file)"


def uses_labels(row: str) -> bool:
    """Return whether a row was trained with labels; False for an encoder from elsewhere, of which it is not known."""
    spec = _specs.get(row, row)
    task = None if spec is None else _in_file(spec) if is_file(spec) else _tasks().get(re.split("[:?]", spec)[0])
    return task is not None and task.needs_labels


def is_given(row: str) -> bool:
    """Return whether a row is an encoder from elsewhere; it may have been trained with labels."""
    return row in _specs and _specs[row] is None and row not in PLAIN_TITLES


def may_know_labels(row: str) -> bool:
    """Return whether a row's weights, or those that its training began with, are from elsewhere."""
    return is_given(row) or row in _started


def _in_file(spec: str) -> catalogue.DeclaredTask | None:
    """Return the task that a user's file declares; None if the file is gone."""
    try:
        return catalogue.declared_task_in_file(path_of(parse_spec(spec).kind))
    except UserError:
        return None


def _title_in_file(row: str, spec: str) -> str:
    """Return the name of a task in a user's file; that of the file if it is gone or names none."""
    _, _, options = row.partition("?")
    name, _, variant = row.partition("?")[0].partition(":")
    readable = name.replace("_", " ").strip().capitalize() or name
    task = _in_file(spec)
    if task is None or not task.titles:
        return _with_options(f"{readable} ({variant})" if variant else readable, options)
    return _with_options(task.title(variant), options)


@cache
def _title(row: str) -> str:
    kind, _, options = row.partition("?")
    name, colon, variant = kind.partition(":")
    task = _tasks().get(name)
    if task is None or (colon and variant not in task.variants):
        return PLAIN_TITLES.get(row, row)
    return _with_options(task.title(variant), options)


def _with_options(title: str, options: str) -> str:
    """Return a name with options, as `simclr?temperature=0.1` has them, in brackets."""
    options = options.replace("&", ", ")
    if not options:
        return title
    return f"{title[:-1]}, {options})" if title.endswith(")") else f"{title} ({options})"


@cache
def probe_title(name: str) -> str:
    """Return the name that people read: `Fine-tuning` for `fine_tune`; a probe in a user's file keeps its name.

    A column on one of several data sets keeps the set: `Fine-tuning on camvid`.
    """
    probe = probe_of(name)
    title = _probes().get(probe)
    return column(probe if title is None else title or probe.replace("_", " ").capitalize(), label_of(name))


def encoder_title(spec: str) -> str:
    """Return an architecture as people write it: `AlexNet (width 0.25)` for `alexnet?width=0.25`."""
    kind, _, options = spec.partition("?")
    name = ENCODERS.get(kind, kind.partition(":")[2] or kind)
    settings = ", ".join(option.replace("=", " ").replace("_", " ") for option in options.split("&"))
    return f"{name} ({settings})" if options else name


def metric_title(metric: str, unit: str = "") -> str:
    """Return the name that people read, with its unit if one is given: `top-1 %` for `top1`.

    Scores on few labels say on how many: `fine-tuned top-1 %, 10 % of the labels` for `tuned top1@10%`.
    """
    name, labels = metric, ""
    if found := FEW_LABELS.fullmatch(metric):
        tuned, spread = "fine-tuned " if found["tuned"] else "", ", deviation of samples" if found["sd"] else ""
        name = f"{tuned}{METRICS.get(found['name'], found['name'])}"
        labels = f", {labels_title(found['percent'], found['each'])}{spread}"
    return f"{METRICS.get(name, name)} {unit}".rstrip() + labels


def labels_title(percent: str | None, each: str | None = None) -> str:
    """Return a budget of labels: `10 % of the labels`, or `4 labels of each class`."""
    if percent is not None:
        return f"{percent} % of the labels"
    return f"{each} label{'' if each == '1' else 's'} of each class"


@cache
def _tasks() -> dict[str, catalogue.DeclaredTask]:
    return catalogue.declared_tasks()


@cache
def _probes() -> dict[str, str]:
    """Return the name of every probe of the suite; empty where its file gives none."""
    packages = ("downstream.probes", "retrieval.probes")
    found = {name: probe for package in packages for name, probe in catalogue.declared_probes(package).items()}
    return {"inpainting": ""} | {name: probe.value("title", "") for name, probe in found.items()}

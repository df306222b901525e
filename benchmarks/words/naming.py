"""The names that people read, of rows, probes and metrics.

A task or a probe declares its name in its own file; the names are read from the source text, without an import. Rows
whose names depend on more than themselves, of tasks in a user's file and of encoders that are called like a task, are
named from their settings: `named_rows`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
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


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a comparison as people read it, and whether its weights may have seen labels."""

    title: str
    """See `row_title`; `named_rows` names tasks in a user's file, and encoders that are called like a task."""
    uses_labels: bool
    """Whether it was trained with labels; False for an encoder from elsewhere, of which it is not known."""
    is_given: bool
    """Whether it is an encoder from elsewhere; it may have been trained with labels."""
    may_know_labels: bool
    """Whether its weights, or those that its training began with, are from elsewhere."""


def named_rows(settings: Mapping[str, str]) -> dict[str, Row]:
    """Return the rows of a comparison by their names in results.csv.

    A task in a user's file is called by its `titles`, or else by the file's name. An encoder from elsewhere that is
    called like another row, as in `--encoder SimCLR=FILE` beside `simclr`, is told apart.

    Args:
        settings: `Measurement.config_json` of a cell of each row.
    """
    known = {row: json.loads(text) for row, text in settings.items()}
    specs = {row: None if "foreign" in each else str(each.get("spec", row)) for row, each in known.items()}
    titles = {row: _title(row, spec) for row, spec in specs.items()}
    rows = {}
    for row, spec in specs.items():
        is_given = spec is None and row not in PLAIN_TITLES
        same = is_given and titles[row] in {title for other, title in titles.items() if other != row}
        rows[row] = Row(
            title=f"{row} (encoder file)" if same else titles[row],
            uses_labels=spec is not None and _uses_labels(spec),
            is_given=is_given,
            may_know_labels=is_given or "init" in known[row],
        )
    return rows


@cache
def row_title(row: str) -> str:
    """Return the name that people read: `Context encoder + adversary` for `context_encoder:adversarial`.

    Options stay, in brackets. The name of an encoder from elsewhere is as its user has chosen it.
    """
    kind, _, options = row.partition("?")
    name, colon, variant = kind.partition(":")
    task = _tasks().get(name)
    if task is None or (colon and variant not in task.variants):
        return PLAIN_TITLES.get(row, row)
    return _with_options(task.title(variant), options)


def _uses_labels(spec: str) -> bool:
    task = _in_file(spec) if is_file(spec) else _tasks().get(re.split("[:?]", spec)[0])
    return task is not None and task.needs_labels


def _in_file(spec: str) -> catalogue.DeclaredTask | None:
    """Return the task that a user's file declares; None if the file is gone."""
    try:
        return catalogue.declared_task_in_file(path_of(parse_spec(spec).kind))
    except UserError:
        return None


def _title(row: str, spec: str | None) -> str:
    """Return the name of a row; of a task in a file that is gone or names none, that of the file."""
    if spec is None or not is_file(spec):
        return row_title(row)
    _, _, options = row.partition("?")
    name, _, variant = row.partition("?")[0].partition(":")
    readable = name.replace("_", " ").strip().capitalize() or name
    task = _in_file(spec)
    if task is None or not task.titles:
        return _with_options(f"{readable} ({variant})" if variant else readable, options)
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

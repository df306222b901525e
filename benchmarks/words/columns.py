"""The columns of a comparison: its probes, or with several data sets each probe on each set, as `linear on camvid`.

A results file names only the probe and the data set, so a cell is the same whatever other sets a comparison has.
Columns are named on reading, from the data sets of the plan.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from pretext.system.errors import UserError
from pretext.system.specs import parse_spec

if TYPE_CHECKING:
    from benchmarks.records.results import Measurement

ON = " on "
"""Stands between the probe and the data set."""
NO_NAMES = ("train", "training", "val", "test", "images", "data", "VOCdevkit")
"""Last folders of a path that say nothing of the data set."""


def column(probe: str, label: str) -> str:
    """Return the name of a column: the probe's alone if `label` is empty."""
    return f"{probe}{ON}{label}" if label else probe


def probe_of(name: str) -> str:
    """Return the probe of a column."""
    return name.partition(ON)[0]


def label_of(name: str) -> str:
    """Return the data set of a column by its label; empty if the comparison has one set."""
    return name.partition(ON)[2]


def by_set(columns: Iterable[str]) -> dict[str, list[str]]:
    """Return columns by the label of their data set, in the order given."""
    found: dict[str, list[str]] = {}
    for each in columns:
        found.setdefault(label_of(each), []).append(each)
    return found


def sets_of(plan: Mapping[str, Any]) -> list[str]:
    """Return the specs of the data sets of a plan.json; none if it names none."""
    data = plan.get("data", [])
    return [data] if isinstance(data, str) else [*data]


def synthetic_sets(plan: Mapping[str, Any]) -> list[str]:
    """Return those of the data sets of a plan.json whose images were drawn by a program."""
    found = plan.get("synthetic_sets", sets_of(plan) if plan.get("synthetic") else [])
    return [*found]


def labels_of(specs: Sequence[str]) -> dict[str, str]:
    """Return the label of each data set: empty for one alone; of several the last folder of the path, or the kind.

    Sets that would share a label have more of their path, their kind, or the options in which they differ.

    Raises:
        UserError: If a set is given twice.
    """
    if twice := [spec for at, spec in enumerate(specs) if spec in specs[:at]]:
        raise UserError(f"--data {twice[0]} is given twice; give each data set once")
    if len(specs) < 2:
        return dict.fromkeys(specs, "")
    names = {spec: _names(spec, specs) for spec in specs}
    taken = {spec: {name for other in specs if other != spec for name in names[other]} for spec in specs}
    labels = {spec: next((name for name in names[spec] if name not in taken[spec]), spec) for spec in specs}
    for spec, label in labels.items():
        others = {other.partition("?")[0] for other in specs if other != spec}
        if label == spec and spec.partition("?")[0] in others and names[spec][0] not in labels.values():
            labels[spec] = names[spec][0]  # the others say in what they differ from it
    return labels


def _names(spec: str, specs: Sequence[str]) -> list[str]:
    """Return names for a data set, the shortest first; the last one is its spec."""
    parsed = parse_spec(spec)
    body = spec.partition("?")[0]
    parts = [part for part in PurePath(parsed.path).parts if part not in ("/", ".", "..", "~")]
    while len(parts) > 1 and parts[-1] in NO_NAMES:
        parts.pop()
    names = ["/".join(parts[-depth:]) for depth in range(1, len(parts) + 1)] or [parsed.kind]
    alike = [parse_spec(other).options.items() for other in specs if other.partition("?")[0] == body]
    own = [f"{key}={value}" for key, value in parsed.options.items() if not all((key, value) in o for o in alike)]
    return [*names, body, *([f"{names[0]} {' '.join(own)}"] if own else []), spec]


def pictures_of(row: Measurement) -> str:
    """Return what identifies the pictures of all splits that a cell was computed on."""
    return json.dumps(json.loads(row.config_json).get("data", row.data_fingerprint), sort_keys=True)


def with_columns(measurements: Iterable[Measurement], specs: Sequence[str]) -> list[Measurement]:
    """Return measurements whose `probe` is the name of their column, those of the first set first.

    Args:
        measurements: Measurements as their files hold them.
        specs: Data sets of the comparison; with fewer than two nothing changes. A set of another name belongs to the
            one with the same pictures: two folders may name one set by two paths.
    """
    rows = [*measurements]
    labels = labels_of(specs)
    if len(labels) < 2:
        return rows
    renamed = [row for row in rows if row.data not in labels]
    same = {pictures_of(row): labels[row.data] for row in rows if renamed and row.data in labels}
    own = {row.data: same.get(pictures_of(row), "") for row in renamed}
    strange = [spec for spec, label in own.items() if not label]
    labels = labels_of([*labels, *strange]) | {spec: label for spec, label in own.items() if label} | labels
    order = [*dict.fromkeys(labels.values())]
    named = [dataclasses.replace(row, probe=column(row.probe, labels[row.data])) for row in rows]
    return sorted(named, key=lambda row: order.index(label_of(row.probe)))

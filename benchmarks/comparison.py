"""Two results folders against each other: of two commits, or of two machines.

A cell is in common where row, probe and seed are the same, and so is all that it was asked to do: data, encoder,
training and protocol. The code may differ, and what the code makes of it; that is what is compared.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells import differing_settings, flat
from benchmarks.environment import read_environments
from benchmarks.intervals import ALONE, LEVEL, Interval, holm, interval
from benchmarks.ordering import probe_key, row_key
from benchmarks.results import Measurement, latest, read_measurements
from benchmarks.verdict import loans_among, one_per_seed, tables
from benchmarks.wording import MOST_NAMED, and_list
from pretext.system.errors import UserError

UNKNOWN = "unknown"
WORD = {True: "better", False: "worse", None: "not distinguishable"}
Key = tuple[str, str, int]
"""Row, probe and seed."""
Cells = dict[Key, list[Measurement]]


@dataclasses.dataclass(frozen=True)
class Change:
    """How far one metric of one row lies apart in two folders."""

    pretext: str
    probe: str
    metric: str
    unit: str
    headline: bool
    identical: bool
    """Whether every value is the same to the last bit."""
    difference: Interval
    """First folder minus second, over the seeds and test items that both have."""
    better: bool | None
    """Whether the first is better for certain (True), worse for certain (False), or neither."""

    @property
    def said(self) -> str:
        """The change in words."""
        if self.identical:
            return "identical"
        if self.difference.p is None:
            return "cannot be said"
        return WORD[self.better]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What two folders have in common, and what not."""

    common: int
    """Cells."""
    changes: list[Change]
    apart: list[str]
    """A sentence for each kind of cell or metric that was not compared: how many, and why."""


def has_results(folder: Path) -> bool:
    """Whether a path is a folder that holds results."""
    return any((folder / "results").glob("*.json"))


def compared_folders(one: Path, other: Path) -> Comparison:
    """Return what moved between two results folders.

    Raises:
        UserError: If a file of either was written by another version of this suite, or cannot be read.
    """
    ours, theirs = cells_of(read_measurements(one)), cells_of(read_measurements(other))
    reasons: Counter[str] = Counter()
    common: list[Key] = []
    for key in (key for key in ours if key in theirs):
        if why := what_differs(ours[key][0], theirs[key][0]):
            reasons[why] += 1
        else:
            common.append(key)
    left_out = [
        f"only in {name}: {_cells(sum(kinds.values()))}, of {_counted(kinds)}"
        for name, kinds in (("A", _missing(ours, theirs)), ("B", _missing(theirs, ours)))
        if kinds
    ]
    left_out += [f"not compared: {_cells(count)}, {why}" for why, count in reasons.items()]
    pair = [[row for key in common for row in cells[key]] for cells in (ours, theirs)]
    metrics = [{(row.probe, row.metric) for row in rows} for rows in pair]
    for name, alone in (("A", metrics[0] - metrics[1]), ("B", metrics[1] - metrics[0])):
        if alone:
            left_out.append(f"only in {name}: {and_list([f'{metric} of {probe}' for probe, metric in sorted(alone)])}")
    return Comparison(len(common), _changes(*pair), left_out)


def cells_of(measurements: Sequence[Measurement]) -> Cells:
    """Return the latest cell's scores by row, probe and seed."""
    found: Cells = {}
    for row in latest(measurements):
        found.setdefault((row.pretext, row.probe, row.seed), []).append(row)
    return found


def what_differs(one: Measurement, other: Measurement) -> str:
    """Return why two cells of one row, probe and seed cannot be compared; nothing where they can."""
    ours, theirs = _asked(one), _asked(other)
    keys = {key.partition(".")[0] for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)}
    if keys & {"data", "pretrain_data"}:
        return f"of other data: {_two(one.data, other.data, 'whose pictures differ')}"
    if keys & {"encoder", "foreign"}:
        return f"of another encoder: {_two(one.encoder, other.encoder, 'of other weights')}"
    return f"of other settings: {', '.join(differing_settings(ours, theirs))}" if keys else ""


def facts_of(folder: Path) -> dict[str, str]:
    """Return what a folder was computed with, as name and value; all that it was, where that changed."""
    rows, environments = read_measurements(folder), read_environments(folder)

    def all_of(values: Iterator[Any]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values)) or UNKNOWN

    return {
        "revision": all_of(f"{m.git_sha or UNKNOWN}{' with changes' if m.git_dirty else ''}" for m in rows),
        "code": all_of(json.loads(m.config_json).get("code", UNKNOWN) for m in rows),
        "PyTorch": all_of(m.torch_version for m in rows),
        "device": all_of(m.device for m in rows),
        "processor": all_of(e.get("processor", UNKNOWN) for e in environments),
        "instructions": all_of(e.get("instructions", UNKNOWN) for e in environments),
        "threads": all_of(e.get("threads", UNKNOWN) for e in environments),
    }


def text(one: Path, other: Path) -> str:
    """Return two folders' comparison, a line a headline metric, and a line for each other metric that moved.

    Raises:
        UserError: If they have no cell in common; the line says why.
    """
    found = compared_folders(one, other)
    if not found.common:
        raise UserError(f"{one} and {other} have no cell in common; {'; '.join(found.apart)}")
    facts = [facts_of(folder) for folder in (one, other)]
    pairs = {name: (facts[0][name], facts[1][name]) for name in facts[0]}
    alike = [f"{name} {first}" for name, (first, second) in pairs.items() if first == second != UNKNOWN]
    lines = [f"A: {one}", f"B: {other}"]
    lines += [f"{name}: A {first}; B {second}" for name, (first, second) in pairs.items() if first != second]
    lines += [f"the same: {', '.join(alike)}"] if alike else []
    lines += [f"{_cells(found.common)} in common", *found.apart]
    told = [change for change in found.changes if change.headline or change.better is not None]
    if moved := [change_line(change) for change in told if not change.identical]:
        lines += ["A minus B, paired by seed and test item, 95 % intervals: headline metrics, and others that moved"]
        lines += moved
    counts = Counter(change.said for change in found.changes)
    lines.append(f"of {len(found.changes)} metrics {', '.join(f'{count} {said}' for said, count in counts.items())}")
    return "\n".join([*lines, *_after_holm(found.changes)])


def change_line(change: Change) -> str:
    """Return one change as a line."""
    what = f"{change.probe} {change.metric} {change.unit}".strip()
    return f"{change.pretext:28} {difference_line(what, change.difference, change.said)}"


def difference_line(what: str, difference: Interval, said: str) -> str:
    """Return a difference as a line: of what, how much, its interval, and what that says."""
    low, high = difference.low, difference.high
    ends = "no interval" if low is None or high is None else f"[{low:+.2f}, {high:+.2f}]"
    return f"{what:36} {difference.mean:+8.2f}  {ends:21}  {said}"


def _changes(ours: Sequence[Measurement], theirs: Sequence[Measurement]) -> list[Change]:
    first, second = one_per_seed(ours), one_per_seed(theirs)
    differences = {}
    for place in first.keys() & second.keys():
        if first[place].keys() & second[place].keys():
            one, other = tables(first[place], second[place])
            differences[place] = one - other
    moved = {place: table for place, table in differences.items() if np.any(table)}
    loans = loans_among(moved)  # what is the same to the last bit tells nothing of how far seeds differ
    changes = []
    for place in sorted(differences, key=lambda place: (row_key(place[0]), probe_key(place[1]), place[2])):
        difference = interval(differences[place], loans.get(place, ALONE))
        about = next(iter(first[place].values()))
        certain = difference.p is not None and difference.p < 1 - LEVEL
        changes.append(
            Change(
                *place,
                unit=about.unit,
                headline=any(row.headline for row in first[place].values()),
                identical=place not in moved,
                difference=difference,
                better=(difference.mean > 0) == about.higher_is_better if certain else None,
            )
        )
    return changes


def _after_holm(changes: Sequence[Change]) -> list[str]:
    """Return what is left when all headline metrics that are not identical are held to 95 % together."""
    family = [c for c in changes if c.headline and not c.identical and c.difference.p is not None]
    adjusted = holm([c.difference.p for c in family if c.difference.p is not None])
    left = [
        f"{change.pretext} {change.probe} {change.said}"
        for change, p in zip(family, adjusted, strict=True)
        if p < 1 - LEVEL
    ]
    return [f"After Holm's correction for all {len(family)}: {and_list(left) or 'none'}."] if family else []


def _missing(ours: Cells, theirs: Cells) -> Counter[str]:
    """Return what the cells of one folder are of that the other lacks: a row, a probe or a seed, or one cell alone."""
    rows, probes, seeds = ({key[i] for key in theirs} for i in range(3))
    kinds: Counter[str] = Counter()
    for row, probe, seed in (key for key in ours if key not in theirs):
        if row not in rows:
            kinds[f"row {row}"] += 1
        elif probe not in probes:
            kinds[f"probe {probe}"] += 1
        elif seed not in seeds:
            kinds[f"seed {seed}"] += 1
        else:
            kinds[f"{row} in {probe}"] += 1
    return kinds


def _asked(row: Measurement) -> dict[str, Any]:
    """Return what a cell was asked to do, but for how the code was numbered: two commits are to be compared."""
    settings = flat(json.loads(row.config_json)) | {"data.fingerprint": row.data_fingerprint}
    return {key: value for key, value in settings.items() if key != "code"}


def _two(one: str, other: str, alike: str) -> str:
    return f"{one} and {other}" if one != other else f"{one}, {alike}"


def _cells(count: int) -> str:
    return f"{count} cell{'s' if count > 1 else ''}"


def _counted(kinds: Counter[str]) -> str:
    named = [f"{kind} ({count})" for kind, count in kinds.most_common(MOST_NAMED)]
    return and_list([*named, *([f"{len(kinds) - MOST_NAMED} more"] if len(kinds) > MOST_NAMED else [])])

"""Compare two results folders, computed by two commits or on two machines.

Two cells are compared if they have the same row, probe and seed, and the same settings: data, encoder, training and
protocol. The code and the machine may differ.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.planning.cells import differing_settings, flat
from benchmarks.records.environment import read_environments
from benchmarks.records.results import Measurement, latest, read_measurements, read_plan
from benchmarks.summaries.intervals import LEVEL, NO_PRIOR, Interval, holm, interval
from benchmarks.summaries.verdict import one_per_seed, summarise, tables, variance_priors
from benchmarks.words.columns import column, label_of, labels_of, probe_of, sets_of
from benchmarks.words.ordering import column_order, row_key
from benchmarks.words.wording import MOST_NAMED, all_of, and_list, count_of
from pretext.system.errors import UserError

UNKNOWN = "unknown"
WORD = {True: "better", False: "worse", None: "not distinguishable"}
NOT_TESTABLE = "not testable"
"""Outcome of a difference without an interval."""
Key = tuple[str, str, int]
"""Row, probe and seed."""
Cells = dict[Key, list[Measurement]]


@dataclasses.dataclass(frozen=True)
class Change:
    """Difference of one metric of one row between two folders."""

    pretext: str
    probe: str
    metric: str
    unit: str
    headline: bool
    identical: bool
    """Whether all values are equal to the last bit."""
    difference: Interval
    """First folder minus second, over the seeds and test items in both."""
    better: bool | None
    """True if the first folder is significantly better, False if significantly worse, else None."""

    @property
    def outcome(self) -> str:
        """The result of the comparison, in words."""
        if self.identical:
            return "identical"
        if self.difference.p is None:
            return NOT_TESTABLE
        return WORD[self.better]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Changes between two folders, and what was not compared."""

    common: int
    """Number of cells that were compared."""
    changes: list[Change]
    not_compared: list[str]
    """One sentence per kind of cell or metric that was not compared: how many, and why."""


def has_results(folder: Path) -> bool:
    """Return whether a path is a results folder with at least one result."""
    return any((folder / "results").glob("*.json"))


def compare_folders(one: Path, other: Path) -> Comparison:
    """Compare the cells that two results folders have in common.

    Raises:
        UserError: If a file of either folder is unreadable or has another schema version.
    """
    ours, theirs = map(cells_of, _both(one, other))
    reasons: Counter[str] = Counter()
    common: list[Key] = []
    for key in (key for key in ours if key in theirs):
        if why := what_differs(ours[key][0], theirs[key][0]):
            reasons[why] += 1
        else:
            common.append(key)
    left_out = [
        f"only in {name}: {count_of(sum(kinds.values()), 'cell')}: {_counted(kinds)}"
        for name, kinds in (("A", _missing(ours, theirs)), ("B", _missing(theirs, ours)))
        if kinds
    ]
    left_out += [f"not compared: {count_of(count, 'cell')}, {why}" for why, count in reasons.items()]
    pair = [[row for key in common for row in cells[key]] for cells in (ours, theirs)]
    metrics = [{(row.probe, row.metric) for row in rows} for rows in pair]
    for name, missing in (("A", metrics[0] - metrics[1]), ("B", metrics[1] - metrics[0])):
        if missing:
            named = [f"{metric} of {probe}" for probe, metric in sorted(missing)]
            left_out.append(f"only in {name}: {and_list(named)}")
    return Comparison(len(common), _changes(*pair), left_out)


def _both(one: Path, other: Path) -> list[list[Measurement]]:
    """Return the measurements of two folders; if one of them has several data sets, columns name the set in both."""
    sets = [sets_of(read_plan(folder)) for folder in (one, other)]
    found = [read_measurements(folder) for folder in (one, other)]
    if max(map(len, sets)) < 2:
        return found
    labels = {spec: label for own in sets if len(own) > 1 for spec, label in labels_of(own).items()}
    same = {row.data_fingerprint: label_of(row.probe) for rows in found for row in rows if label_of(row.probe)}
    for rows in found:
        for at, row in enumerate(rows):
            label = labels.get(row.data) or same.get(row.data_fingerprint) or row.data
            rows[at] = dataclasses.replace(row, probe=column(probe_of(row.probe), label_of(row.probe) or label))
    return found


def cells_of(measurements: Sequence[Measurement]) -> Cells:
    """Return the scores of the latest cell of each row, probe and seed."""
    found: Cells = {}
    for row in latest(measurements):
        found.setdefault((row.pretext, row.probe, row.seed), []).append(row)
    return found


def what_differs(one: Measurement, other: Measurement) -> str:
    """Return why two cells of one row, probe and seed cannot be compared; empty if they can."""
    ours, theirs = _settings(one), _settings(other)
    keys = {key.partition(".")[0] for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)}
    if keys & {"data", "pretrain_data"}:
        return f"different data: {_two(one.data, other.data, 'different images')}"
    if keys & {"encoder", "foreign"}:
        return f"different encoder: {_two(one.encoder, other.encoder, 'different weights')}"
    return f"different settings: {', '.join(differing_settings(ours, theirs))}" if keys else ""


def facts_of(folder: Path) -> dict[str, str]:
    """Return the versions and hardware a folder was computed with, by name; all of them where they changed."""
    rows, environments = read_measurements(folder), read_environments(folder)

    def all_of(values: Iterator[Any]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values)) or UNKNOWN

    return {
        "revision": all_of(f"{m.git_sha or UNKNOWN}{' with uncommitted changes' if m.git_dirty else ''}" for m in rows),
        "code": all_of(json.loads(m.config_json).get("code", UNKNOWN) for m in rows),
        "PyTorch": all_of(m.torch_version for m in rows),
        "device": all_of(m.device for m in rows),
        "processor": all_of(e.get("processor", UNKNOWN) for e in environments),
        "instructions": all_of(e.get("instructions", UNKNOWN) for e in environments),
        "threads": all_of(e.get("threads", UNKNOWN) for e in environments),
    }


def text(one: Path, other: Path) -> str:
    """Return the comparison of two folders as text: one line per headline metric, and per other metric that changed.

    Raises:
        UserError: If the folders have no cell in common.
    """
    found = compare_folders(one, other)
    if not found.common:
        raise UserError(f"{one} and {other} have no cell in common; {'; '.join(found.not_compared)}")
    facts = [facts_of(folder) for folder in (one, other)]
    pairs = {name: (facts[0][name], facts[1][name]) for name in facts[0]}
    alike = [f"{name} {first}" for name, (first, second) in pairs.items() if first == second != UNKNOWN]
    lines = [f"A: {one}", f"B: {other}"]
    lines += [f"{name}: A {first}; B {second}" for name, (first, second) in pairs.items() if first != second]
    lines += [f"same in both: {', '.join(alike)}"] if alike else []
    lines += [f"{count_of(found.common, 'cell')} in common", *found.not_compared]
    shown = [change for change in found.changes if change.headline or change.better is not None]
    if changed := [change_line(change) for change in shown if not change.identical]:
        lines += ["A minus B, paired by seed and test item, 95 % intervals: headline metrics, and others that differ"]
        lines += changed
    counts = Counter(change.outcome for change in found.changes)
    lines.append(f"{count_of(len(found.changes), 'metric')}: {', '.join(f'{n} {name}' for name, n in counts.items())}")
    return "\n".join([*lines, *_after_holm(found.changes)])


def rows_text(measurements: Sequence[Measurement], row: str, other: str, folder: Path) -> str:
    """Return the differences of two rows as text, and which of the headlines remain after Holm's correction.

    The row that stands first in a table is the baseline, whichever is named first: the same intervals either way.

    Args:
        measurements: Those of one results folder.
        row: The row to subtract from.
        other: The row to subtract.
        folder: The results folder, for messages.

    Raises:
        UserError: If no probe has judged both with the same seed.
    """
    baseline, compared = sorted((row, other), key=row_key)
    sign = 1 if compared == row else -1
    found = [
        s for s in summarise(measurements, baseline=baseline) if s.pretext == compared and s.difference is not None
    ]
    if not found:
        raise UserError(f"{folder}: no probe has results of both {row} and {other} for the same seed")
    lines, outcomes = [f"{row} minus {other}, paired by seed and test item, 95 % intervals"], {}
    for s in found:
        ends = [None if end is None else sign * end for end in (s.difference_low, s.difference_high)]
        difference = Interval(sign * (s.difference or 0.0), *ends[::sign])
        better = None if s.better is None else s.better == (sign > 0)
        outcome = outcomes[s.probe, s.metric] = NOT_TESTABLE if s.distinguishable is None else WORD[better]
        lines.append(difference_line(f"{s.probe} {s.metric} {s.unit}".strip(), difference, outcome))
    family = [s for s in found if s.headline and s.p is not None]
    adjusted = zip(family, holm([s.p for s in family if s.p is not None]), strict=True)
    left = [f"{s.probe} {outcomes[s.probe, s.metric]}" for s, p in adjusted if p < 1 - LEVEL]
    return "\n".join([*lines, *_holm_line(len(family), left)])


def change_line(change: Change) -> str:
    """Return one change as a line of text."""
    what = f"{change.probe} {change.metric} {change.unit}".strip()
    return f"{change.pretext:28} {difference_line(what, change.difference, change.outcome)}"


def difference_line(what: str, difference: Interval, outcome: str) -> str:
    """Return a difference as a line of text: metric, mean, interval, outcome."""
    low, high = difference.low, difference.high
    ends = "no interval" if low is None or high is None else f"[{low:+.2f}, {high:+.2f}]"
    return f"{what:36} {difference.mean:+8.2f}  {ends:21}  {outcome}"


def _changes(ours: Sequence[Measurement], theirs: Sequence[Measurement]) -> list[Change]:
    first, second = one_per_seed(ours), one_per_seed(theirs)
    differences = {}
    for key in first:
        if first[key].keys() & second.get(key, {}).keys():
            one, other = tables(first[key], second[key])
            differences[key] = one - other
    changed = {key: table for key, table in differences.items() if np.any(table)}
    priors = variance_priors(changed)  # identical rows say nothing about the variance between seeds
    changes = []
    columns = column_order(row.probe for row in ours)
    for key in sorted(differences, key=lambda key: (row_key(key[0]), columns.index(key[1]), key[2])):
        difference = interval(differences[key], priors.get(key, NO_PRIOR))
        about = next(iter(first[key].values()))
        significant = difference.p is not None and difference.p < 1 - LEVEL
        changes.append(
            Change(
                *key,
                unit=about.unit,
                headline=any(row.headline for row in first[key].values()),
                identical=key not in changed,
                difference=difference,
                better=(difference.mean > 0) == about.higher_is_better if significant else None,
            )
        )
    return changes


def _after_holm(changes: Sequence[Change]) -> list[str]:
    """Return the line with the significant headline metrics after Holm's correction; identical ones do not count."""
    family = [c for c in changes if c.headline and not c.identical and c.difference.p is not None]
    adjusted = holm([c.difference.p for c in family if c.difference.p is not None])
    left = [
        f"{change.pretext} {change.probe} {change.outcome}"
        for change, p in zip(family, adjusted, strict=True)
        if p < 1 - LEVEL
    ]
    return _holm_line(len(family), left)


def _holm_line(count: int, left: Sequence[str]) -> list[str]:
    """Return the line on what remains significant of so many headline metrics; none without any."""
    return [f"After Holm's correction for {all_of(count)}: {and_list(left) or 'none'}."] if count else []


def _missing(ours: Cells, theirs: Cells) -> Counter[str]:
    """Count the cells that only the first folder has, by the row, probe or seed that the other lacks, or by cell."""
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


def _settings(row: Measurement) -> dict[str, Any]:
    """Return a cell's settings without the version of the code, which may differ between two commits."""
    settings = flat(json.loads(row.config_json)) | {"data.fingerprint": row.data_fingerprint}
    return {key: value for key, value in settings.items() if key != "code"}


def _two(one: str, other: str, if_equal: str) -> str:
    return f"{one} and {other}" if one != other else f"{one}, {if_equal}"


def _counted(kinds: Counter[str]) -> str:
    named = [f"{kind} ({count})" for kind, count in kinds.most_common(MOST_NAMED)]
    return and_list([*named, *([f"{len(kinds) - MOST_NAMED} more"] if len(kinds) > MOST_NAMED else [])])

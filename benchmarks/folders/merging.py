"""Merge results folders of several machines or people into one.

A cell's name contains the hash of its settings, so cells of one name are the same cell wherever they were computed.
Of a cell with several values the first folder's value counts. The others stay in OUT/conflicts, in conflicts.csv and
in the notes of the report.

Folders may have been judged on different data sets if their rows were trained alike: their cells are those of one
comparison with several `--data`.
"""

from __future__ import annotations

import csv
import dataclasses
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.folders.submissions import (
    Difference,
    Submission,
    check_one_table,
    differences,
    encoders,
    read_submission,
)
from benchmarks.planning.cells import check_slugs
from benchmarks.planning.plan import is_left_out
from benchmarks.records.environment import FILE as ENVIRONMENT
from benchmarks.records.environment import read_environments
from benchmarks.records.results import encoder_path, failure_path, result_path, write_json, write_plan
from benchmarks.words.columns import labels_of, pictures_of, sets_of, synthetic_sets, with_columns
from benchmarks.words.ordering import column_order
from benchmarks.words.wording import MOST_NAMED, count_of
from pretext.system.errors import UserError

CONFLICTS = "conflicts.csv"
"""Name of the list of cells with several values, in OUT."""
ALL_OF = ("rows", "probes", "notes", "left_out")
"""Lists of a plan that a merged plan holds from all folders."""


@dataclasses.dataclass(frozen=True)
class Merged:
    """What was merged."""

    submissions: list[Submission]
    chosen: dict[str, Submission]
    """The folder whose value counts, by cell name."""
    equal: int
    """Number of cells that several folders hold with the same values."""
    conflicts: list[Difference]
    """Numbers of one cell, or hashes of one encoder's weights, that differ between folders."""

    def lines(self) -> list[str]:
        """Return the result in lines for people: each folder, then what was computed more than once."""
        lines = [submission.about() for submission in self.submissions]
        lines.append(f"{count_of(len(self.chosen), 'cell')}; {self.equal} in several folders with equal values")
        return [*lines, *self.conflict_lines()]

    def conflict_lines(self) -> list[str]:
        """Return one line per cell with several values, the first few of many; none if there is no conflict."""
        cells: dict[str, list[Difference]] = {}
        for conflict in self.conflicts:
            cells.setdefault(conflict.cell, []).append(conflict)
        lines = [
            f"conflict in {cell}: {_label(found[0])} is {found[0].first} in {self._of(cell)} (counts) and "
            f"{found[0].other} in {found[0].folder}" + (f"; {len(found) - 1} more numbers" if len(found) > 1 else "")
            for cell, found in list(cells.items())[:MOST_NAMED]
        ]
        if len(cells) > MOST_NAMED:
            lines.append(f"{len(cells) - MOST_NAMED} more cells have several values; {CONFLICTS} lists all")
        return lines

    def _of(self, cell: str) -> Path:
        made_by = {name: each.folder for each in reversed(self.submissions) for name in encoders(each)}
        return self.chosen[cell].folder if cell in self.chosen else made_by[cell]


def merge(folders: Sequence[Path], out: Path) -> Merged:
    """Merge results folders into a new one, which then works like any other.

    Cells, encoders with their training records, sheets, logs, failures and environments are copied; superseded and
    reproduced results are not. The new folder appears when it is complete.

    Args:
        folders: Two or more results folders. Where they differ, the first one counts.
        out: The new folder.

    Raises:
        UserError: If a folder cannot be read, the cells do not belong into one table, or `out` holds files.
    """
    if out.resolve() == Path.cwd():
        raise UserError(f"--out {out} is the folder that you are in; give a new one")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} is not an empty folder; give a new one")
    if twice := [each for i, each in enumerate(folders) if each.resolve() in [one.resolve() for one in folders[:i]]]:
        raise UserError(f"{twice[0]} is given twice; name each folder once")
    if len(folders) < 2:
        raise UserError("give two or more results folders to merge")
    submissions = [read_submission(folder) for folder in folders]
    check_one_table(submissions)
    check_slugs("data sets", labels_of(_sets(submissions)).values())
    merged = _compare(submissions)
    beside = out.resolve().with_name(f".{out.name}.merging")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        _write(merged, beside, out)
        if out.exists():
            out.rmdir()
        beside.rename(out)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}; make room, or give another folder") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return merged


def _compare(submissions: list[Submission]) -> Merged:
    chosen: dict[str, Submission] = {}
    weights: dict[str, str] = {}
    conflicts: list[Difference] = []
    equal = set()
    for submission in submissions:
        for name in submission.cells:
            first = chosen.setdefault(name, submission)
            if first is not submission:
                found = differences(first, submission, name)
                conflicts += found
                equal |= set() if found else {name}
        for name, digest in encoders(submission).items():
            if weights.setdefault(name, digest) != digest:
                conflicts.append(Difference(name, "weights", "", weights[name], digest, submission.folder))
    return Merged(submissions, chosen, len(equal - {each.cell for each in conflicts}), conflicts)


def _write(merged: Merged, out: Path, name: Path) -> None:
    """Write all files of the merged folder `name` to `out`."""
    copied = merged.chosen | _encoder_cells(merged.submissions)
    for cell, submission in copied.items():
        for source in (result_path(submission.folder, cell), submission.folder / "logs" / f"{cell}.log"):
            _copy(source, out / source.relative_to(submission.folder))
        for folder in ("artifacts", "pretrain"):
            _copy(submission.folder / folder / cell, out / folder / cell)
    plan = _plan(merged, name)
    for cell in plan["cells"]:  # failures count until a folder has the result
        if cell["name"] not in copied:
            for submission in merged.submissions:
                source = failure_path(submission.folder, cell["name"])
                _copy(source, out / source.relative_to(submission.folder))
    environments = [entry for each in merged.submissions for entry in read_environments(each.folder)]
    if environments:
        write_json(out / ENVIRONMENT, sorted(environments, key=lambda entry: str(entry.get("since", ""))))
    for number, submission in enumerate(merged.submissions[1:], start=2):
        for cell in {each.cell for each in merged.conflicts if each.folder == submission.folder}:
            _copy(result_path(submission.folder, cell), out / "conflicts" / str(number) / f"{cell}.json")
    if merged.conflicts:
        _write_conflicts(merged.conflicts, out / CONFLICTS)
    write_plan(out, plan)


def _encoder_cells(submissions: Iterable[Submission]) -> dict[str, Submission]:
    """Return the folder to take each encoder from: the first that has its file, else the first that has its record."""
    found: dict[str, Submission] = {}
    for submission in submissions:
        planned = [each["name"] for each in submission.plan["cells"] if not each["probe"]]
        for cell in dict.fromkeys((*planned, *encoders(submission))):
            has_file = encoder_path(submission.folder, cell).is_file()
            has_record = encoder_path(submission.folder, cell).parent.is_dir()
            if (cell not in found and has_record) or (
                has_file and not encoder_path(found[cell].folder, cell).is_file()
            ):
                found[cell] = submission
    return found


def _plan(merged: Merged, out: Path) -> dict[str, Any]:
    """Return the plan of the merged folder: the first folder's facts, and the cells and lists of all."""
    plans = [submission.plan for submission in merged.submissions]
    cells = list({cell["name"]: cell for plan in plans for cell in plan["cells"]}.values())
    joined = {key: list(dict.fromkeys(each for plan in plans for each in plan.get(key, ()))) for key in ALL_OF}
    several = _several(merged.submissions)
    if several:
        joined["notes"] = list(dict.fromkeys(note for plan in plans for note in _notes_with_set(plan)))
    judged = {submission.cells[cell][0].pretext for cell, submission in merged.chosen.items()}
    joined["left_out"] = [each for each in joined["left_out"] if not any(is_left_out(row, [each]) for row in judged)]
    joined["notes"] += [
        f"{submission.about()}; computed by: {submission.plan.get('command', 'an unknown command')}"
        for submission in merged.submissions
    ]
    joined["notes"] += merged.conflict_lines()
    folders = [str(submission.folder) for submission in merged.submissions]
    return {
        **plans[0],
        **joined,
        **several,
        "command": shlex.join(["python", "benchmarks/run_all.py", "merge", *folders, "--out", str(out)]),
        "seeds": max(int(plan.get("seeds", 1)) for plan in plans),
        "expected_s": {key: value for plan in reversed(plans) for key, value in plan.get("expected_s", {}).items()},
        "train_pictures": {
            spec: count for plan in reversed(plans) for spec, count in plan.get("train_pictures", {}).items()
        },
        "cells": sorted(cells, key=lambda cell: bool(cell["probe"])),  # stable: encoders first
    }


def _sets(submissions: Sequence[Submission]) -> list[str]:
    """Return the specs of all data sets; of two names for the same pictures the first counts."""
    sets: dict[str, str] = {}
    for submission in submissions:
        pictures = {rows[0].data: pictures_of(rows[0]) for rows in submission.cells.values()}
        for spec in sets_of(submission.plan):
            if spec not in sets.values():
                sets.setdefault(pictures.get(spec, spec), spec)
    return [*sets.values()]


def _several(submissions: Sequence[Submission]) -> dict[str, Any]:
    """Return what a merged plan says of several data sets; nothing of one."""
    specs = _sets(submissions)
    if len(specs) < 2:
        return {}
    drawn = {spec for submission in submissions for spec in synthetic_sets(submission.plan)}
    rows = [row for each in submissions for of_cell in each.cells.values() for row in of_cell]
    return {
        "data": specs,
        "synthetic": drawn >= {*specs},
        "synthetic_sets": [spec for spec in specs if spec in drawn],
        "probes": column_order(row.probe for row in with_columns(rows, specs)),
    }


def _notes_with_set(plan: Mapping[str, Any]) -> list[str]:
    """Return the notes of a plan, which name their data set if the plan has one alone, as those of several do."""
    only = {*sets_of(plan), plan.get("pretrain_data", "")} - {""}
    return [f"{next(iter(only))}: {note}" if len(only) == 1 else note for note in plan.get("notes", ())]


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder with its times, if it exists; links are left out, they could lead out of the folder."""
    if source.is_symlink() or not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        shutil.copy2(source, target)
    else:
        shutil.copytree(source, target, ignore=_links)


def _links(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_symlink()]


def _label(difference: Difference) -> str:
    return f"{difference.metric} {difference.stage}".strip()


def _write_conflicts(conflicts: Sequence[Difference], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in dataclasses.fields(Difference)])
        writer.writerows(dataclasses.astuple(each) for each in conflicts)

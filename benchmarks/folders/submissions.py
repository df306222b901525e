"""Results folders of other machines and people: read them, check their records, find cells with several values."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.folders.comparison import facts_of
from benchmarks.folders.superseded import encoder_of, protocol_of
from benchmarks.planning.cells import NOT_HASHED, differing_settings, flat, settings_hash
from benchmarks.records.results import Measurement, read_measurements, read_plan
from benchmarks.words.columns import pictures_of
from benchmarks.words.wording import and_list, count_of
from pretext.system.errors import UserError

NAME = re.compile(r"[A-Za-z0-9_=-]*(\.[A-Za-z0-9_=-]+){2,3}")
"""Names of cells; anything else could be a path out of the folder."""
MEAN_TOLERANCE = 1e-6
"""Largest relative difference between a value and the mean of its items."""


@dataclasses.dataclass(frozen=True)
class Submission:
    """A results folder as somebody handed it over."""

    folder: Path
    plan: dict[str, Any]
    """Content of its plan.json."""
    cells: dict[str, list[Measurement]]
    """Measurements by cell name, as their files hold them."""
    facts: dict[str, str]
    """Versions and hardware; see `comparison.facts_of`."""

    def about(self) -> str:
        """Return one line with the number of cells, the versions and the hardware."""
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        return f"{self.folder}: {count_of(len(self.cells), 'cell')}, {facts}"


@dataclasses.dataclass(frozen=True)
class Difference:
    """One number of a cell that two folders give differently."""

    cell: str
    metric: str
    stage: str
    first: object
    """Value in the folder that counts."""
    other: object
    """Value in the other folder."""
    folder: Path
    """The other folder."""


def read_submission(folder: Path) -> Submission:
    """Read a results folder.

    Raises:
        UserError: If it holds no plan or no results, a file cannot be read, or a cell's name is unusable.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give a results folder, the --out of a comparison")
    plan = read_plan(folder)
    if not plan:
        raise UserError(f"{folder}: no plan.json, so no comparison was started there; give the --out of a comparison")
    cells: dict[str, list[Measurement]] = {}
    for row in read_measurements(folder, sets=()):
        cells.setdefault(row.cell, []).append(row)
    if not cells:
        raise UserError(f"{folder} holds no results; leave it out, or run {plan.get('command', 'its command')}")
    files = {path.stem for path in (folder / "results").glob("*.json")}
    for name in [*cells, *(cell["name"] for cell in plan["cells"])]:
        if not NAME.fullmatch(name):
            raise UserError(f"{folder}: {name!r} is not the name of a cell; the folder was changed by hand")
    if wrong := sorted(files ^ set(cells)):
        raise UserError(f"{folder}: results/{wrong[0]}.json holds another cell than its name says; restore the file")
    return Submission(folder, plan, cells, facts_of(folder))


def is_its_name(row: Measurement) -> bool:
    """Whether a cell's name ends with the hash of its stored settings."""
    settings = {key: value for key, value in json.loads(row.config_json).items() if key not in NOT_HASHED}
    return row.cell.rpartition(".")[2] == settings_hash(settings)


def doubts(rows: Sequence[Measurement]) -> list[str]:
    """Return what speaks against the record of a cell, in a few words each; empty if nothing does."""
    first = rows[0]
    found = ["uncommitted code"] if first.git_dirty else []
    found += [] if first.git_sha else ["unknown revision"]
    found += [] if is_its_name(first) else ["settings do not match the name"]
    away = (r for r in rows if r.items and not math.isclose(r.value, _mean(r.items), rel_tol=MEAN_TOLERANCE))
    if row := next(away, None):
        found.append(f"{row.metric} is not the mean of its items")
    return found


def differences(first: Submission, other: Submission, cell: str) -> list[Difference]:
    """Return the numbers of a cell that differ between two folders that both hold it; the items count too."""
    ours, theirs = ({(m.metric, m.stage): m for m in each.cells[cell]} for each in (first, other))
    found = []
    for metric, stage in dict.fromkeys((*ours, *theirs)):
        mine, its = ours.get((metric, stage)), theirs.get((metric, stage))
        if mine is None or its is None or (mine.value, mine.items) != (its.value, its.items):
            values = (mine and mine.value, its and its.value)
            found.append(Difference(cell, metric, stage, *values, other.folder))
    return found


def encoders(submission: Submission) -> dict[str, str]:
    """Return the hash of the weights of each encoder that a folder's cells used, by encoder cell."""
    found = {}
    for rows in submission.cells.values():
        name = json.loads(rows[0].config_json).get("pretrain")
        if name:
            found[name] = rows[0].encoder_sha256
    return found


def check_one_table(submissions: Sequence[Submission]) -> None:
    """Check that the cells of all folders belong into one table.

    Raises:
        UserError: If one spec names different pictures, two cells of one column have different protocols, or two cells
            of one row have encoders that differ by more than their seeds.
    """
    seen: dict[tuple[str, str], tuple[dict[str, Any], Measurement, Path]] = {}
    for submission in submissions:
        for rows in submission.cells.values():
            if not is_its_name(rows[0]):
                raise UserError(
                    f"{submission.folder}: the settings of {rows[0].cell} do not match its name; restore the file"
                )
            for key, settings in _settings_by_key(rows[0]):
                before, row, folder = seen.setdefault(key, (settings, rows[0], submission.folder))
                if before != settings:
                    folders = f"{folder} and {submission.folder} differ"
                    if folder == submission.folder:
                        folders = f"cells of {folder} differ"
                    what = _what_differs(before, settings, row, rows[0])
                    raise UserError(f"{folders} in {key[0]}: {what}; leaderboard shows both on one page")


def _what_differs(before: dict[str, Any], settings: dict[str, Any], row: Measurement, other: Measurement) -> str:
    """Return what keeps two cells out of one table, and what to do about it."""
    if before.get("data") != settings.get("data"):
        return "different pictures; one table cannot hold both"
    ours, theirs = flat(before), flat(settings)
    pictures = {each.pop("pretrain_data") for each in (ours, theirs) if "pretrain_data" in each}
    changed = differing_settings(ours, theirs)
    if len(pictures) < 2:
        return f"{'; '.join(changed)}; one table cannot hold both"
    names = list(dict.fromkeys((row.pretrain_data, other.pretrain_data)))
    changed.insert(0, f"trained on different pictures, of {and_list(names)}")
    return (
        f"{'; '.join(changed)}; rows of one table must be trained on the same --pretrain-data, and a run on another "
        "--data trains on that data unless --pretrain-data is given"
    )


def _settings_by_key(row: Measurement) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Yield what must be equal among all cells of a spec, of a column, and of a row.

    A column is a probe and its pictures: two folders may name one data set by two paths.
    """
    settings = json.loads(row.config_json)
    yield (f"data {row.data}", ""), {"data": settings.get("data")}
    yield (f"probe {row.probe}", pictures_of(row)), protocol_of(settings)
    yield (f"row {row.pretext}", ""), encoder_of(settings)


def _mean(items: Sequence[float]) -> float:
    return math.fsum(items) / len(items)

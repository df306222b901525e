"""Progress of a comparison, read from its folder alone, during the run or later."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.executors.schedule import Estimate
from benchmarks.records.environment import read_environments
from benchmarks.records.locks import is_locked
from benchmarks.records.results import encoder_path, failure_path, read_cell, read_plan, result_path
from benchmarks.summaries.costs import read_run_file
from pretext.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Status:
    """The cell names of a plan by state."""

    done: list[str]
    running: list[str]
    failed: list[str]
    left: list[str]


class _Planned(NamedTuple):
    """A cell of OUT/plan.json."""

    name: str
    pretext: str
    probe: str
    trains: bool
    processes: int


def status(out: Path) -> tuple[dict[str, Any], Status]:
    """Return the plan of OUT and the state of its cells.

    Raises:
        UserError: If OUT has no plan, or a plan of another schema version.
    """
    plan = read_plan(out)
    if not plan:
        raise UserError(f"{out}: no plan.json, so no comparison was started there; give the --out of a comparison")
    found = Status([], [], [], [])
    judged: dict[str, list[bool]] = {}  # an encoder is not needed again once all its probes have results
    for cell in plan["cells"]:
        if cell["probe"]:
            judged.setdefault(cell.get("made_by", ""), []).append(result_path(out, cell["name"]).exists())
    for cell in plan["cells"]:
        name = cell["name"]
        path = result_path(out, name) if cell["probe"] else encoder_path(out, name)
        if path.exists() or (not cell["probe"] and all(judged.get(name, [False]))):
            found.done.append(name)
        elif is_locked(out, name):
            found.running.append(name)
        elif failure_path(out, name).exists():
            found.failed.append(name)
        else:
            found.left.append(name)
    return plan, found


def seconds_left(out: Path, plan: dict[str, Any], found: Status) -> tuple[float, int]:
    """Return the seconds that running and remaining cells need, and the number of workers of the last run.

    Finished cells give the time of their kind; the plan's estimates give the rest. A running cell counts in full.
    """
    environments = read_environments(out)
    last = environments[-1] if environments else {}
    workers: int = last.get("workers", 1)
    expected = Estimate(plan.get("expected_s", {}), workers, last.get("counts_processes", False))
    cells = {
        c["name"]: _Planned(c["name"], c["pretext"], c["probe"], c.get("trains", True), max(1, c.get("processes", 1)))
        for c in plan["cells"]
    }
    for name in found.done:
        expected.learn(cells[name], _took(out, cells[name]))
    return expected.of_all(cells[name] for name in (*found.running, *found.left)), workers


def _took(out: Path, cell: _Planned) -> float:
    """Return the seconds that a finished cell took; 0 for an encoder that was not trained."""
    if cell.probe:
        return read_cell(result_path(out, cell.name))[0].wall_s
    path = encoder_path(out, cell.name).parent / "run.json"
    return float(read_run_file(path)["wall_s"]) if path.exists() else 0.0

"""How far a comparison has come, read from its folder alone, while it runs or after."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.environment import read_environments
from benchmarks.locks import is_locked
from benchmarks.results import encoder_path, failure_path, read_cell, read_json, read_plan, result_path
from benchmarks.schedule import Estimate
from pretext.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Status:
    """The cells of a plan by what became of them."""

    done: list[str]
    running: list[str]
    failed: list[str]
    left: list[str]


class _Planned(NamedTuple):
    """A cell as OUT/plan.json lists it."""

    name: str
    pretext: str
    probe: str
    trains: bool


def status(out: Path) -> tuple[dict[str, Any], Status]:
    """Return OUT's plan and how far it has come.

    Raises:
        UserError: If nothing was ever planned there, or another version of this suite planned it.
    """
    plan = read_plan(out)
    if not plan:
        raise UserError(f"{out}: no plan.json, so no comparison was started there; give its --out")
    found = Status([], [], [], [])
    for cell in plan["cells"]:
        name = cell["name"]
        path = result_path(out, name) if cell["probe"] else encoder_path(out, name)
        if path.exists():
            found.done.append(name)
        elif is_locked(out, name):
            found.running.append(name)
        elif failure_path(out, name).exists():
            found.failed.append(name)
        else:
            found.left.append(name)
    return plan, found


def seconds_left(out: Path, plan: dict[str, Any], found: Status) -> tuple[float, int]:
    """Return how long what runs and what is left will take, and how many workers share it.

    What is done says how long a cell of its kind takes, what the plan expected says the rest; what runs counts whole.
    The workers are those of the last run.
    """
    environments = read_environments(out)
    workers = environments[-1]["workers"] if environments else 1
    expected = Estimate(plan.get("expected_s", {}), workers)
    cells = {c["name"]: _Planned(c["name"], c["pretext"], c["probe"], c.get("trains", True)) for c in plan["cells"]}
    for name in found.done:
        expected.learn(cells[name], _took(out, cells[name]))
    return expected.of_all(cells[name] for name in (*found.running, *found.left)), workers


def _took(out: Path, cell: _Planned) -> float:
    """Return the seconds of a cell that is done; 0 of an encoder that was not trained."""
    if cell.probe:
        return read_cell(result_path(out, cell.name))[0].wall_s
    path = encoder_path(out, cell.name).parent / "run.json"
    return float(read_json(path)["wall_s"]) if path.exists() else 0.0

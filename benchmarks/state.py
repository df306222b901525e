"""How far a comparison has come, read from its folder alone, while it runs or after."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from benchmarks.locks import is_locked
from benchmarks.results import encoder_path, failure_path, read_json, result_path
from pretext.errors import UserError


@dataclasses.dataclass(frozen=True)
class Status:
    """The cells of a plan by what became of them."""

    done: list[str]
    running: list[str]
    failed: list[str]
    left: list[str]


def status(out: Path) -> tuple[dict[str, Any], Status]:
    """Return OUT's plan and how far it has come.

    Raises:
        UserError: If nothing was ever planned there.
    """
    if not (out / "plan.json").exists():
        raise UserError(f"{out}: no plan.json, so no comparison was started there; give its --out")
    plan = read_json(out / "plan.json")
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

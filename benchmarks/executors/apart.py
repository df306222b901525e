"""Cells on nodes that do not see OUT: what they read goes with them, what they made comes back with their outcome."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.executors.base import Outcome, print_to, run_cell
from benchmarks.planning.cells import Cell
from benchmarks.records.results import encoder_path, failure_path
from pretext.system.checkpoint import atomic_write

Files = Mapping[str, bytes]
"""Content of files by their path below OUT."""
MADE = ("pretrain", "artifacts", "failures", "logs", "results")
"""Folders below OUT that cells write to."""


def needed_files(cell: Cell, out: Path) -> Files:
    """Return the files that a cell reads: the training run of its encoder, none for an encoder cell."""
    if cell.made_by is None:
        return {}
    run = encoder_path(out, cell.made_by).parent
    return _contents(out, (path for path in run.iterdir() if path.is_file()))


def run_apart(cell: Cell, given: Files, folder: Path) -> tuple[Outcome, Files]:
    """Compute a cell in a folder of this node that exists for it alone; return its outcome and the files it made.

    Nothing is left on the node, so a cell whose node is lost starts from its beginning.

    Args:
        cell: The cell.
        given: What `needed_files` returned.
        folder: The working directory of the command; entered if the node has it.
    """
    if folder.is_dir():
        os.chdir(folder)
    with tempfile.TemporaryDirectory(prefix="pretext-cell-") as name:
        out = Path(name)
        write_files(out, given)
        print_to(out / "logs" / f"{cell.name}.log")
        outcome = run_cell(cell, out)
        sys.stdout.flush()
        sys.stderr.flush()
        made = (path for folder in MADE for path in (out / folder).rglob("*") if path.is_file())
        return outcome, _contents(out, (path for path in made if _name(out, path) not in given))


def write_files(out: Path, files: Files) -> None:
    """Write files below OUT, each beside and renamed; those that show that a cell is done come last.

    Raises:
        OSError: If the disk is full.
    """
    for name in sorted(files, key=lambda name: (name.startswith("results/"), name.endswith("/encoder.safetensors"))):
        with atomic_write(out / name) as beside:
            beside.write_bytes(files[name])


def take_back(cell: Cell, outcome: Outcome, files: Files, out: Path) -> Outcome:
    """Write what a cell made into OUT, and return its outcome: `unusable` if the disk is full."""
    try:
        write_files(out, files)
        if outcome.state == "done":
            failure_path(out, cell.name).unlink(missing_ok=True)
    except OSError as error:
        reason = f"{error.filename or out}: {error.strerror}; free some space and run the same command again"
        return Outcome(cell.name, "unusable", outcome.seconds, reason)
    return outcome


def _contents(out: Path, paths: Iterable[Path]) -> Files:
    return {_name(out, path): path.read_bytes() for path in paths if path.name != ".lock"}


def _name(out: Path, path: Path) -> str:
    return path.relative_to(out).as_posix()

"""The other commands of `run_all.py`: status, compare, reproduce, clean."""

from __future__ import annotations

import dataclasses
import difflib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.did_it_help.command import did_it_help
from benchmarks.options import check_profile, results_folder
from benchmarks.sharing import leaderboard, merge
from benchmarks.words.wording import MOST_NAMED, and_list, count_of
from pretext.system.command_line import parse
from pretext.system.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder:
    """Choose a folder of results."""

    profile: str = "laptop"
    """Names the folder results/PROFILE if --out is omitted."""
    out: Path | None = None
    """Folder of the results; results/PROFILE if omitted."""

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        check_profile(self.profile)
        return results_folder(self.out, self.profile)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress(Folder):
    """Print how many cells are done, running, failed and left, and the time left.

    Examples:
        python benchmarks/run_all.py status
        python benchmarks/run_all.py status --out results/mine
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare(Folder):
    """Compare two folders of results, or two rows of one, metric by metric.

    Examples:
        python benchmarks/run_all.py compare results/before results/after
        python benchmarks/run_all.py compare context_encoder autoencoder --out results/mine
    """

    sides: Annotated[tyro.conf.Positional[tuple[str, str]], tyro.conf.arg(metavar="A B")]
    """Two folders of results, or two rows of --out, such as context_encoder autoencoder."""

    def __post_init__(self) -> None:
        if self.sides[0] == self.sides[1]:
            raise ValueError(f"{self.sides[0]} is given twice; name two different rows, or two different folders")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce(Folder):
    """Compute a cell again, its encoder too, and compare it with the stored result.

    Examples:
        python benchmarks/run_all.py reproduce context_encoder.knn.s0
        python benchmarks/run_all.py reproduce simclr.linear.s1 --out results/mine
    """

    cell: tyro.conf.Positional[str]
    """Name of a cell in results.csv, or the beginning of one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clean(Folder):
    """Remove failures, logs, and superseded or reproduced results; results and encoders stay.

    Examples:
        python benchmarks/run_all.py clean
        python benchmarks/run_all.py clean --older-than 7 --out results/mine
    """

    older_than: float | None = None
    """Remove only files last written at least this many days ago; all if omitted."""

    def __post_init__(self) -> None:
        if self.older_than is not None and not self.older_than >= 0:
            raise ValueError(f"--older-than is {self.older_than}; allowed is 0 or more days")


def status(argv: list[str]) -> int:
    """Print how many cells are done, running, failed and left, and the time left."""
    out = parse(Progress, argv, prog="run_all.py status").folder
    from benchmarks.folders.progress import seconds_left
    from benchmarks.folders.progress import status as status_of
    from benchmarks.records.results import failure_path, read_failure
    from benchmarks.words.columns import sets_of
    from benchmarks.words.wording import duration

    plan, found = status_of(out)
    print(f"{out}: {plan.get('profile', 'a comparison')} on {and_list(sets_of(plan)) or 'unknown data'}")
    counts = {field.name: len(getattr(found, field.name)) for field in dataclasses.fields(found)}
    line = ", ".join(f"{count} {name}" for name, count in counts.items())
    if found.running or found.left:
        seconds, workers = seconds_left(out, plan, found)
        line += f": about {duration(seconds)} with {workers} worker{'s' if workers > 1 else ''}"
    print(line)
    for name in found.running:
        print(f"running  {name}")
    for name in found.failed:
        print(f"failed   {name}: {(read_failure(failure_path(out, name))['error'].splitlines() or [''])[0]}")
    return 1 if found.failed else 0


def compare(argv: list[str]) -> int:
    """Print paired differences between two folders of results, or two rows of one."""
    options = parse(Compare, argv, prog="run_all.py compare")
    from benchmarks.folders import comparison

    paths = [Path(side) for side in options.sides]
    folders = [comparison.has_results(path) for path in paths]
    if not any(folders):
        _compare_rows(options, *options.sides)
        return 0
    if not all(folders):
        (bare,) = (path for path, holds in zip(paths, folders, strict=True) if not holds)
        (folder,) = (path for path, holds in zip(paths, folders, strict=True) if holds)
        raise UserError(f"{bare} holds no results, but {folder} does; give two results folders, or two rows and --out")
    if options.out is not None:
        raise UserError(
            f"--out {options.out} applies to two rows of one folder, but {paths[0]} and {paths[1]} are folders"
        )
    print(comparison.text(*paths))
    return 0


def _compare_rows(options: Compare, row: str, other: str) -> None:
    from benchmarks.folders.comparison import rows_text
    from benchmarks.records.results import read_measurements

    measurements = read_measurements(options.folder)
    if not measurements:
        raise UserError(f"{options.folder} holds no results; give its --out, or two results folders")
    known = sorted({measurement.pretext for measurement in measurements})
    for name in (row, other):
        if name not in known:
            raise UserError(f"{options.folder} has no row {name!r}; {did_you_mean(name, known)}")
    print(rows_text(measurements, row, other, options.folder))


def reproduce(argv: list[str]) -> int:
    """Compute a cell and its encoder again in OUT/reproduced; print both values of each metric."""
    options = parse(Reproduce, argv, prog="run_all.py reproduce")
    from benchmarks.executors import schedule
    from benchmarks.executors.local import LocalProcesses
    from benchmarks.folders.reproduction import compare_values, stored_cell
    from benchmarks.records.results import read_cell, read_measurements, result_path
    from downstream.features import limit_cache

    out = options.folder
    measurements = read_measurements(out)
    if not measurements:
        raise UserError(f"{out} holds no results; give its --out")
    name = _matching_cell(options.cell, sorted({row.cell for row in measurements}), out)
    before = read_cell(result_path(out, name))  # with the probe, not with its column
    again = out / "reproduced"
    limit_cache(0)  # cached features would hide a change of the code
    encoder_cell, probe_cell = stored_cell(out, before[0])
    shutil.rmtree(again / "pretrain" / encoder_cell.name, ignore_errors=True)
    result_path(again, probe_cell.name).unlink(missing_ok=True)
    pool = LocalProcesses(again, 1)  # a worker process has as many threads as in the comparison
    expected = schedule.Estimate({}, 1)
    failures = schedule.run((encoder_cell, probe_cell), again, pool, expected=expected, progress=schedule.show_progress)
    if failures:
        raise UserError(f"{next(iter(failures.values()))}; the traceback is in {again / 'failures'}")
    lines, same = compare_values(before, read_cell(result_path(again, name)))
    print("\n".join(lines))
    return 0 if same else 1


def _matching_cell(beginning: str, cells: Sequence[str], out: Path) -> str:
    """Return the one cell whose name begins like this."""
    found = [name for name in cells if name.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    if not found:
        near = difflib.get_close_matches(beginning, cells, n=1, cutoff=0)
        raise UserError(f"no cell with a result in {out} begins with {beginning!r}; did you mean {near[0]!r}?")
    more = [f"{len(found) - MOST_NAMED} more"] if len(found) > MOST_NAMED else []
    names = and_list([*found[:MOST_NAMED], *more])
    raise UserError(f"{len(found)} cells of {out} begin with {beginning!r}: {names}; give more of the name")


def clean(argv: list[str]) -> int:
    """Remove failures, logs, and superseded or reproduced results; results and encoders stay."""
    options = parse(Clean, argv, prog="run_all.py clean")
    from benchmarks.folders.progress import status as status_of

    out, days = options.folder, options.older_than
    plan, progress = status_of(out)
    if progress.running:
        raise UserError(f"{out} is in use by a running comparison; stop it first")
    if waiting := [cell["name"] for cell in plan.get("cells", ()) if _may_be_queued(cell["name"], out)]:
        raise UserError(
            f"{out / 'slurm'} has {count_of(len(waiting), 'job')} without a result ({waiting[0]}), which may be "
            "queued; start the comparison's command again, or scancel them and delete that folder"
        )
    removed = False
    for name in ("failures", "logs", "slurm", "superseded", "reproduced", ".locks"):
        if not (out / name).is_dir():
            continue
        if days is None:
            shutil.rmtree(out / name)
            print(f"removed {out / name}")
            removed = True
        elif count := _remove_old(out / name, time.time() - days * 86400):
            print(f"removed {count} file{'s' if count > 1 else ''} of {out / name}")
            removed = True
    if not removed:
        print("nothing to remove")
    return 0


def _may_be_queued(cell: str, out: Path) -> bool:
    """Return whether a cell was submitted as a job of SLURM, and has neither result nor failure."""
    from benchmarks.executors.slurm import job_path, outcome_path
    from benchmarks.records.results import encoder_path, failure_path, result_path

    ended = (result_path, encoder_path, failure_path, outcome_path)
    return job_path(out, cell).exists() and not any(path(out, cell).exists() for path in ended)


def _remove_old(folder: Path, before: float) -> int:
    """Remove the files last written before a time, then empty folders; return the number of files."""
    old = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_mtime <= before]
    for path in old:
        path.unlink()
    for inner in sorted([*folder.rglob("*/"), folder], reverse=True):  # deepest first
        if inner.is_dir() and not any(inner.iterdir()):
            inner.rmdir()
    return len(old)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "status": status,
    "compare": compare,
    "reproduce": reproduce,
    "clean": clean,
    "merge": merge,
    "leaderboard": leaderboard,
    "did-it-help": did_it_help,
}

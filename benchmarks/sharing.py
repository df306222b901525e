"""The commands of `run_all.py` for results of several machines and people: merge, leaderboard."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from pretext.system.command_line import parse


@dataclasses.dataclass(frozen=True, kw_only=True)
class Merge:
    """Merge results folders of several machines, people or data sets into a new one, with its table and report.

    Rows must be trained alike. For folders with different --data, give each run the same --pretrain-data.

    Examples:
        python benchmarks/run_all.py merge results/mine results/hers --out results/all
        python benchmarks/run_all.py status --out results/all
    """

    folders: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="A B")]
    """Two or more folders of results. Of a cell with several values, the first folder's counts."""
    out: Path
    """New folder for the merged results."""


def merge(argv: list[str]) -> int:
    """Merge results folders of several machines or people into one."""
    options = parse(Merge, argv, prog="run_all.py merge")
    from benchmarks.folders.merging import merge as merge_folders
    from benchmarks.run_all import finish

    merged = merge_folders(options.folders, options.out)
    print("\n".join(merged.lines()))
    finish(options.out)
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """Write one static page with every row of several results folders, to filter and sort in a browser.

    Examples:
        python benchmarks/run_all.py leaderboard results/mine --out site
        python benchmarks/run_all.py leaderboard submissions/* --out site
    """

    folders: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="DIR …")]
    """Folders of results, of any data sets and profiles."""
    out: Path
    """Folder of the page; index.html is written there."""

    def __post_init__(self) -> None:
        if not self.folders:
            raise ValueError("name one or more folders of results")


def leaderboard(argv: list[str]) -> int:
    """Write one static page with every row of several results folders."""
    options = parse(Leaderboard, argv, prog="run_all.py leaderboard")
    from benchmarks.leaderboard import write_leaderboard

    print("\n".join(write_leaderboard(options.folders, options.out)))
    return 0

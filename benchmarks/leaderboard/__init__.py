"""Results of many folders on one static page: filters, intervals, and the record of every cell.

entries  the lines of the page: one per folder, row and probe, with what speaks against their records
page     the HTML page
style    CSS and JavaScript of the page, beside those of the report
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pretext.system.checkpoint import atomic_write
from pretext.system.errors import UserError


def write_leaderboard(folders: Sequence[Path], out: Path) -> list[str]:
    """Write OUT/index.html with every row of the results folders.

    Args:
        folders: Results folders, merged or not.
        out: Folder of the page.

    Returns:
        Lines for the terminal: each folder with its versions, and what was written.

    Raises:
        UserError: If a folder cannot be read, or the page cannot be written.
    """
    from benchmarks.folders.submissions import read_submission
    from benchmarks.leaderboard.entries import entries_of
    from benchmarks.leaderboard.page import page

    submissions = [read_submission(folder) for folder in folders]
    entries = entries_of(submissions)
    path = out / "index.html"
    try:
        with atomic_write(path) as beside:
            beside.write_text(page(entries), encoding="utf-8", errors="replace")  # specs may name files
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}; give another folder, or make room") from None
    doubted = sum(bool(entry.doubts) for entry in entries)
    return [*(each.about() for each in submissions), f"{path}: {len(entries)} rows, {doubted} with remarks"]

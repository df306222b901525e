"""Write `per_class.csv`: one row per class."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from pretext.system.checkpoint import atomic_write


def write_per_class(out: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write `per_class.csv` atomically. Names that are not UTF-8 are escaped.

    Args:
        out: The probe's folder.
        header: Column names.
        rows: The values of each class, as long as the header.
    """
    with (
        atomic_write(out / "per_class.csv") as beside,
        beside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)

"""`parquet:PATTERN`: pictures in Parquet files, as Hugging Face writes them.

PATTERN is a folder, a file, or names with `{000..127}`, `{a,b}`, `*` or `[ab]`, several of them separated by commas.
Splits: a file is of the split that its name or a folder above it names (`train-00000-of-00004.parquet`,
`validation/0000.parquet`); the keys `train=`, `val=` and `test=` take other patterns, relative to the folder.

A picture is a cell of bytes, or a struct of `bytes` and `path`. Its name is the path where every row of a file
has another one, with the class as its folder where none has a folder, else the row's number. Names decide the
order. Class names are those of the schema's ClassLabel.

Parquet cannot read one cell by itself. When a file is opened for the first time, its row groups are read one
after the other, and the bytes of the pictures are copied into the cache, which needs as much room as they take.

Needs pyarrow: pip install 'pretext-bench[hub]'.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pretext.datasets.arrow_columns import BYTES, PATH, Columns, Part, splits_in_tables
from pretext.datasets.base import ImageDataset
from pretext.datasets.fingerprints import Listing, digest
from pretext.system.cache import cache_folder, made_once, new_folder, remove
from pretext.system.errors import UserError
from pretext.system.progress import progress_bar
from pretext.system.stored_json import Shape, misfit

VERSION = 1
"""Raise it whenever what is copied from the same file changes."""
ROWS = 64
"""Number of rows that are read at once."""
BUFFER = 1 << 20
"""Bytes of a column that are read at once; without it pyarrow reads a whole row group's column."""
COPY, INDEX = "pictures.bin", "index.json"
SHAPE: Shape = {"sizes": [int], "paths": [str]}


@dataclass(frozen=True)
class Options:
    """Options of `parquet:PATTERN?…`."""

    train: str | None = None
    """Files of the training split; None takes those whose name says train, or all that are of no other split."""
    val: str | None = None
    """Files of the validation split; None takes those whose name says val, valid or validation."""
    test: str | None = None
    """Files of the test split; None takes those whose name says test."""
    image: str | None = None
    """Column of the pictures; None takes the only one that holds them."""
    label: str | None = None
    """Column of the classes, text or whole numbers, or none; None takes `label`, or the only ClassLabel."""
    classes: str | None = None
    """File of class names, one a line, in the order of their numbers; None takes the schema's, or classes.txt beside
    the files."""


def open_splits(path: str, options: Options) -> dict[str, ImageDataset]:
    """Return the splits of the files; see the module.

    Raises:
        UserError: If pyarrow is missing, a file cannot be read, or a column does not fit.
    """
    return splits_in_tables("parquet", path, options, _read, suffix=".parquet", what="a Parquet file")


def _read(arrow: Any, file: str, find: Callable[[Any], Columns]) -> Part:
    opened = arrow.parquet.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False)
    columns = find(opened.schema_arrow)
    copy, sizes, paths = _copied(file, opened, columns)
    offsets = [0, *np.cumsum(sizes, dtype=np.int64)[:-1].tolist()] if sizes else []
    has_labels = columns.label is not None
    labels = opened.read([columns.label]).column(0).to_pylist() if has_labels else [None] * len(sizes)
    return Part(columns, copy, offsets, sizes, [*paths], labels)


def _copied(file: str, opened: Any, columns: Columns) -> tuple[str, list[int], list[str]]:
    """Copy the pictures of a file into the cache unless they are there; return the copy, their sizes and paths.

    Args:
        file: The Parquet file.
        opened: The same, as pyarrow opened it.
        columns: Its columns.

    Raises:
        UserError: If there is not enough room.
    """
    listing, rows = Listing([file]), opened.metadata.num_rows
    entry = cache_folder("parquet") / digest(str(VERSION), columns.image, *listing.lines)
    found = _known(entry, rows)
    if found is None:
        with made_once(entry, waiting_for=file, work="decoding"):
            found = _known(entry, rows)
            if found is None:
                temporary = new_folder(entry)
                try:
                    _copy(file, opened, columns, temporary)
                    remove(entry)  # a damaged one
                    temporary.rename(entry)
                finally:
                    remove(temporary)
                found = _known(entry, rows)
    if found is None:
        raise OSError(errno.EIO, "the copy just written has another size; check the disk", str(entry))
    return str(entry / COPY), found["sizes"], found["paths"]


def _known(entry: Path, rows: int) -> dict[str, Any] | None:
    """Return the sizes and paths of the pictures of a copied file; None if it is absent or damaged."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        index = json.loads((entry / INDEX).read_bytes())
        if not misfit(index, SHAPE) and len(index["sizes"]) == len(index["paths"]) == rows:
            return index if sum(index["sizes"]) == (entry / COPY).stat().st_size else None
    return None


def _copy(file: str, opened: Any, columns: Columns, folder: Path) -> None:
    """Write the bytes of a file's pictures, one after the other, and their index."""
    _check_room(file, opened, columns.image, folder)
    sizes: list[int] = []
    paths: list[str] = []
    bar = progress_bar(f"copy {file}", opened.metadata.num_rows, unit="img")
    with bar, (folder / COPY).open("wb") as copy:
        for batch in opened.iter_batches(ROWS, columns=[columns.image], use_threads=False):
            column = batch.column(0)
            for cell in column.field(BYTES) if columns.is_struct else column:
                content = cell.as_buffer()
                sizes.append(content.size if content is not None else 0)
                if content is not None:
                    copy.write(content)
            paths += (path or "" for path in column.field(PATH).to_pylist()) if columns.has_path else [""] * len(column)
            bar.update(len(column))
        copy.flush()
        os.fsync(copy.fileno())
    (folder / INDEX).write_text(json.dumps({"sizes": sizes, "paths": paths}))


def _check_room(file: str, opened: Any, column: str, folder: Path) -> None:
    """Raise a `UserError` if the disk of the cache has less room than the pictures take."""
    groups = (opened.metadata.row_group(at) for at in range(opened.metadata.num_row_groups))
    parts = (group.column(at) for group in groups for at in range(group.num_columns))
    needed = sum(part.total_uncompressed_size for part in parts if part.path_in_schema.partition(".")[0] == column)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{file}: its pictures take {needed / 1e9:.1f} GB in the cache, and {folder.parent} has "
            f"{free / 1e9:.1f} GB; set PRETEXT_CACHE to a folder on a larger disk"
        )

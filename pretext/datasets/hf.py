"""`hf:DIR`: a data set that Hugging Face's `datasets` saved to disk, read from its Arrow files where they lie.

DIR is what `save_to_disk` wrote, of a `Dataset` or of a `DatasetDict`, whose folders are the splits (`train`,
`validation` or `val`, `test`). A folder of plain `*.arrow` files is read too. The keys `train=`, `val=` and `test=`
take other folders or files, with the patterns of `parquet`. What `datasets` keeps beside them (`cache-*.arrow`) is left
out.

Columns, names and classes are found as in `parquet`. Nothing is copied: a picture is read from its place in the file.

Needs pyarrow: pip install 'pretext-bench[hub]'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from pretext.datasets.arrow_columns import BYTES, PATH, Columns, Part, splits_in_tables
from pretext.datasets.base import ImageDataset
from pretext.system.errors import UserError


@dataclass(frozen=True)
class Options:
    """Options of `hf:DIR?…`."""

    train: str | None = None
    """Folder or files of the training split; None takes `train`, or all that are of no other split."""
    val: str | None = None
    """Folder or files of the validation split; None takes `val`, `valid` or `validation`."""
    test: str | None = None
    """Folder or files of the test split; None takes `test`."""
    image: str | None = None
    """Column of the pictures; None takes the only one that holds them."""
    label: str | None = None
    """Column of the classes, text or whole numbers, or none; None takes `label`, or the only ClassLabel."""
    classes: str | None = None
    """File of class names, one a line, in the order of their numbers; None takes those of the ClassLabel, or
    classes.txt in DIR."""


def open_splits(path: str, options: Options) -> dict[str, ImageDataset]:
    """Return the splits of the saved data set; see the module.

    Raises:
        UserError: If pyarrow is missing, a file cannot be read, or a column does not fit.
    """
    return splits_in_tables("hf", path, options, _read, suffix=".arrow", what="an Arrow file", left_out="cache-")


def _read(arrow: Any, file: str, find: Callable[[Any], Columns]) -> Part:
    whole, schema, batches = _opened(arrow, file)
    columns = find(schema)
    part = Part(columns, file, [], [], [], [])
    for batch in batches:
        column = batch.column(batch.schema.get_field_index(columns.image))
        offsets, sizes = _places(file, whole, column.field(BYTES) if columns.is_struct else column)
        part.offsets.extend(offsets.tolist())
        part.sizes.extend(sizes.tolist())
        part.paths.extend(column.field(PATH).to_pylist() if columns.has_path else [None] * len(column))
        if columns.label is None:
            part.labels.extend([None] * len(column))
        else:
            part.labels.extend(batch.column(batch.schema.get_field_index(columns.label)).to_pylist())
    return part


def _opened(arrow: Any, file: str) -> tuple[Any, Any, Iterator[Any]]:
    """Return a file's memory-mapped bytes, its schema and its record batches, which lie in these bytes."""
    mapped = arrow.memory_map(file)
    whole = mapped.read_buffer(mapped.size())
    if whole.size >= 6 and whole.slice(0, 6).to_pybytes() == b"ARROW1":
        reader = arrow.ipc.open_file(arrow.BufferReader(whole))
        return whole, reader.schema, (reader.get_batch(at) for at in range(reader.num_record_batches))
    stream = arrow.ipc.open_stream(arrow.BufferReader(whole))
    return whole, stream.schema, iter(stream)


def _places(file: str, whole: Any, column: Any) -> tuple[Int[NDArray[np.int64], "N"], Int[NDArray[np.int64], "N"]]:
    """Return where the cells of a column of bytes begin in the file, and their sizes; 0 for an empty cell.

    Raises:
        UserError: If the cells do not lie in the file as they are.
    """
    import pyarrow

    _, bounds, content = column.buffers()
    width = np.int64 if pyarrow.types.is_large_binary(column.type) else np.int32
    ends = np.frombuffer(bounds, width)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    sizes = np.diff(ends)
    if content is None:  # all cells are empty
        return np.zeros(len(column), np.int64), sizes
    start = content.address - whole.address
    if not 0 <= start <= whole.size - content.size:
        raise UserError(f"{file}: is compressed, so that no picture can be read by itself; save it without compression")
    return start + ends[:-1], sizes

"""Write the parts of a data set's vectors as one .parquet or .npz file, part by part.

Both hold the columns path, split, label (where pictures have classes) and vector (float32), in the order of the data,
and a JSON text `about` that says what the vectors are.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import dtype_to_descr, write_array_header_1_0
from numpy.typing import NDArray

from pretext.embedding.parts import Parts
from pretext.system.checkpoint import atomic_write
from pretext.system.errors import UserError

SUFFIXES = (".parquet", ".npz")
ABOUT = "about"
"""Name of the JSON text: an array of one text in an .npz file, metadata of the schema in a Parquet file."""
COLUMNS = {"path": "paths", "split": "splits", "label": "labels", "vector": "vectors"}
"""The fields of `Part`, by their names in the file."""


def check_output(out: Path) -> None:
    """Raise a `UserError` unless a file of this name can be written on this machine."""
    if out.suffix not in SUFFIXES:
        raise UserError(f"--out {out}: the name must end in {' or '.join(SUFFIXES)}")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; give the name of a file")
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UserError(f"--out {out}: pyarrow is not installed; run pip install 'pretext-bench[hub]', or write .npz")


def write_features(out: Path, parts: Parts, about: Mapping[str, Any], *, labelled: bool) -> None:
    """Write the file, part by part; equal parts give equal bytes.

    Args:
        out: The file, .parquet or .npz; replaced atomically.
        parts: At least one picture is in them.
        about: What the vectors are, in JSON types.
        labelled: Whether to write the column `label`.
    """
    names = [name for name in COLUMNS if name != "label" or labelled]
    write = _write_parquet if out.suffix == ".parquet" else _write_npz
    with atomic_write(out) as beside:
        write(beside, parts, names, json.dumps(about))


def _write_npz(file: Path, parts: Parts, names: list[str], about: str) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            rows, kinds, inner = 0, set(), ()
            for some in parts.column(COLUMNS[name]):
                rows, inner = rows + len(some), some.shape[1:]
                kinds.add(some.dtype)
            # the widest of the texts' types
            _write_array(archive, name, np.result_type(*kinds), (rows, *inner), parts.column(COLUMNS[name]))
        text = np.array(about)
        _write_array(archive, ABOUT, text.dtype, (), [text])


def _write_array(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], arrays: Iterable[NDArray[Any]]
) -> None:
    """Write rows as one array, so that it is never in memory as a whole."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        header = {"descr": dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        write_array_header_1_0(member, header)
        for each in arrays:
            member.write(np.ascontiguousarray(each, dtype).tobytes())


def _write_parquet(file: Path, parts: Parts, names: list[str], about: str) -> None:
    """Write one row group per part."""
    import pyarrow as pa
    from pyarrow import parquet

    with contextlib.ExitStack() as stack:
        writer = None
        for *texts, vectors in zip(*(parts.column(COLUMNS[name]) for name in names), strict=True):
            columns: list[Any] = [pa.array([each or None for each in some.tolist()], pa.string()) for some in texts]
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1]))
            table = pa.Table.from_arrays(columns, names=names).replace_schema_metadata({ABOUT: about})
            writer = writer or stack.enter_context(parquet.ParquetWriter(file, table.schema))
            writer.write_table(table)

"""What `parquet` and `hf` share: pictures and classes in tables, as Hugging Face's `datasets` writes them.

pyarrow is imported when a data set that needs it is opened.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pretext.datasets.base import ImageDataset
from pretext.datasets.files import some
from pretext.datasets.shards import NamedSplits, split_files
from pretext.datasets.stored_splits import Label, Rows, named_classes, stored_splits
from pretext.system.errors import UserError, did_you_mean

NONE = "none"
BYTES, PATH = "bytes", "path"
"""Fields of a picture that is written together with its path."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what."""

    image: str
    """The column of the pictures."""
    is_struct: bool
    """Whether a picture is a struct of its bytes and its path."""
    has_path: bool
    """Whether the struct has the path."""
    label: str | None
    """The column of the classes; None if there is none."""
    classes: tuple[str, ...]
    """Class names that the schema gives."""
    lacking: str
    """Why there are no classes if that may surprise."""


def pyarrow_for(kind: str) -> Any:
    """Import pyarrow and return it.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet  # without it, pyarrow has no `parquet`
    except ImportError:
        raise UserError(f"{kind}: pyarrow is not installed; run pip install 'pretext-bench[hub]'") from None
    return pyarrow


def find_columns(spec: str, schema: Any, *, image: str | None, label: str | None) -> Columns:
    """Return the columns of the pictures and of the classes.

    Args:
        spec: The start of error messages.
        schema: The `pyarrow.Schema` of a file.
        image: The user's name for the column of the pictures.
        label: The user's name for the column of the classes; `none` for no classes.

    Raises:
        UserError: If a column does not exist or is of another type, or if several may be meant.
    """
    features = _features(schema)
    pictures = [name for name in schema.names if _holds_pictures(schema.field(name).type)]
    marked = [name for name in pictures if features.get(name, {}).get("_type") == "Image"]
    if image is None:
        candidates = marked or pictures
        if len(candidates) != 1:
            raise UserError(
                f"{spec}: {'several columns hold' if candidates else 'no column holds'} pictures as bytes; the columns "
                f"are {_listed(schema)}" + (f"; image={candidates[0]} takes that one" if candidates else "")
            )
        image = candidates[0]
    elif image not in schema.names:
        raise UserError(f"{spec}: image={image}: no such column; {did_you_mean(image, schema.names)}")
    elif image not in pictures:
        raise UserError(f"{spec}: image={image}: holds {schema.field(image).type}, not the bytes of picture files")
    kind = schema.field(image).type
    inner = {kind.field(at).name for at in range(kind.num_fields)} if kind.num_fields else set()

    named = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    lacking = ""
    if label == NONE:
        chosen = None
    elif label is not None:
        if label not in schema.names:
            raise UserError(f"{spec}: label={label}: no such column; {did_you_mean(label, schema.names)}")
        chosen = label
    else:
        chosen = "label" if "label" in schema.names else named[0] if len(named) == 1 else None
        if chosen is None and (others := named or [name for name in schema.names if _may_be_classes(schema, name)]):
            lacking = f"the column {some(others)} may hold them; label={others[0]} reads that one"
    if chosen is not None and not _may_be_classes(schema, chosen):
        raise UserError(f"{spec}: label={chosen}: holds {schema.field(chosen).type}; a class is text or a whole number")
    classes = tuple(features[chosen].get("names") or ()) if chosen is not None and chosen in named else ()
    return Columns(image, bool(inner), PATH in inner, chosen, classes, lacking)


class ArrowOptions(NamedSplits, Protocol):
    """The options of a kind whose pictures lie in tables."""

    @property
    def image(self) -> str | None:
        """Column of the pictures; None where not given."""

    @property
    def label(self) -> str | None:
        """Column of the classes, or none; None where not given."""

    @property
    def classes(self) -> str | None:
        """File of class names; None where not given."""


class Part(NamedTuple):
    """The pictures of one file, in the order of its rows."""

    columns: Columns
    """Where they were found."""
    holder: str
    """The file that holds their bytes as they are."""
    offsets: list[int]
    """The place of each picture's first byte in `holder`."""
    sizes: list[int]
    """Number of bytes of each picture."""
    paths: list[str | None]
    """The path that is stored with each picture."""
    labels: list[Label]
    """The class of each picture."""


ReadFile = Callable[[Any, str, Callable[[Any], Columns]], Part]
"""Reads a file; called with pyarrow, the file, and a function that finds the columns of a schema."""


def splits_in_tables(
    kind: str, path: str, options: ArrowOptions, read: ReadFile, *, suffix: str, what: str, left_out: str = ""
) -> dict[str, ImageDataset]:
    """Return the splits of a data set in files that pyarrow reads.

    Args:
        kind: The kind of the data set.
        path: The path of its spec.
        options: The options of its spec.
        read: Reads one file.
        suffix: The suffix of its files.
        what: What a file is, for errors.
        left_out: See `split_files`.

    Raises:
        UserError: If pyarrow is missing, a file cannot be read, or a column does not fit.
    """
    arrow, spec = pyarrow_for(kind), f"{kind}:{path}"
    root, files, notes = split_files(kind, path, suffix, options, left_out=left_out)
    splits: dict[str, Rows] = {}
    columns: Columns | None = None
    for split, paths in files.items():
        rows = splits[split] = Rows([], paths)
        for number, file in enumerate(paths):
            with failing_clearly(arrow, file, what):
                find = functools.partial(find_columns, f"{spec}: {file}", image=options.image, label=options.label)
                part = read(arrow, file, find)
            columns = columns or part.columns
            rows.files.append(part.holder)
            rows.names += names_of(file, part.paths, part.labels, part.columns.classes)
            rows.labels += part.labels
            rows.sizes += part.sizes
            rows.offsets += part.offsets
            rows.file_of += [number] * len(part.sizes)
    assert columns is not None
    classes = (columns.classes if options.classes is None else ()) or named_classes(spec, root, options.classes)
    return stored_splits(spec, splits, classes=classes, notes=notes, lacking=columns.lacking)


def names_of(file: str, paths: Sequence[str | None], labels: Sequence[Label], classes: Sequence[str]) -> list[str]:
    """Return the names of the pictures of a file: their paths if all differ, else the numbers of their rows.

    `datasets` keeps the name of a file without its folder. A path without a folder gets its class as the folder, which
    is where `datasets` has read the class.

    Args:
        file: The file.
        paths: The path that is stored with each picture.
        labels: The class of each picture.
        classes: The names of classes that are numbers.
    """
    named = [re.sub(r"^(\.*/)+", "", os.path.normpath(path)) if path else "" for path in paths]
    if not any("/" in name for name in named):
        texts = [classes[x] if isinstance(x, int) and 0 <= x < len(classes) else x for x in labels]
        named = [
            f"{text}/{name}" if name and isinstance(text, str) else name
            for text, name in zip(texts, named, strict=True)
        ]
    if all(named) and len(set(named)) == len(named):
        return named
    return [f"{Path(file).stem}/{row:08d}" for row in range(len(paths))]


@contextlib.contextmanager
def failing_clearly(arrow: Any, file: str, what: str) -> Iterator[None]:
    """Turn pyarrow's errors on a file, which should be `what`, into one line."""
    try:
        yield
    except arrow.ArrowException as error:  # also of files that are cut or no Parquet at all
        words = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{file}: not {what} that can be read ({words[:200]}); copy it again") from None
    except OSError as error:
        if error.filename is not None and str(error.filename) != file:  # the cache
            raise
        raise UserError(f"{file}: {error.strerror or ' '.join(str(error).split())}") from None


def _features(schema: Any) -> dict[str, Any]:
    """Return the types that Hugging Face's metadata in a schema gives, by column; nothing if there is none."""
    stored = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(stored)["info"]["features"] if stored else {}
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: each for name, each in features.items() if isinstance(each, dict)}


def _holds_pictures(kind: Any) -> bool:
    """Return whether a column of this type can hold the bytes of files."""
    from pyarrow import types

    if types.is_struct(kind):
        inner = {kind.field(at).name: kind.field(at).type for at in range(kind.num_fields)}
        return BYTES in inner and _holds_pictures(inner[BYTES]) and not types.is_struct(inner[BYTES])
    return types.is_binary(kind) or types.is_large_binary(kind)


def _may_be_classes(schema: Any, name: str) -> bool:
    from pyarrow import types

    kind = schema.field(name).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)


def _listed(schema: Any) -> str:
    return ", ".join(f"{name} ({schema.field(name).type})" for name in schema.names)

"""The files of a data set that lies in several larger files: patterns of names, and the split of each file.

A pattern is a path with `{000..127}`, `{a,b}`, `*`, `**` or `[abc]`, as a shell expands them; several are separated by
commas. A path that exists is taken as it stands, whatever its name.
"""

from __future__ import annotations

import functools
import glob
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pretext.datasets.base import Fault
from pretext.datasets.files import some
from pretext.datasets.layouts import SPLIT_NAMES
from pretext.system.errors import UserError
from pretext.system.specs import path_of

MOST_FILES = 100_000
"""A range that gives more names than this is a mistake."""
RANGE = re.compile(r"(\d+)\.\.(\d+)")
SPLIT_OF = {word: split for split, words in SPLIT_NAMES.items() for word in words}


class NamedSplits(Protocol):
    """Options with the user's patterns for each split."""

    @property
    def train(self) -> str | None:
        """Patterns of train; None where not given."""

    @property
    def val(self) -> str | None:
        """Patterns of val; None where not given."""

    @property
    def test(self) -> str | None:
        """Patterns of test; None where not given."""


def split_files(
    kind: str, path: str, suffix: str, named: NamedSplits, *, left_out: str = ""
) -> tuple[Path, dict[str, list[str]], list[str]]:
    """Return the folder of a data set, the files of each split, and notes on files that are not used.

    Files that the user's patterns name are of that split. Of the others, the names tell: `train`, `val`, `valid`,
    `validation` or `test`, as a word of the file's name or as a folder above it. Where none is called train, those
    without such a word are, or all if every name has one.

    Args:
        kind: The kind of the data set.
        path: The path of its spec: a folder, or patterns.
        suffix: The suffix of its files, such as `.tar`.
        named: The user's patterns, relative to the folder; None where not given.
        left_out: Files in folders whose names begin so are left out; "" leaves out none.

    Raises:
        UserError: If a pattern fits no file, there are no files, or a file is in two splits.
    """
    spec = f"{kind}:{path}"
    if not path:
        raise UserError(
            f"{kind}: the path is missing; write {kind}:DIR, or a pattern such as {kind}:'{{00..15}}{suffix}'"
        )
    root = _folder_of(path)
    files = expanded(spec, path, suffix=suffix, left_out=left_out)
    splits: dict[str, list[str]] = {}
    for split in SPLIT_NAMES:
        if (pattern := getattr(named, split)) is not None:
            splits[split] = expanded(
                f"{spec}: {split}={pattern}", pattern, below=root, suffix=suffix, left_out=left_out
            )
    for one, other in itertools.combinations(splits, 2):
        if shared := set(splits[one]) & set(splits[other]):
            raise UserError(f"{spec}: {min(shared)} is in {one} and in {other}; splits must not overlap")
    taken = {file for some_files in splits.values() for file in some_files}
    rest = [file for file in files if file not in taken]
    found: dict[str, list[str]] = {}
    for file in rest:
        found.setdefault(_split_by_name(root, file), []).append(file)
    if "train" not in found and "train" not in splits:
        found = found | {"train": found.pop("")} if "" in found else {"train": rest}
    unused = found.pop("", [])
    for split, some_files in found.items():
        splits.setdefault(split, some_files)
    if not splits.get("train"):
        raise UserError(f"{spec}: no {suffix} files are left for training; name them with train=")
    notes: list[str] = []
    if unused:
        names = [os.path.relpath(file, root) for file in unused]
        notes.append(Fault(f"{len(unused):,} files are of no split and are not used: {some(names)}."))
    return root, {split: splits[split] for split in SPLIT_NAMES if split in splits}, notes


def expanded(spec: str, patterns: str, *, suffix: str, below: Path | None = None, left_out: str = "") -> list[str]:
    """Return the files that a folder, a file or patterns name; each once, in alphabetical order.

    Args:
        spec: The start of error messages.
        patterns: What the user wrote.
        suffix: The suffix of the files that are taken from a folder.
        below: The folder that relative patterns start from; None is the current one.
        left_out: See `split_files`.

    Raises:
        UserError: If a file that is named does not exist, a pattern fits none, or a folder has none.
    """
    found: dict[str, None] = {}
    absent: list[str] = []
    for name in _alternatives(spec, patterns, below):
        if name.is_dir():
            inside = sorted(str(file) for file in name.rglob(f"*{suffix}") if _is_data(file, name, left_out))
            if not inside:
                raise UserError(f"{spec}: no {suffix} files in {name}")
            found |= dict.fromkeys(inside)
        elif name.exists():
            found[str(name)] = None
        elif glob.has_magic(str(name)):
            fitting = sorted(file for file in glob.glob(str(name), recursive=True) if Path(file).is_file())  # noqa: PTH207
            if not fitting:
                raise UserError(f"{spec}: no file fits {name}")
            found |= dict.fromkeys(fitting)
        else:
            absent.append(str(name))
    if absent:
        of = (
            f" ({len(absent):,} of {len(absent) + len(found):,} files are missing)"
            if len(absent) + len(found) > 1
            else ""
        )
        raise UserError(f"{spec}: no such file {absent[0]}{of}")
    return sorted(found)


def _is_data(file: Path, folder: Path, left_out: str) -> bool:
    """Return whether a file is to be taken, and neither it nor a folder above it is hidden."""
    if not file.is_file() or (left_out and file.name.startswith(left_out)):
        return False
    return not any(part.startswith(".") for part in file.relative_to(folder).parts)


def _alternatives(spec: str, patterns: str, below: Path | None) -> Iterator[Path]:
    """Yield what the patterns name when braces and commas are expanded."""
    whole = _placed(patterns, below)
    if whole.exists():
        yield whole
        return
    names = itertools.chain.from_iterable(_without_braces(part.strip()) for part in _at_commas(patterns))
    first = [*itertools.islice(names, MOST_FILES + 1)]
    if len(first) > MOST_FILES:
        raise UserError(f"{spec}: the pattern gives more than {MOST_FILES:,} names")
    yield from (_placed(name, below) for name in first)


def _placed(name: str, below: Path | None) -> Path:
    path = path_of(name)
    return path if below is None else below / path


def _at_commas(text: str) -> list[str]:
    """Return the parts of a text between commas that no braces surround."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part.strip()]


def _without_braces(text: str) -> Iterator[str]:
    """Yield the texts that a text with braces stands for."""
    found = re.search(r"\{([^{}]*)\}", text)  # the innermost first
    if found is None:
        yield text
        return
    before, inside, after = text[: found.start()], found[1], text[found.end() :]
    numbers = RANGE.fullmatch(inside)
    choices: Sequence[str] | Iterator[str]
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        width = len(numbers[1]) if len(numbers[1]) == len(numbers[2]) or numbers[1].startswith("0") else 0
        step = 1 if first <= last else -1
        choices = (f"{number:0{width}d}" for number in range(first, last + step, step))
    elif "," in inside:
        choices = inside.split(",")
    else:  # as a shell, which leaves such braces as they are; written so that they are not found again
        choices = [f"\0{inside}\1"]
    for choice in choices:
        yield from (name.replace("\0", "{").replace("\1", "}") for name in _without_braces(before + choice + after))


def _folder_of(path: str) -> Path:
    """Return the folder of a path, or the last one that holds all files of a pattern."""
    whole = path_of(path)
    if whole.exists():
        return whole if whole.is_dir() else whole.parent
    fixed = itertools.takewhile(lambda part: not re.search(r"[*{\[,]", part), whole.parts[:-1])
    return functools.reduce(Path.joinpath, fixed, Path())


def _split_by_name(root: Path, file: str) -> str:
    """Return the split that a file's name or the folder above it names; "" if none."""
    *folders, name = Path(os.path.relpath(file, root)).parts
    words = [*folders, *re.split(r"[^A-Za-z]+", Path(name).stem)]
    return next((SPLIT_OF[word.lower()] for word in words if word.lower() in SPLIT_OF), "")

"""Command lines as frozen dataclasses: tyro reads them, and what is wrong comes back as one line."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import itertools
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, TypeVar

import tyro

from pretext.system.errors import UserError

Options = TypeVar("Options")


def parse(cls: type[Options], argv: list[str], *, prog: str) -> Options:
    """Return `cls` filled from a command line; `--help` prints and leaves as usual.

    Args:
        cls: A dataclass; each field's docstring is its help. Nested dataclasses show their fields as flags of
            the command itself.
        argv: What follows the command's name.
        prog: The command's name, for help and errors.

    Raises:
        UserError: In one line, for anything that does not fit.
    """
    flat: Any = (tyro.conf.OmitArgPrefixes,)
    _refuse_unknown(cls, argv, prog)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(cls, args=argv, prog=prog, config=flat)
    except SystemExit as leaving:
        if not leaving.code:
            raise
        said = _one_line(printed.getvalue())
        if found := re.match(r"Error parsing ((?:-\w/)?--[\w-]+): ", said):
            said = _not_wanted(cls, found[1].split("/"), argv)
        raise UserError(f"{prog}: {said}; see {prog} --help") from None
    except ValueError as error:  # a range check in __post_init__
        raise UserError(f"{prog}: {error}") from None


def _refuse_unknown(cls: type[Any], argv: list[str], prog: str) -> None:
    """Name the first flag that there is not, and the nearest that there is."""
    known = {"h", "help", *_flag_names(cls)}
    for word in argv:
        flag = word.split("=", 1)[0].lstrip("-").replace("_", "-")
        if re.match(r"--?[a-zA-Z]", word) and flag not in known:
            near = difflib.get_close_matches(flag, known, n=1)
            hint = f"; did you mean --{near[0]}?" if near else ""
            raise UserError(f"{prog}: unknown flag {word.split('=', 1)[0]}{hint}; see {prog} --help")


def _flag_names(cls: type[Any]) -> Iterator[str]:
    """Yield the flags of a dataclass, of those inside it, and their other spellings, without dashes."""
    for name, _, extras in _flags(cls):
        yield from (name, f"no-{name}")
        for extra in extras:
            yield from (alias.lstrip("-") for alias in getattr(extra, "aliases", None) or ())


def _flags(cls: type[Any]) -> Iterator[tuple[str, Any, list[Any]]]:
    """Yield name, type, and what tyro is told besides of each field of a dataclass and of those inside it."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        kind, *extras = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
        if dataclasses.is_dataclass(kind):
            yield from _flags(kind)  # type: ignore[arg-type]
        else:
            yield field.name.replace("_", "-"), kind, extras


def _not_wanted(cls: type[Any], spellings: list[str], argv: list[str]) -> str:
    """Return that a flag does not take what follows it, and what it takes."""
    flag = spellings[-1]
    kind = next(kind for name, kind, _ in _flags(cls) if f"--{name}" == flag)
    if isinstance(kind, types.UnionType):  # a number or None
        kind = next(each for each in typing.get_args(kind) if each is not type(None))
    parts = typing.get_args(kind) or (kind,)
    name = {int: "whole number", float: "number"}.get(parts[0], "value")
    wanted = f"a {name}" if parts == (kind,) else f"{name}s" if Ellipsis in parts else f"{len(parts)} {name}s"
    words = [word.replace("_", "-") if word.startswith("--") else word for word in argv]
    at = max(i for i, word in enumerate(words) if word.split("=")[0] in spellings)
    after = itertools.takewhile(lambda word: not word.startswith("--"), words[at + 1 :])
    given = " ".join([*words[at].split("=", 1)[1:], *after])
    return f"{flag} {given!r}: it takes {wanted}"


def _one_line(boxed: str) -> str:
    """Return the first sentence in tyro's framed words."""
    lines = [line.strip("│╭╮╰╯─ \n") for line in boxed.splitlines()]
    rules = [i for i, line in enumerate(boxed.splitlines()) if re.fullmatch(r"│ ─+ │", line)]
    body = lines[1 : rules[0]] if rules else lines[1:]
    sentence = re.sub(r"^Error parsing \w+: ", "", " ".join(" ".join(body).split()))  # a dataclass is no user's word
    return sentence.rstrip(".") or "it could not be understood"

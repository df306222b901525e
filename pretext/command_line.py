"""Command lines as frozen dataclasses: tyro reads them, and what is wrong comes back as one line."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
import typing
from collections.abc import Iterator
from typing import Any, TypeVar

import tyro

from pretext.errors import UserError

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
        raise UserError(f"{prog}: {_one_line(printed.getvalue())}; see {prog} --help") from None
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
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        kind, *extras = typing.get_args(hints[field.name]) or (hints[field.name],)
        if dataclasses.is_dataclass(kind):
            yield from _flag_names(kind)  # type: ignore[arg-type]
            continue
        name = field.name.replace("_", "-")
        yield from (name, f"no-{name}")
        for extra in extras:
            yield from (alias.lstrip("-") for alias in getattr(extra, "aliases", None) or ())


def _one_line(boxed: str) -> str:
    """Return the first sentence in tyro's framed words."""
    lines = [line.strip("│╭╮╰╯─ \n") for line in boxed.splitlines()]
    rules = [i for i, line in enumerate(boxed.splitlines()) if re.fullmatch(r"│ ─+ │", line)]
    body = lines[1 : rules[0]] if rules else lines[1:]
    return " ".join(" ".join(body).split()).rstrip(".") or "it could not be understood"

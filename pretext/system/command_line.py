"""Command lines as frozen dataclasses, parsed by tyro; errors are one line."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import itertools
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from pretext.system import help_page
from pretext.system.declarations import read_file
from pretext.system.errors import UserError
from pretext.system.ranges import check_numbers

Options = TypeVar("Options")


def parse(cls: type[Options], argv: list[str], *, prog: str) -> Options:
    """Parse a command line into an instance of `cls`; `--help` prints the help page and ends the process.

    Args:
        cls: A dataclass; each field's docstring is its help. Nested dataclasses show their fields as flags of
            the command itself.
        argv: The arguments after the command's name.
        prog: The command's name, for the help page and errors.

    Raises:
        UserError: If an argument is unknown, missing or unusable.
    """
    if help_page.is_asked(argv):
        file = sys.modules[cls.__module__].__file__
        declared = read_file(Path(file)).find(cls.__name__) if file else None
        assert declared is not None
        print(help_page.HelpPage(prog, declared.about, help_page.groups_of(declared, rest="flags")).text())
        raise SystemExit(0)
    flat: Any = (tyro.conf.OmitArgPrefixes,)
    _refuse_unknown(cls, argv, prog)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            options = tyro.cli(cls, args=argv, prog=prog, config=flat)
        check_numbers(options)
        return options
    except SystemExit as leaving:
        if not leaving.code:
            raise
        message = _one_line(printed.getvalue())
        if found := re.match(r"Error parsing ((?:-\w/)?--[\w-]+): ", message):
            message = _wrong_value(cls, found[1].split("/"), argv)
        raise UserError(f"{prog}: {message}; see {prog} --help") from None
    except ValueError as error:  # a range check in __post_init__
        raise UserError(f"{prog}: {error}") from None


def with_settings(command: type[Any], settings: Any, *, field: str, prefix: str, file: str = "") -> type[Any]:
    """Return a command's dataclass that takes the fields of `settings` as flags too.

    Args:
        command: A frozen dataclass.
        settings: A frozen dataclass whose values are the flags' defaults, such as a task's `Config`.
        field: Name of the field that will hold them; read it by `settings_in`.
        prefix: Put before the flag of a setting whose name the command has already: `--task-images`.
        file: The user's own file that the settings are from, if any: there such a name is refused.

    Raises:
        UserError: If a user's own file has a setting of the same name as one of the command's flags.
    """
    own, hints = type(settings), typing.get_type_hints(type(settings), include_extras=True)
    names = [each.name for each in dataclasses.fields(settings)]
    flags = flags_of_settings(names, [name for name, _, _ in _flags(command)], prefix=prefix, file=file)
    renamed: list[Any] = [
        (name, Annotated[hints[name], tyro.conf.arg(name=flag)], dataclasses.field(default=getattr(settings, name)))
        for name, flag in flags.items()
        if flag != name.replace("_", "-")
    ]
    values = settings
    if renamed:
        own = dataclasses.make_dataclass(own.__name__, renamed, bases=(own,), frozen=True)
        values = own(**{name: getattr(settings, name) for name in names})
    added: Any = (field, Annotated[own, tyro.conf.arg(name="")], dataclasses.field(default=values))
    made = dataclasses.make_dataclass(command.__name__, [added], bases=(command,), frozen=True, kw_only=True)
    made.__doc__ = command.__doc__
    return made


def settings_in(options: Any, *, field: str, kind: type[Options]) -> Options:
    """Return the settings that a command of `with_settings` was given, as an instance of `kind`."""
    parsed = getattr(options, field)
    return kind(**{each.name: getattr(parsed, each.name) for each in dataclasses.fields(kind)})  # type: ignore[arg-type]


def flags_of_settings(names: Iterable[str], taken: Iterable[str], *, prefix: str, file: str) -> dict[str, str]:
    """Return the flag of each setting, without dashes before it: one that the command has already gets a prefix.

    Args:
        names: Names of the settings.
        taken: Names of the command's own flags.
        prefix: See `with_settings`.
        file: See `with_settings`.

    Raises:
        UserError: If a user's own file has a setting of the same name as one of the command's flags.
    """
    own = {name.replace("_", "-") for name in taken}
    found = {}
    for name in names:
        found[name] = name.replace("_", "-")
        if found[name] in own:
            if file:
                raise UserError(
                    f"{file}: its setting {name} has the name of a flag of this command; give the setting another name"
                )
            found[name] = f"{prefix}-{found[name]}"
    return found


def _refuse_unknown(cls: type[Any], argv: list[str], prog: str) -> None:
    """Raise a UserError for the first unknown flag, with the nearest known one."""
    known = {"h", "help", *_flag_names(cls)}
    for word in argv:
        flag = word.split("=", 1)[0].lstrip("-").replace("_", "-")
        if re.match(r"--?[a-zA-Z]", word) and flag not in known:
            near = difflib.get_close_matches(flag, known, n=1)
            hint = f"; did you mean --{near[0]}?" if near else ""
            raise UserError(f"{prog}: unknown flag {word.split('=', 1)[0]}{hint}; see {prog} --help")


def _flag_names(cls: type[Any]) -> Iterator[str]:
    """Yield all spellings of the flags of a dataclass and of nested ones, without leading dashes."""
    for name, _, extras in _flags(cls):
        yield from (name, f"no-{name}")
        for extra in extras:
            yield from (alias.lstrip("-") for alias in getattr(extra, "aliases", None) or ())


def _flags(cls: type[Any]) -> Iterator[tuple[str, Any, list[Any]]]:
    """Yield spelling, type and tyro annotations of each field of a dataclass and of nested ones."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        kind, *extras = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
        if dataclasses.is_dataclass(kind):
            yield from _flags(kind)  # type: ignore[arg-type]
        else:
            spelled = next((extra.name for extra in extras if getattr(extra, "name", None)), field.name)
            yield spelled.replace("_", "-"), kind, extras


def _wrong_value(cls: type[Any], spellings: list[str], argv: list[str]) -> str:
    """Return an error message: the flag, the value given, and the values that it takes."""
    flag = spellings[-1]
    kind = next(kind for name, kind, _ in _flags(cls) if f"--{name}" == flag)
    if isinstance(kind, types.UnionType):  # a number or None
        kind = next(each for each in typing.get_args(kind) if each is not type(None))
    parts = typing.get_args(kind) or (kind,)
    name = {int: "whole number", float: "number"}.get(parts[0], "value")
    expected = f"a {name}" if parts == (kind,) else f"{name}s" if Ellipsis in parts else f"{len(parts)} {name}s"
    words = [word.replace("_", "-") if word.startswith("--") else word for word in argv]
    at = max(i for i, word in enumerate(words) if word.split("=")[0] in spellings)
    after = itertools.takewhile(lambda word: not word.startswith("--"), words[at + 1 :])
    given = " ".join([*words[at].split("=", 1)[1:], *after])
    return f"{flag} {given!r}: it takes {expected}"


def _one_line(boxed: str) -> str:
    """Return the first sentence of tyro's framed error message."""
    lines = [line.strip("│╭╮╰╯─ \n") for line in boxed.splitlines()]
    rules = [i for i, line in enumerate(boxed.splitlines()) if re.fullmatch(r"│ ─+ │", line)]
    body = lines[1 : rules[0]] if rules else lines[1:]
    sentence = re.sub(
        r"^Error parsing \w+: ", "", " ".join(" ".join(body).split())
    )  # the name of a dataclass means nothing to a user
    return sentence.rstrip(".") or "it could not be understood"

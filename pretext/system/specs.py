"""Specs, the text form of data sets, encoders, tasks and probes: `KIND[:PATH][?key=value&…]`."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote

from pretext.system.errors import UserError, did_you_mean
from pretext.system.ranges import check_numbers

Options = TypeVar("Options")


@dataclasses.dataclass(frozen=True)
class Spec:
    """A parsed spec; `options` holds the key–value pairs as text."""

    kind: str
    path: str
    options: dict[str, str]


def parse_spec(text: str) -> Spec:
    """Split `KIND[:PATH][?key=value&…]`. A value is taken as typed, `+` included; only `%XX` is decoded.

    Raises:
        UserError: If the kind is missing or an option is not `key=value`.
    """
    body, _, query = text.partition("?")
    kind, _, path = body.partition(":")
    if not kind:
        raise UserError(f"spec {text!r} has no kind; write KIND[:PATH][?key=value], e.g. folder:photos")
    try:
        # parse_qsl is made for HTML forms, where + is a space
        typed = query.replace("+", "%2B")
        pairs = parse_qsl(typed, True, True, errors="surrogateescape") if query else []
    except ValueError:
        raise UserError(f"spec {text!r}: after '?' write key=value pairs joined by '&'") from None
    return Spec(kind, path, dict(pairs))


def options_into(cls: type[Options], spec: Spec, *, start: Options | None = None) -> Options:
    """Build the dataclass `cls` from the options of a spec, each converted to the type of its field.

    Options that the spec does not give keep their value in `start`, or the default.

    Raises:
        UserError: If an option is unknown or its text does not fit the field.
    """
    hints = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, text in spec.options.items():
        if key not in known:
            raise UserError(f"{spec.kind}: unknown option {key!r}; {did_you_mean(key, known)}")
        try:
            values[key] = _convert(text, hints[key])
        except ValueError as error:
            raise UserError(f"{spec.kind}: {key}={text}: {error}") from None
    try:
        made = dataclasses.replace(start, **values) if start is not None else cls(**values)  # type: ignore[type-var]
        check_numbers(made)
    except ValueError as error:  # a range check in __post_init__
        raise UserError(f"{spec.kind}: {error}") from None
    return made


def path_of(text: str) -> Path:
    """Return the path that a user wrote, with `~` as a home folder.

    Raises:
        UserError: If there is no such user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = text.partition("/")[0]
        raise UserError(f"{text}: {user} is nobody's home folder; write the whole path, or ./{text}") from None


def format_spec(kind: str, path: str, options: Any) -> str:
    """Return the text of a spec; options with their default values are left out."""
    changed = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if getattr(options, field.name) != field.default
    }
    query = "&".join(f"{key}={_quoted(str(value))}" for key, value in changed.items())
    return kind + (f":{path}" if path else "") + (f"?{query}" if query else "")


def without_options(text: str, *names: str) -> str:
    """Return a spec without the options `names`; the rest is unchanged."""
    body, _, query = text.partition("?")
    kept = [pair for pair in query.split("&") if pair and pair.partition("=")[0] not in names]
    return body + (f"?{'&'.join(kept)}" if kept else "")


def with_option(text: str, name: str, value: str) -> str:
    """Return a spec with the option `name` set to `value`."""
    text = without_options(text, name)
    return f"{text}{'&' if '?' in text else '?'}{name}={_quoted(value)}"


def _quoted(value: str) -> str:
    return quote(value, safe="/,.", errors="surrogateescape")  # file names need not be UTF-8


def _convert(text: str, kind: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        kind = next(arg for arg in typing.get_args(kind) if arg is not type(None))
        origin = typing.get_origin(kind)
    if origin is typing.Literal:
        choices = typing.get_args(kind)
        for choice in choices:
            if str(choice) == text:
                return choice
        raise ValueError(f"expected one of {', '.join(map(str, choices))}")
    if origin is tuple:  # of any length; values stand between commas
        return tuple(_convert(part, typing.get_args(kind)[0]) for part in text.split(",") if text)
    if kind is bool:
        if text.lower() in ("true", "1", "yes"):
            return True
        if text.lower() in ("false", "0", "no"):
            return False
        raise ValueError("expected true or false")
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"expected {'a whole number' if kind is int else 'a number'}") from None
    return text

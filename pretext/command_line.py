"""Command lines as frozen dataclasses: tyro reads them, and what is wrong comes back as one line."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
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
    _refuse_unknown(cls, argv, prog, flat)
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


def _refuse_unknown(cls: type[Any], argv: list[str], prog: str, config: Any) -> None:
    """Name the first flag that there is not, and the nearest that there is."""
    if {"-h", "--help"} & set(argv):
        return
    parser = tyro.extras.get_parser(cls, prog=prog, config=config)
    known = {option for action in parser._actions for option in action.option_strings}
    for word in argv:
        flag = word.split("=", 1)[0].replace("_", "-")
        if re.match(r"--?[a-zA-Z]", word) and flag not in known:
            near = difflib.get_close_matches(flag, [name for name in known if name.startswith("--")], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"{prog}: unknown flag {word.split('=', 1)[0]}{hint}; see {prog} --help")


def _one_line(boxed: str) -> str:
    """Return the first sentence in tyro's framed words."""
    lines = [line.strip("│╭╮╰╯─ \n") for line in boxed.splitlines()]
    rules = [i for i, line in enumerate(boxed.splitlines()) if re.fullmatch(r"│ ─+ │", line)]
    body = lines[1 : rules[0]] if rules else lines[1:]
    return " ".join(" ".join(body).split()).rstrip(".") or "it could not be understood"

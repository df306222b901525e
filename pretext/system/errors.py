"""The one error that is meant for people: a sentence that names the thing and says what to do about it."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Something the user gave cannot be used. The message is one line: what, and what to do about it."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that offers the nearest known word, and all of them.

    Args:
        word: What was given.
        known: What would have been accepted.
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(names)}"


def run_command(main: Callable[[list[str]], int | None]) -> None:
    """Run a command line's `main(argv)` and leave the process.

    Exit codes: what `main` returns (None is 0), 2 for a `UserError` or an unusable file system, 130 for Ctrl-C,
    141 where what reads the output has left.
    """
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except BrokenPipeError:  # head, or a pager, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes
        code = 141
    except OSError as error:  # a full disk, a read-only folder: the system's own words name the path
        named = f"{error.filename}: " if error.filename else ""
        print(f"error: {named}{error.strerror or error}; make room, or give another folder", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from what it has kept", file=sys.stderr)
        code = 130
    sys.exit(code)

"""The error for users, and how a command line turns errors into messages and exit codes."""

from __future__ import annotations

import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Iterable

_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Characters that break a line, turn its direction or command the terminal."""


class InputError(Exception):
    """Something that the user gave cannot be used. The message is one line."""

    def __init__(self, message: object) -> None:
        """Store the message; characters that would break the line, which file names may have, are shown escaped."""
        super().__init__(on_one_line(str(message)))


class UserError(InputError):
    """The user's input cannot be used. The message is one line that says what is wrong and what to do."""


def on_one_line(text: str) -> str:
    """Return a text with line breaks and control characters as Python writes them."""
    return _UNSHOWN.sub(lambda found: ascii(found[0])[1:-1], text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of an error message: the closest known word as a suggestion, then all known words.

    Args:
        word: The word that the user gave.
        known: The words that are accepted.
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(names)}"


def run_command(main: Callable[[list[str]], int | None]) -> None:
    """Run a command line's `main(argv)` and exit the process.

    Exit codes: the return value of `main` (None is 0), 2 for an `InputError` or a file system error, 130 for Ctrl-C,
    141 if the reader of the output has closed it. What the terminal's encoding cannot show is printed as `?`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except InputError as error:  # a file of the data, of which nothing else has said what to do
        print(f"error: {error}; mend the file, or leave it out", file=sys.stderr)
        code = 2
    except BrokenPipeError:  # the output was piped to `head` or a pager that has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails when it flushes at exit
        code = 141
    except OSError as error:  # a full disk or a read-only folder
        named = f"{error.filename}: " if error.filename else ""
        line = on_one_line(f"error: {named}{error.strerror or error}")
        print(f"{line}; free some space, or give another folder", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("stopped; run the same command again to resume", file=sys.stderr)
        code = 130
    if "pretext.system.distributed" in sys.modules:
        from pretext.system.distributed import end_at_once

        end_at_once(code or 0)
    sys.exit(code)

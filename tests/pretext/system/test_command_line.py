from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from typing import Annotated, Literal

import pytest
import tyro

from pretext.system.command_line import parse
from pretext.system.errors import UserError, run_command


@dataclasses.dataclass(frozen=True)
class Inner:
    steps: int = 3
    """How many."""
    kind: Literal["round", "square"] = "round"
    """Which."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; allowed is 1 or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    name: tyro.conf.Positional[str]
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    most: int | None = None
    sizes: tuple[int, ...] = ()
    corner: tuple[float, float] | None = None
    keep: bool = False
    inner: Inner = dataclasses.field(default_factory=Inner)


def test_flags_of_all_depths_are_read():
    found = parse(Outer, ["x", "--steps", "5", "-k", "3", "--keep", "--kind=square"], prog="p")
    assert found == Outer(name="x", k=3, keep=True, inner=Inner(5, "square"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("x --stepz 3", "unknown flag --stepz; did you mean --steps"),
        ("x --bogus 3", "unknown flag --bogus; see p --help"),
        ("x --steps many", "^p: --steps 'many': it takes a whole number; see p --help$"),
        ("x -k many", "^p: --k 'many': it takes a whole number"),
        ("x --most=1.5 --keep", "^p: --most '1.5': it takes a whole number"),
        ("x --sizes 1 --sizes 2 b --keep", "^p: --sizes '2 b': it takes whole numbers"),
        ("x --corner 1", "^p: --corner '1': it takes 2 numbers"),
        ("x --steps", "--steps"),
        ("x --kind oval", "'round', 'square'"),
        ("x --steps 0", "steps is 0; allowed is 1 or more"),
        ("", "NAME|STR|name"),
        ("x y", "y"),
    ],
)
def test_what_does_not_fit_is_one_line(words, message):
    with pytest.raises(UserError, match=message) as caught:
        parse(Outer, words.split(), prog="p")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("p: ")


@pytest.mark.parametrize(
    ("raised", "code"),
    [(UserError("no such thing"), 2), (OSError(28, "No space left", "out"), 2), (KeyboardInterrupt(), 130)],
)
def test_exit_codes(raised, code, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["p"])

    def fail(argv):
        raise raised

    with pytest.raises(SystemExit) as left:
        run_command(fail)
    assert left.value.code == code
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_reader_that_leaves_is_no_error():
    command = "import sys; from pretext.system.errors import run_command; run_command(lambda argv: print('x' * 10))"
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as nobody:
        done = subprocess.run([sys.executable, "-c", command], stdout=nobody, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_output_cannot_show_is_replaced(encoding):
    command = (
        "import sys; from pretext.system.errors import UserError, run_command\n"
        "def main(argv):\n"
        "    print('▲ caf\\udce9')\n"
        "    raise UserError('▲ caf\\udce9')\n"
        "run_command(main)"
    )
    environment = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"}
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, env=environment, check=False)
    shown = "▲ caf?" if encoding == "utf-8" else "? caf?"
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (2, f"{shown}\n", f"error: {shown}\n")

"""Peak memory by the number of pictures: one process a command, and an error that names it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.timing import growing
from pretext.system import command_line
from pretext.system.errors import UserError

ROOT = Path(__file__).parents[2]

HOLDING = """
from benchmarks.timing import growing
hold = "timeit -n1 -r1 -s count=int('DATA'.split('train=')[1].split('&')[0]) held=b'x'*(count<<20)"
growing.COMMANDS = {"hold": hold, "nothing": "timeit -n1 -r1 pass"}
growing.main(["--pictures", "128", "320"])
"""
"""In place of the suite's commands: Python's own `timeit`, which holds as many MiB as there are pictures."""


@pytest.mark.slow
def test_every_number_of_pictures_has_a_line_and_every_command_a_column():
    # a process of its own: the peak of a child is at least the memory of the one that starts it
    done = subprocess.run([sys.executable, "-c", HOLDING], cwd=ROOT, capture_output=True, text=True, check=True)
    head, *lines = done.stdout.splitlines()
    assert head.split()[:4] == ["pictures", "hold", "nothing", "(MB"]
    assert [line.split()[0] for line in lines] == ["128", "320"]
    (few, base), (many, same) = ([float(number.replace(",", "")) for number in line.split()[1:]] for line in lines)
    assert abs(many - few - 192 * 1.024) < 10 and abs(base - same) < 10


@pytest.mark.parametrize("command", growing.COMMANDS.values())
def test_the_flags_of_every_command_can_be_read(command, monkeypatch, tmp_path):
    class Parsed(BaseException):
        pass

    def parsed(options):
        raise Parsed

    monkeypatch.setattr(command_line, "check_numbers", parsed)
    name, *words = growing.words_of(command, {"DATA": "scenes", "OUT": str(tmp_path), "ENCODER": growing.ENCODER})
    module = importlib.import_module(name)
    is_package = hasattr(module, "__path__")
    with pytest.raises(Parsed):
        (importlib.import_module(f"{name}.__main__") if is_package else module).main(words)


def test_a_command_that_fails_is_named(tmp_path):
    with pytest.raises(UserError, match=r"pretext nothing: .*nothing"):
        growing.peak(["pretext", "nothing"], tmp_path)

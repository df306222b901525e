"""Peak memory by the number of pictures: one process a command, and an error that names it."""

from __future__ import annotations

import importlib

import pytest

from benchmarks.timing import growing
from pretext.system import command_line
from pretext.system.errors import UserError


@pytest.mark.slow
def test_every_number_of_pictures_has_a_line_and_every_command_a_column(monkeypatch, capsys):
    """In place of the suite's commands: Python's own `timeit`, which holds as many MB as there are pictures."""
    hold = "timeit -n1 -r1 -s count=int('DATA'.split('train=')[1].split('&')[0]) held=b'x'*(count<<20)"
    monkeypatch.setattr(growing, "COMMANDS", {"hold": hold, "nothing": "timeit -n1 -r1 pass"})
    assert growing.main(["--pictures", "64", "256"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["pictures", "hold", "nothing", "(MB"]
    assert [line.split()[0] for line in lines] == ["64", "256"]
    (few, base), (many, same) = ([float(number.replace(",", "")) for number in line.split()[1:]] for line in lines)
    assert abs(many - few - 192 * 1.048576) < 5 and abs(base - same) < 5


@pytest.mark.parametrize("command", growing.COMMANDS.values())
def test_the_flags_of_every_command_can_be_read(command, monkeypatch, tmp_path):
    class Parsed(BaseException):
        pass

    def parsed(options):
        raise Parsed

    monkeypatch.setattr(command_line, "check_numbers", parsed)
    package, *words = growing.words_of(command, {"DATA": "scenes", "OUT": str(tmp_path), "ENCODER": growing.ENCODER})
    with pytest.raises(Parsed):
        importlib.import_module(f"{package}.__main__").main(words)


def test_a_command_that_fails_is_named(tmp_path):
    with pytest.raises(UserError, match=r"pretext nothing: .*nothing"):
        growing.peak(["pretext", "nothing"], tmp_path)

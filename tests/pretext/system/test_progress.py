"""Progress without a terminal: whole lines, with a share and the time left, and nothing else."""

from __future__ import annotations

import io
import re
import sys

import pytest

from pretext.system import progress
from pretext.system.progress import progress_bar


def test_without_a_terminal_every_line_says_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    with progress_bar("embed photos", 4, unit="img") as bar:
        for _ in range(4):
            bar.update()
        bar.set_postfix({"task": "0.5"}, refresh=False)
        bar.write("a warning", file=sys.stderr)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "a warning"
    states = [line for line in lines if line.startswith("embed photos: ")][-3:]
    for line, count in zip(states, (2, 3, 4), strict=True):
        assert re.fullmatch(rf"embed photos: {25 * count} %, {count} of 4 img, 00:00 so far, 00:00 left", line)


def test_lines_are_ten_seconds_apart(capsys):
    with progress_bar("quick", 1000, unit="step") as bar:
        for _ in range(1000):
            bar.update()
    assert capsys.readouterr().err == ""
    assert progress.LINE_S == 10


def test_a_bar_in_seconds_goes_on_where_an_earlier_call_ended(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    with progress_bar("t", 20.0, unit="s", initial=5.0) as bar:
        bar.update(5.1)
    assert "t: 50 %, 10 of 20 s, " in capsys.readouterr().err


@pytest.mark.parametrize("unit", ["s", "img"])
def test_a_terminal_gets_a_bar(monkeypatch, unit):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = progress_bar("t", 20, unit=unit)
    bar.update(10)
    assert "50%|" in str(bar)
    bar.close()


def test_other_processes_are_silent(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    with progress_bar("t", 2, unit="img", hidden=True) as bar:
        bar.update()
    assert capsys.readouterr().err == ""

"""Peak memory by the number of pictures: one process a command, and an error that names it."""

from __future__ import annotations

import pytest

from benchmarks.timing import growing


@pytest.mark.slow
def test_every_number_of_pictures_has_a_line_and_every_command_a_column(monkeypatch, capsys):
    kept = {name: growing.COMMANDS[name] for name in ("train",)}
    monkeypatch.setattr(growing, "COMMANDS", kept)
    monkeypatch.setattr("sys.argv", ["growing.py", "--pictures", "64", "128"])
    growing.main()
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["pictures", "train", "(MB"]
    assert [line.split()[0] for line in lines] == ["64", "128"]
    for line in lines:
        assert all(100 < float(number.replace(",", "")) < 20_000 for number in line.split()[1:])


def test_a_command_that_fails_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"pretext nothing: .*nothing"):
        growing.peak(["pretext", "nothing"], tmp_path)

"""Errors for users are one line, whatever file names and values they quote."""

from __future__ import annotations

import errno
import os
import pickle
import sys

import pytest

from pretext.__main__ import main
from pretext.datasets import BadImage, open_dataset
from pretext.encoders import build_encoder
from pretext.system.errors import UserError, run_command

ODD = ["a\nb", "\x1b[31mred", "a\rb", "\u2028", "\x85", "\u202egnp", "\x00"]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    "use",
    [
        lambda odd: open_dataset(f"folder:/nowhere/{odd}"),
        lambda odd: open_dataset(f"places365:/nowhere/{odd}"),
        lambda odd: build_encoder(f"alexnet?width={odd}", input_size=32, seed=0),
        lambda odd: main(["train", f"byol:small?hidden={odd}"]),
        lambda odd: main([odd]),
    ],
)
def test_what_an_error_quotes_does_not_break_its_line(odd, use):
    with pytest.raises(UserError) as caught:
        use(odd)
    assert len(str(caught.value).splitlines()) == 1 and "\x1b" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_ordinary_names_are_quoted_as_they_are():
    name = "C:\\new\\äöü 한글 \udcff\xa0🙂.png"
    assert str(UserError(name)) == str(BadImage(name)) == name


def test_a_file_that_cannot_be_decoded_is_one_line_by_any_command(capsys, monkeypatch):
    def broken(argv):
        raise BadImage("photos/a\nb.png: empty file")

    monkeypatch.setattr(sys, "stdout", sys.stderr)
    with pytest.raises(SystemExit) as ended:
        run_command(broken)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: photos/a\\nb.png: empty file; mend the file, or leave it out"
    ]


def test_an_error_of_the_file_system_is_one_line_too(capsys, monkeypatch):
    def full(argv):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a\nb")

    monkeypatch.setattr(sys, "stdout", sys.stderr)
    with pytest.raises(SystemExit):
        run_command(full)
    assert capsys.readouterr().err.splitlines() == [
        "error: a\\nb: No space left on device; free some space, or give another folder"
    ]

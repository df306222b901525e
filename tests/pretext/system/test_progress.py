"""Progress without a terminal: whole lines, with a share and the time left, and nothing else."""

from __future__ import annotations

import io
import re
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from pretext.auditing.counting import audit
from pretext.datasets import open_dataset
from pretext.datasets.mask_values import values_without_class
from pretext.datasets.packed import at_size
from pretext.encoders import build_encoder
from pretext.system import progress
from pretext.system.progress import counted, progress_bar, working


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
    monkeypatch.setattr("pretext.system.distributed.rank", lambda: 1)
    with progress_bar("t", 2, unit="img") as bar, working("u"):
        bar.update()
    assert capsys.readouterr().err == ""


def test_lines_come_every_ten_seconds_of_the_clock(capsys, monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: seconds[0])
    for _ in counted(range(100), "look at files", 100, unit="file"):
        seconds[0] += 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[4] == "look at files: 50 %, 50 of 100 file, 00:50 so far, 00:50 left"


def test_things_of_unknown_number_are_counted(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    assert list(counted(iter("abc"), "find", None, unit="file")) == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines()[-1] == "find: 3 file, 00:00 so far"


@pytest.fixture
def hasty(monkeypatch):
    """Steps that cannot count look every hundredth of a second."""
    monkeypatch.setattr(progress, "LOOK_S", 0.01)
    monkeypatch.setattr(progress, "LINE_S", 0.0)


def test_a_step_that_cannot_count_says_that_it_works(hasty, capsys, monkeypatch):
    said = threading.Event()
    monkeypatch.setattr(progress, "print", lambda *words, **_: (print(*words), said.set()), raising=False)
    with working("fit the index"):
        assert said.wait(60)
    assert capsys.readouterr().out.splitlines()[0] == "fit the index: 00:00 so far"


def test_a_step_is_silent_beside_a_bar(hasty, capsys, monkeypatch):
    looked = threading.Event()

    class Spoken(list):
        def __getitem__(self, at):
            looked.set()
            return float("inf")  # a bar that always speaks

    monkeypatch.setattr(progress, "_spoken", Spoken())
    with working("open photos"):
        assert looked.wait(60)
    assert capsys.readouterr().err == ""


def test_all_progress_is_shown_from_one_place():
    root = Path(progress.__file__).parents[2]
    packages = ("pretext", "downstream", "retrieval", "benchmarks")
    files = [file for name in packages for file in (root / name).rglob("*.py") if file.name != "progress.py"]
    assert len(files) > 100
    assert [
        file for file in files if re.search(r"^\s*(from|import) tqdm", file.read_text(encoding="utf-8"), re.M)
    ] == []


@pytest.mark.parametrize(
    ("do", "name"),
    [
        (lambda folder: open_dataset(f"folder:{folder}").fingerprint, "look at files"),
        (lambda folder: open_dataset(f"folder:{folder}").fingerprint, "fingerprint"),
        (lambda folder: audit(open_dataset(f"folder:{folder}")), "look at folder:"),
        (lambda folder: at_size(open_dataset(f"folder:{folder}"), 8, bad_images="stop"), "decode folder:"),
        (lambda folder: values_without_class(folder, sorted(map(str, folder.iterdir())), [300 % 256]), "read masks"),
        (
            lambda folder: build_encoder("pixels", input_size=32, seed=0).embed([*folder.iterdir()], batch_size=1),
            "embed",
        ),
    ],
)
def test_long_steps_of_a_data_set_say_how_far_they_are(do, name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    for number in range(12):
        Image.new("L", (16, 16), number + 100).save(tmp_path / f"{number}.png")
    do(tmp_path)
    assert re.search(rf"^{name}[^\n]*: \d+ %, \d+ of \d+ [a-z]+, \d\d:\d\d so far, ", capsys.readouterr().err, re.M)

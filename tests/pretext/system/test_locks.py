"""Locks between processes: one module has them all; exclusive, freed by a kill, and a removed folder is no error."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pretext
from pretext.system.cache import locked_entry
from pretext.system.locks import is_locked, lock_file, lock_folder

DIES = """
import os, signal, sys
from pathlib import Path
from pretext.system.locks import lock_folder
with lock_folder(Path(sys.argv[1])) as held:
    print(held, flush=True)
    sys.stdin.read()
"""


def test_only_one_module_knows_how_a_file_is_locked():
    root = Path(pretext.__file__).parent.parent
    sources = [
        file for name in ("pretext", "downstream", "retrieval", "benchmarks") for file in root.glob(f"{name}/**/*.py")
    ]
    users = [
        file.relative_to(root).as_posix()
        for file in sources
        if re.search(r"import filelock|from filelock|fcntl", file.read_text())
    ]
    assert users == ["pretext/system/locks.py"]


@pytest.mark.parametrize(
    "lock", [lambda out: lock_file(out / "l"), lambda out: lock_folder(out / "f"), lambda out: locked_entry(out / "e")]
)
def test_a_second_holder_is_refused_and_frees_nothing(lock, tmp_path):
    for _ in range(2):
        with lock(tmp_path) as held:
            assert held
            for _ in range(2):
                with lock(tmp_path) as second:
                    assert not second


def test_an_error_under_the_lock_frees_it(tmp_path):
    with pytest.raises(FileNotFoundError), lock_folder(tmp_path / "f"):
        raise FileNotFoundError
    with lock_folder(tmp_path / "f") as held:
        assert held


def test_a_folder_that_another_process_has_just_removed_counts_as_held(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    with lock_folder(tmp_path / "gone") as held:
        assert not held


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", DIES, tmp_path / "f"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "True\n"
    assert is_locked(tmp_path / "f" / ".lock")
    with lock_folder(tmp_path / "f") as held:
        assert not held
    holder.kill()
    holder.communicate()
    assert holder.returncode == -signal.SIGKILL
    assert not is_locked(tmp_path / "f" / ".lock")
    with lock_folder(tmp_path / "f") as held:
        assert held

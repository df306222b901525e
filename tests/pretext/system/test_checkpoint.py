"""Atomic writes: a failed write keeps the old file, and the error names it."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest
from safetensors import SafetensorError

from pretext.system.checkpoint import atomic_write


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_named_and_what_was_there_stays(tmp_path, error):
    file = tmp_path / "file"
    file.write_text("before")
    with pytest.raises(OSError, match="No space left on device") as caught, atomic_write(file) as temporary:
        temporary.write_text("half of wh")
        raise error
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(file))
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and file.read_text() == "before"


def test_other_errors_are_passed_on(tmp_path):
    for error in (SafetensorError("no tensor"), ValueError("wrong")):
        with pytest.raises(type(error), match=str(error)), atomic_write(tmp_path / "file"):
            raise error
    assert not list(tmp_path.iterdir())


def test_a_command_says_which_file_and_what_to_do(tmp_path):
    (tmp_path / "plain").touch()
    program = (
        "from pretext.system.checkpoint import atomic_write\n"
        "from pretext.system.errors import run_command\n"
        "def main(argv):\n"
        "    with atomic_write(argv[0]): pass\n"
        "run_command(main)\n"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "plain" / "file")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert str(tmp_path / "plain") in done.stderr and "give another folder" in done.stderr

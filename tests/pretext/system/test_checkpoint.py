"""Atomic writes: a failed write keeps the old file, and the error names it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from pretext.encoders import build_encoder, load_encoder
from pretext.encoders.files import encoder_digest, save_encoder
from pretext.system.checkpoint import (
    CHECKPOINT_KEY,
    atomic_write,
    read_checkpoint,
    remove_leftovers,
    remove_leftovers_in,
    save_checkpoint,
    write_tensors,
)
from pretext.system.errors import UserError


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


@pytest.mark.slow
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


WRITES = (
    "import sys, pathlib, torch\n"
    "from pretext.system.checkpoint import atomic_write, write_tensors\n"
    "import pretext.system.checkpoint as module\n"
    "def killed(tensors, file, metadata):\n"
    "    file.with_name('.tmpA1b2C3').write_bytes(b'half')\n"
    "    import os; os.kill(os.getpid(), 9)\n"
    "module.save_file = killed\n"
    "write_tensors(sys.argv[1], {'a': torch.zeros(3)}, {})\n"
)


@pytest.mark.slow
def test_the_next_writer_deletes_what_a_killed_one_left_and_nothing_else(tmp_path):
    others = [".tmpZ9y8X7", ".file.1.tmp", ".other.tmp", ".file.backup.tmp", ".file.00000000-1.tmp"]
    for name in others:
        (tmp_path / name).write_text("a user's")
    file = tmp_path / "file"
    killed = subprocess.run([sys.executable, "-c", WRITES, str(file)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == len(others) + 2
    write_tensors(file, {"a": torch.zeros(3)}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "file"])


@pytest.mark.slow
def test_a_folder_is_cleared_of_what_killed_processes_left_and_of_nothing_else(tmp_path):
    others = [".tmpZ9y8X7", ".file.1.tmp", ".file.00000000-1.tmp", "figure.tmp"]
    for name in others:
        (tmp_path / name).write_text("a user's")
    for name in ("file", "a.b*[x].svg"):
        killed = subprocess.run([sys.executable, "-c", WRITES, str(tmp_path / name)], check=False)
        assert killed.returncode == -signal.SIGKILL
    with atomic_write(tmp_path / "running") as beside:
        remove_leftovers_in(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, beside.name])
    remove_leftovers_in(tmp_path / "missing")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="a process's state is read from Linux's /proc")
def test_a_writer_whose_exit_code_nobody_reads_has_ended(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", WRITES, str(tmp_path / "file")])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie, as orphans do in many containers
    try:
        assert list(tmp_path.iterdir())
        remove_leftovers_in(tmp_path)
        assert not list(tmp_path.iterdir())
    finally:
        dead.wait()


def test_a_file_that_a_running_process_writes_stays(tmp_path):
    with atomic_write(tmp_path / "file") as first:
        remove_leftovers(tmp_path / "file")
        assert first.exists()


def test_a_checkpoint_of_which_anything_changed_is_refused(tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    save_checkpoint(file, {"a": torch.arange(64.0), "b": torch.ones(2, dtype=torch.bfloat16)}, {"step": 123})
    assert read_checkpoint(file)[1] == {"step": 123}
    sound = file.read_bytes()
    for at in (sound.index(b": 123") + 3, len(sound) - 100):
        file.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        with pytest.raises(UserError, match=r"checkpoint\.safetensors is damaged .checksum mismatch.; delete it"):
            read_checkpoint(file)


def test_an_early_checkpoint_without_a_checksum_is_read(tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    write_tensors(file, {"a": torch.arange(64.0)}, {CHECKPOINT_KEY: '{"step": 3}'})
    assert read_checkpoint(file)[1] == {"step": 3}


@pytest.fixture
def replaced_while_it_is_opened(monkeypatch):
    """Let a file be replaced between the reading of its header and of its tensors, as another process may do it."""
    from_file = torch.UntypedStorage.from_file

    def replace_at(path, write):
        def replaced(*args, **kwargs):
            write(path)
            return from_file(*args, **kwargs)

        monkeypatch.setattr(torch.UntypedStorage, "from_file", replaced)

    return replace_at


def test_a_checkpoint_that_is_replaced_while_it_is_opened_is_read_as_it_was(tmp_path, replaced_while_it_is_opened):
    save_checkpoint(tmp_path / "file", {"a": torch.zeros(9)}, {"step": 0})
    replaced_while_it_is_opened(
        tmp_path / "file", lambda file: save_checkpoint(file, {"a": torch.ones(9)}, {"step": 1})
    )
    tensors, about = read_checkpoint(tmp_path / "file")
    assert (tensors["a"].sum(), about["step"]) == (0, 0)
    tensors, about = read_checkpoint(tmp_path / "file")
    assert (tensors["a"].sum(), about["step"]) == (9, 1)


def test_an_encoder_file_that_is_replaced_while_it_is_opened_keeps_its_own_record(
    tmp_path, replaced_while_it_is_opened
):
    encoders = [build_encoder("alexnet?width=0.25&stem_stride=1", input_size=32, seed=seed) for seed in (0, 1)]
    save_encoder(encoders[0], tmp_path / "file", {"task": "first"})
    replaced_while_it_is_opened(tmp_path / "file", lambda file: save_encoder(encoders[1], file, {"task": "second"}))
    for expected, task in zip(encoders, ("first", "second"), strict=True):
        read = load_encoder(tmp_path / "file")
        assert read.record["task"] == task and encoder_digest(read) == encoder_digest(expected)

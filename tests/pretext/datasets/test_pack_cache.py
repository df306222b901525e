"""The cache of packs: several processes at once, what killed ones leave, permissions, and errors that may pass."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import signal
import zlib
from pathlib import Path

import dataset_samples
import pytest
from dataset_samples import one_line
from filelock import FileLock
from PIL import Image, ImageFile

import pretext.datasets.packing
import pretext.system.cache
from pretext.datasets import at_size, open_dataset
from pretext.datasets.base import BadImage
from pretext.datasets.decoding import decode, decode_mask
from pretext.system.cache import locked_entry
from pretext.system.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")
CONTEXT = multiprocessing.get_context("fork")
NAME = "0123456789abcdef" * 2


@pytest.fixture
def spec(tmp_path):
    return dataset_samples.make("folder", tmp_path / "data")


def entries(own_cache):
    return sorted(entry.name for entry in (own_cache / "packs").iterdir())


def run(*targets):
    """Run functions in processes of their own and return their exit codes."""
    processes = [CONTEXT.Process(target=target, args=arguments) for target, *arguments in targets]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def open_each_size(spec, barrier, decoded):
    inner = pretext.datasets.packing._build

    def counted(*args):
        with decoded.get_lock():
            decoded.value += 1
        inner(*args)

    pretext.datasets.packing._build = counted
    data = open_dataset(spec)
    for size in range(8, 28):
        barrier.wait(60)
        assert len(at_size(data, size, bad_images="stop")) == 6


@pytest.mark.slow
def test_processes_that_open_the_same_data_at_once_decode_it_once(spec, own_cache):
    barrier, decoded = CONTEXT.Barrier(3), CONTEXT.Value("i", 0)
    assert run(*[(open_each_size, spec, barrier, decoded)] * 3) == [0, 0, 0]
    assert decoded.value == 20 and len(entries(own_cache)) == 20
    assert not any(name.startswith(".") for name in entries(own_cache))


def test_a_temporary_folder_that_vanishes_while_it_is_looked_at_is_no_error(spec, own_cache, monkeypatch):
    leftover = own_cache / "packs" / f".{NAME}.abcd"
    leftover.mkdir(parents=True)
    inner = Path.iterdir

    def vanishing(self):
        found = list(inner(self))
        if leftover.exists():
            leftover.rmdir()
        return iter(found)

    monkeypatch.setattr(Path, "iterdir", vanishing)
    assert len(at_size(open_dataset(spec), 8, bad_images="stop")) == 6


def die_while_building(spec):
    pretext.datasets.packing._move = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    at_size(open_dataset(spec), 8, bad_images="stop")


@pytest.mark.parametrize("next_size", [8, 9])
def test_what_a_killed_process_leaves_is_deleted_by_the_next(spec, own_cache, next_size):
    assert run((die_while_building, spec)) == [-signal.SIGKILL]
    assert len(entries(own_cache)) == 2  # the lock and the folder
    at_size(open_dataset(spec), next_size, bad_images="stop")
    assert len(entries(own_cache)) == 1 and not entries(own_cache)[0].startswith(".")


def test_a_build_that_takes_days_is_left_alone_and_so_are_the_files_of_others(spec, own_cache):
    folder = own_cache / "packs"
    slow, notes = folder / f".{NAME}.abcd", folder / ".my notes"
    slow.mkdir(parents=True)
    notes.mkdir()
    os.utime(slow, (0, 0))
    os.utime(notes, (0, 0))
    with locked_entry(folder / NAME) as alone:
        assert alone
        at_size(open_dataset(spec), 8, bad_images="stop")
        assert slow.exists() and notes.exists()
    at_size(open_dataset(spec), 9, bad_images="stop")
    assert not slow.exists() and notes.exists()


def test_who_waits_for_another_process_says_so(spec, own_cache, monkeypatch, capfd):
    monkeypatch.setattr(pretext.system.cache, "NOTICE_S", 0.05)
    inner = pretext.datasets.packing._build
    line, said, others = "another process is decoding or checking it; waiting", [], []

    def slow(*args):
        inner(*args)
        other = CONTEXT.Process(target=at_size, args=(open_dataset(spec), 8), kwargs={"bad_images": "stop"})
        others.append(other)
        other.start()
        while other.is_alive() and line not in "".join(said):
            other.join(0.05)
            said.append(capfd.readouterr().err)

    monkeypatch.setattr(pretext.datasets.packing, "_build", slow)
    at_size(open_dataset(spec), 8, bad_images="stop")
    (other,) = others
    other.join(60)
    assert other.exitcode == 0 and len(entries(own_cache)) == 1
    assert f"{spec}: {line}" in "".join(said)


def test_a_file_system_without_locks_still_has_a_cache(spec, own_cache, monkeypatch):
    def none(*_, **__):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", none)
    assert len(at_size(open_dataset(spec), 8, bad_images="stop")) == 6
    assert len(entries(own_cache)) == 1


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o027, 0o750), (0o002, 0o775)])
def test_a_pack_has_the_permissions_that_the_umask_gives(spec, own_cache, umask, mode):
    before = os.umask(umask)
    try:
        at_size(open_dataset(spec), 8, bad_images="stop")
    finally:
        os.umask(before)
    (pack,) = (own_cache / "packs").iterdir()
    assert pack.stat().st_mode & 0o777 == mode
    assert {file.stat().st_mode & 0o777 for file in pack.iterdir()} == {mode & 0o666}


@pytest.mark.parametrize(
    ("number", "says"), [(errno.EACCES, "another user's pack.*chmod"), (errno.EMFILE, "Too many open files")]
)
def test_a_pack_that_cannot_be_read_is_neither_replaced_nor_deleted(spec, own_cache, monkeypatch, number, says):
    at_size(open_dataset(spec), 8, bad_images="stop")
    before = entries(own_cache)
    inner = Path.read_bytes

    def closed(self):
        if self.name == "manifest.json":
            raise OSError(number, os.strerror(number), str(self))
        return inner(self)

    with monkeypatch.context() as patch, pytest.raises(UserError, match=says) as caught:
        patch.setattr(Path, "read_bytes", closed)
        at_size(open_dataset(spec), 8, bad_images="stop")
    one_line(caught)
    assert entries(own_cache) == before


PASSING = [
    OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    OSError(errno.EIO, os.strerror(errno.EIO)),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    OSError(errno.ESTALE, os.strerror(errno.ESTALE)),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
]


@pytest.mark.slow
@pytest.mark.parametrize("error", PASSING, ids=repr)
@pytest.mark.parametrize("where", ["open", "load", "fitted"])
@pytest.mark.parametrize("workers", [False, True])
def test_an_error_that_may_pass_ends_the_packing_and_is_not_stored(spec, own_cache, monkeypatch, error, where, workers):
    def failing(*_, **__):
        raise error

    owner = {"open": Image, "load": ImageFile.ImageFile, "fitted": pretext.datasets.packing}[where]
    if workers:
        monkeypatch.setattr(pretext.datasets.packing, "IN_PROCESS", 0)
    data = open_dataset(spec)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="run the same command again") as caught:
        patch.setattr(owner, where, failing)
        at_size(data, 8, bad_images="skip")
    one_line(caught)
    assert not entries(own_cache)
    whole = at_size(data, 8, bad_images="stop")
    assert len(whole) == 6 and not whole.skipped


@pytest.mark.parametrize("error", PASSING, ids=repr)
@pytest.mark.parametrize("read", [decode, decode_mask])
def test_no_way_to_decode_takes_such_an_error_for_a_broken_file(tmp_path, monkeypatch, error, read):
    Image.new("L", (4, 3)).save(tmp_path / "0.png")

    def failing(*_, **__):
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", failing)
    with pytest.raises(UserError, match=r"0\.png: .*may be sound") as caught:
        read(tmp_path / "0.png")
    one_line(caught)


def test_what_is_wrong_with_the_file_itself_is_still_a_broken_picture(tmp_path):
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    for file in tmp_path.iterdir():
        for read in (decode, decode_mask):
            with pytest.raises(BadImage):
                read(file)


@pytest.mark.parametrize("how", ["(pid 7) is killed by signal: Killed. ", "(pid(s) 7, 8) exited unexpectedly"])
def test_a_worker_that_is_killed_is_one_line(spec, own_cache, monkeypatch, how):
    def killed(*_, **__):
        raise RuntimeError(f"DataLoader worker {how}")

    monkeypatch.setattr(pretext.datasets.packing, "IN_PROCESS", 0)
    monkeypatch.setattr(pretext.datasets.packing, "DataLoader", killed)
    with pytest.raises(UserError, match="was killed, perhaps for want of memory") as caught:
        at_size(open_dataset(spec), 8, bad_images="stop")
    one_line(caught)
    assert not entries(own_cache)


@pytest.mark.parametrize("name", ["images.bin", "label.bin", "manifest.json"])
def test_a_full_disk_names_the_cache_folder(spec, own_cache, monkeypatch, name):
    inner = Path.open

    def full(self, mode="r", *args, **options):
        if self.name == name and "w" in mode:
            self.symlink_to("/dev/full")
        return inner(self, mode, *args, **options)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left") as caught:
        patch.setattr(Path, "open", full)
        at_size(open_dataset(spec), 8, bad_images="stop")
    assert caught.value.filename == str(own_cache / "packs")
    assert not entries(own_cache)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say what a process has mapped")
def test_checking_a_pack_does_not_bring_it_into_memory(tmp_path):
    def mapped():
        return int(re.search(r"RssFile:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])

    images = bytes(range(256)) * (3 * 64 * 64 * 16)  # 50 MB: 4,096 pictures of 64 px
    (tmp_path / "images.bin").write_bytes(images)
    about = {"shape": [4096, 3, 64, 64], "dtype": "uint8", "crc32": zlib.crc32(images)}
    (tmp_path / "manifest.json").write_text(json.dumps({"arrays": {"images": about}, "skipped": []}))
    before = mapped()
    pack = pretext.datasets.packing._opened(tmp_path, check=True)
    assert pack is not None and mapped() - before < 5_000
    assert int(pack.images.sum()) == sum(images) and mapped() - before > 45_000

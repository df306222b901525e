"""What is done once a machine: hashing the data, decoding it, checking a pack in full."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from pathlib import Path

import dataset_samples
import pytest
import torch

import pretext.datasets.fingerprints
import pretext.datasets.packing
from pretext.datasets import at_size, open_dataset
from pretext.datasets.fingerprints import digest_files
from pretext.datasets.twins import equal_pictures

pytestmark = pytest.mark.usefixtures("own_cache")
CONTEXT = multiprocessing.get_context("fork")


def linger():
    """Let what one of several processes does take so long that the others would do it at the same time."""
    if multiprocessing.parent_process() is not None:
        time.sleep(0.1)


@pytest.fixture
def spec(tmp_path, monkeypatch):
    """A folder of pictures, some of them equal, which counts as old enough for the cache."""
    monkeypatch.setattr(pretext.datasets.fingerprints, "SETTLED_NS", -1)
    return dataset_samples.make("folder", tmp_path / "data")


@pytest.fixture
def counted(monkeypatch):
    """Returns the list of what has been read and decoded, by all processes."""
    seen = CONTEXT.Manager().list()
    read, built = pretext.datasets.fingerprints._content, pretext.datasets.packing._build
    checksum = pretext.datasets.packing._crc32

    def counted_read(path, at_most):
        seen.append(f"{Path(path).name} {at_most}")
        linger()
        return read(path, at_most)

    def counted_build(*args):
        seen.append("decoded")
        linger()
        return built(*args)

    def counted_crc32(path):
        seen.append("checked")
        linger()
        return checksum(path)

    monkeypatch.setattr(pretext.datasets.fingerprints, "_content", counted_read)
    monkeypatch.setattr(pretext.datasets.packing, "_build", counted_build)
    monkeypatch.setattr(pretext.datasets.packing, "_crc32", counted_crc32)
    return seen


def opened(spec, barrier=None, ended=None):
    if barrier is not None:
        barrier.wait(60)
    packed = at_size(open_dataset(spec), 8, bad_images="stop")
    assert len(packed) == 6
    if ended is not None:
        ended.append(os.getpid())
    return packed


def together(target, *arguments, count=2):
    ended = CONTEXT.Manager().list()
    barrier = CONTEXT.Barrier(count)
    processes = [CONTEXT.Process(target=target, args=(*arguments, barrier, ended)) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * count and len(ended) == count


@pytest.mark.slow
def test_processes_together_read_decode_and_check_what_one_does(spec, counted, own_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("PRETEXT_CACHE", str(tmp_path / "other"))
    opened(spec)
    alone = Counter(counted)
    files = {file.name for file in (tmp_path / "data" / "train").rglob("*.png")}
    assert {f"{name} None" for name in files} <= set(alone) and alone["decoded"] == 1 and alone["checked"] > 0
    monkeypatch.setenv("PRETEXT_CACHE", str(own_cache))
    counted[:] = []
    together(opened, spec, count=3)
    assert Counter(counted) == alone
    assert not list(own_cache.rglob(".*"))


def test_a_later_start_reads_neither_the_data_nor_the_pack(spec, counted):
    first = opened(spec).images.clone()
    counted[:] = []
    assert torch.equal(opened(spec).images, first)
    assert not list(counted)


def test_a_pack_of_another_machine_is_checked_once(spec, counted, own_cache):
    opened(spec)
    for stored in (own_cache / "checked").iterdir():
        stored.unlink()
    counted[:] = []
    together(opened, spec, count=2)
    (pack,) = (own_cache / "packs").iterdir()
    nonempty = [file for file in pack.glob("*.bin") if file.stat().st_size]
    assert list(counted) == ["checked"] * len(nonempty)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("at", [0, -1])
def test_a_pack_that_was_changed_is_made_again(spec, counted, own_cache, at, hidden):
    expected = opened(spec).images.clone()
    (file,) = own_cache.glob("packs/*/images.bin")
    before, content = file.stat(), bytearray(file.read_bytes())
    content[at] ^= 1
    with file.open("r+b") as stream:
        stream.write(content)
    if hidden:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    counted[:] = []
    assert torch.equal(opened(spec).images, expected)
    assert counted.count("decoded") == 1


def test_a_pack_that_was_only_touched_is_checked_and_kept(spec, counted, own_cache):
    opened(spec)
    (file,) = own_cache.glob("packs/*/images.bin")
    os.utime(file, (1, 1))
    counted[:] = []
    opened(spec)
    assert counted.count("decoded") == 0 and counted.count("checked") > 0
    counted[:] = []
    opened(spec)
    assert not list(counted)


def die_while_hashing(spec):
    pretext.datasets.fingerprints._content = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    open_dataset(spec).fingerprint  # noqa: B018 - computes it


def test_the_lock_of_a_process_killed_while_it_hashed_is_free_and_removed(spec, own_cache):
    process = CONTEXT.Process(target=die_while_hashing, args=(spec,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert [entry.name for entry in own_cache.rglob(".*.lock")]
    opened(spec)
    assert not list(own_cache.rglob(".*"))


@pytest.mark.parametrize("processes", [1, 2])
def test_files_just_written_are_remembered_where_several_processes_share_them(
    own_cache, tmp_path, monkeypatch, processes
):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    monkeypatch.setattr(pretext.datasets.fingerprints, "SETTLED_NS", 300_000_000)
    (tmp_path / "new").mkdir()
    files = [tmp_path / "new" / name for name in "ab"]
    for file in files:
        file.write_bytes(b"equal")
    digest_files(tmp_path / "new", map(str, files))
    equal_pictures(open_splits_of(files))
    stored = [len(list((own_cache / purpose).iterdir())) for purpose in ("fingerprints", "twins")]
    assert stored == [processes - 1] * 2


def open_splits_of(files):
    from pretext.datasets.files import FileDataset

    return {"train": FileDataset(root=files[0].parent, images=[str(file) for file in files])}


def test_only_the_first_process_of_a_machine_says_that_it_waits(own_cache, monkeypatch, capfd):
    from pretext.system import cache

    monkeypatch.setattr(cache, "NOTICE_S", 0.01)
    folder = own_cache / "entry"
    own_cache.mkdir()
    said = {}
    for local in "01":
        monkeypatch.setenv("LOCAL_RANK", local)
        context = cache.locked_entry(folder)
        assert context.__enter__()
        waiting = CONTEXT.Process(target=wait_for, args=(folder,))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        context.__exit__(None, None, None)
        waiting.join(60)
        said[local] = capfd.readouterr().err
    assert said == {"0": "data: another process is hashing it; waiting\n", "1": ""}


def wait_for(folder):
    from pretext.system.cache import locked_entry

    with locked_entry(folder, waiting_for="data", work="hashing"):
        pass

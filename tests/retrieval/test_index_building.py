"""Building an index block by block: interruption, resumption, the lock, memory, and a full disk."""

from __future__ import annotations

import errno
import multiprocessing
import resource
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pytest
from index_samples import SIZE, SPEC, Killed, build, contents, make_encoder, opened, photographs, stop_at

from pretext.datasets import ImageDataset, at_size, open_dataset
from pretext.encoders import Encoder, save_encoder
from pretext.system.errors import UserError
from retrieval.__main__ import main
from retrieval.indexing.blocks import discard, locked, sample_vectors
from retrieval.indexing.index import PatchIndex
from retrieval.patches import describe_regions
from retrieval.regions import Regions


@pytest.mark.slow
@pytest.mark.parametrize("factory", ["Flat", "PCAW8,L2norm,IVF16_HNSW32,SQfp16"])
@pytest.mark.parametrize(
    ("where", "call"),
    [
        ("retrieval.indexing.blocks._encode_block", 0),
        ("retrieval.indexing.blocks._encode_block", 3),
        ("retrieval.indexing.blocks.np.savez", 2),
        ("retrieval.indexing.building.make_vectors", 0),
        ("retrieval.indexing.building._write_tables", 0),
        ("retrieval.indexing.building.move_into_place", 0),
    ],
)
def test_it_goes_on_from_the_last_block_to_the_same_bytes(
    encoder: Encoder,
    data: ImageDataset,
    tmp_path: Path,
    small_blocks: None,
    factory: str,
    where: str,
    call: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build(encoder, data, Regions(), tmp_path / "whole", factory=factory)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        stop_at(patch, where, call)
        build(encoder, data, Regions(), tmp_path / "index", factory=factory)
    assert not (tmp_path / "index").exists()
    done = sorted(file.name for file in (tmp_path / "index.blocks").glob("*.npz"))
    assert len(done) == (call if "blocks" in where else 6)
    again: list[int] = []
    encoded = resolve_name("retrieval.indexing.blocks._encode_block")
    monkeypatch.setattr(
        "retrieval.indexing.blocks._encode_block", lambda *args: again.append(args[3]) or encoded(*args)
    )
    build(encoder, data, Regions(), tmp_path / "index", factory=factory)
    assert len(again) == 6 - len(done)  # 360 rows; a block is full at its seventh picture of 9 rows
    assert contents(tmp_path / "index") == contents(tmp_path / "whole")
    assert not (tmp_path / "index.blocks").exists()


@pytest.mark.parametrize("call", [0, 1])
@pytest.mark.parametrize("grown", [False, True])
def test_a_move_that_is_cut_off_loses_neither_index(
    encoder: Encoder, tmp_path: Path, call: int, grown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photographs(tmp_path / "photos", range(12))
    out, old = tmp_path / "index", Regions(mode="images")
    build(encoder, opened(folder), old, out, split="all")
    before = contents(out)
    photographs(folder, range(12, 15))
    options = {"split": "all"} | ({"add": True} if grown else {"overwrite": True})
    rename = Path.rename
    moves = iter(range(100))

    def dying(self: Path, target: Path) -> Path:
        if (self == out or self.name == "finished") and next(moves) == call:
            raise Killed
        return rename(self, target)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "rename", dying)
        build(encoder, opened(folder), old, out, **options)
    assert contents(out if call == 0 else tmp_path / "index.blocks" / "old") == before
    build(encoder, opened(folder), old, out, **options)
    assert len(PatchIndex.open(out).table) == 15
    assert not (tmp_path / "index.blocks").exists()


CHILD = """
import os, signal, sys
import retrieval.indexing.blocks, retrieval.__main__
retrieval.indexing.blocks.ROWS = 60
savez, left = retrieval.indexing.blocks.np.savez, [3]
def dying(file, **arrays):
    left[0] -= 1
    if not left[0]:
        file.write(b"half a block")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    savez(file, **arrays)
retrieval.indexing.blocks.np.savez = dying
retrieval.__main__.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_process_leaves_whole_blocks_alone(
    encoder: Encoder, tmp_path: Path, small_blocks: None, capsys: pytest.CaptureFixture[str]
) -> None:
    save_encoder(encoder, tmp_path / "encoder.safetensors", {})
    argv = ["index", "--encoder", str(tmp_path / "encoder.safetensors"), "--data", SPEC, "--split", "train", "--out"]
    child = subprocess.run([sys.executable, "-c", CHILD, *argv, str(tmp_path / "index")], check=False)
    assert child.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "index.blocks").glob("*.npz"))) == 2
    assert main([*argv, str(tmp_path / "index")]) == 0
    assert "continues at picture 15 of 40" in capsys.readouterr().err
    assert main([*argv, str(tmp_path / "whole")]) == 0
    assert contents(tmp_path / "index") == contents(tmp_path / "whole")
    assert not (tmp_path / "index.blocks").exists()


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "remove", "method"])
def test_a_damaged_block_is_computed_again(
    encoder: Encoder, data: ImageDataset, grid_folder: Path, tmp_path: Path, small_blocks: None, harm: str
) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        stop_at(patch, "retrieval.indexing.building.make_vectors", 0)
        build(encoder, data, Regions(), tmp_path / "index")
    block = tmp_path / "index.blocks" / "000002.npz"
    content = bytearray(block.read_bytes())
    content[len(content) // 2] ^= 1
    block.write_bytes({"cut": content[: len(content) // 2], "flip": content}.get(harm, b""))
    if harm == "remove":
        block.unlink()
    if harm == "method":  # one that Python's zipfile does not know
        content[content.index(b"PK\1\2") + 10] = 0xFE
        block.write_bytes(content)
    build(encoder, data, Regions(), tmp_path / "index")
    assert contents(tmp_path / "index") == contents(grid_folder)


def test_blocks_of_something_else_are_not_mixed_in(encoder: Encoder, data: ImageDataset, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        stop_at(patch, "retrieval.indexing.building.make_vectors", 0)
        build(encoder, data, Regions(), tmp_path / "index")
    begun = tmp_path / "index.blocks"
    for options, word in (({"stage": "conv3"}, "stage"), ({"bad_images": "skip"}, "bad_images")):
        with pytest.raises(UserError, match=f"begun with another {word}"):
            build(encoder, data, Regions(), tmp_path / "index", **options)
    with pytest.raises(UserError, match="begun with another encoder_sha256"):
        build(make_encoder(seed=1), data, Regions(), tmp_path / "index")
    assert (begun / "000000.npz").is_file()
    # Another factory or PCA uses the same blocks.
    build(encoder, data, Regions(), tmp_path / "index", factory="IVF4,Flat", pca=8)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        stop_at(patch, "retrieval.indexing.building.make_vectors", 0)
        build(encoder, data, Regions(), tmp_path / "other")
    other = build(make_encoder(seed=1), data, Regions(), tmp_path / "other", overwrite=True)
    expected, _ = describe_regions(make_encoder(seed=1), data, Regions(), stage="pool5", bad_images="stop")
    np.testing.assert_allclose(other.vectors.reconstruct_n(0, len(expected)), expected, atol=1e-6)


def test_one_process_at_a_time_makes_an_index(encoder: Encoder, data: ImageDataset, tmp_path: Path) -> None:
    def second(*args: object, **kwargs: object) -> object:
        with pytest.raises(UserError, match="another process is making this index"):
            build(encoder, data, Regions(mode="images"), tmp_path / "index")
        raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr("retrieval.indexing.building.encode_blocks", second)
        build(encoder, data, Regions(mode="images"), tmp_path / "index")
    build(encoder, data, Regions(mode="images"), tmp_path / "index")


HOLDER = """
import sys, time
from pathlib import Path
from retrieval.indexing.blocks import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_the_lock_of_another_process_holds_until_it_dies(tmp_path: Path) -> None:
    folder = tmp_path / "index.blocks"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "locked\n"
            with pytest.raises(UserError, match="another process is making this index"), locked(folder):
                raise AssertionError("two processes hold the lock")
            assert (folder / "lock").is_file()
        finally:
            child.kill()
    with locked(folder):
        assert [file.name for file in folder.iterdir()] == ["lock"]
    assert not folder.exists()


def test_a_discarded_folder_stays_locked(tmp_path: Path) -> None:
    folder = tmp_path / "index.blocks"
    with locked(folder):
        (folder / "000000.npz").write_bytes(b"block")
        (folder / "old").mkdir()
        discard(folder)
        with pytest.raises(UserError, match="another process is making this index"), locked(folder):
            raise AssertionError("two processes hold the lock")
    assert not folder.exists()


def test_a_folder_of_the_users_is_not_taken_for_blocks(encoder: Encoder, data: ImageDataset, tmp_path: Path) -> None:
    (tmp_path / "index.blocks").mkdir()
    (tmp_path / "index.blocks" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds files that this command did not write"):
        build(encoder, data, Regions(mode="images"), tmp_path / "index", overwrite=True)
    assert (tmp_path / "index.blocks" / "mine.txt").read_text() == "mine"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_pictures(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.indexing.blocks.ROWS", 128)
    monkeypatch.setenv("PRETEXT_PACK_GB", "0")
    peaks, held = [], 0
    for count in (40, 40, 160):  # the first run also allocates imports
        data = at_size(open_dataset(f"scenes?train={count}&val=12&test=16&size={SIZE}"), SIZE, bad_images="stop")
        assert data.fingerprint
        tracemalloc.start()
        built = build(encoder, data, Regions(pool=4), tmp_path / f"{len(peaks)}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        held = built.vectors.ntotal * built.vectors.d * 4
    assert held > 1_400_000  # memory of FAISS is not traced
    assert peaks[2] - peaks[1] < 0.2 * held


def test_the_sample_is_drawn_from_all_blocks_alike(encoder: Encoder, data: ImageDataset, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr("retrieval.indexing.blocks.ROWS", 60)
        stop_at(patch, "retrieval.indexing.building.make_vectors", 0)
        build(encoder, data, Regions(), tmp_path / "index")
    working = tmp_path / "index.blocks"
    every, _ = describe_regions(encoder, data, Regions(), stage="pool5", bad_images="stop")
    np.testing.assert_allclose(sample_vectors(working, 360, 360), every, atol=1e-6)
    part = sample_vectors(working, 360, 90)
    assert np.array_equal(part, sample_vectors(working, 360, 90))
    rows = (part @ every.T).argmax(axis=1)
    assert len(set(rows.tolist())) == 90
    assert (np.histogram(rows, bins=6, range=(0, 360))[0] >= 5).all()


def test_what_is_there_is_not_overwritten_silently(
    saved: Path, encoder: Encoder, data: ImageDataset, tmp_path: Path
) -> None:
    before = contents(saved)
    with pytest.raises(UserError, match="--overwrite"):
        build(encoder, data, Regions(mode="images"), saved)
    assert contents(saved) == before
    build(encoder, data, Regions(mode="images"), saved, overwrite=True)
    assert PatchIndex.open(saved).manifest.regions.mode == "images"
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.txt").write_text("mine")
    for how in ("overwrite", "add"):
        with pytest.raises(UserError, match="files other than an index"):
            build(encoder, data, Regions(mode="images"), photos, **{how: True})
    assert contents(photos) == {"a.txt": b"mine"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "photos"]


def no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "where", ["retrieval.indexing.blocks.np.savez", "retrieval.indexing.building.write_array_header_1_0"]
)
def test_a_full_disk_leaves_the_index_that_was_there(
    saved: Path, encoder: Encoder, data: ImageDataset, where: str
) -> None:
    before = contents(saved)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(where, no_space)
        build(encoder, data, Regions(), saved, overwrite=True)
    assert contents(saved) == before
    assert build(encoder, data, Regions(), saved, overwrite=True).manifest == PatchIndex.open(saved).manifest
    assert contents(saved) == before


@pytest.mark.parametrize("name", ["index.faiss", "patches.npy", "pictures.npy", "manifest.json"])
@pytest.mark.parametrize("add", [False, True])
def test_a_disk_that_is_full_when_the_index_is_written_names_the_folder(
    saved: Path, encoder: Encoder, data: ImageDataset, name: str, add: bool
) -> None:
    before, inner = contents(saved), Path.open

    def full(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if self.name == name and "w" in mode:
            self.symlink_to("/dev/full")
        return inner(self, mode, *args, **options)  # type: ignore[call-overload]

    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="No space left") as caught:
        patch.setattr(Path, "open", full)
        build(encoder, data, Regions(), saved, overwrite=not add, add=add)
    assert caught.value.filename == str(saved.with_name("index.blocks"))
    assert contents(saved) == before


def test_no_file_is_written_through_a_memory_map(saved: Path, encoder: Encoder, data: ImageDataset) -> None:
    """The system kills a process that writes to a map of a file when the disk is full."""
    modes: list[str] = []
    inner = np.memmap.__new__

    def seen(kind: Any, name: Any, dtype: Any = np.uint8, mode: str = "r+", *args: Any, **options: Any) -> Any:
        modes.append(mode)
        return inner(kind, name, dtype, mode, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.memmap, "__new__", seen)
        build(encoder, data, Regions(), saved, overwrite=True)
        build(encoder, data, Regions(), saved, add=True)
    assert modes and set(modes) <= {"r", "c"}


def build_within(limit: int, encoder: Encoder, data: ImageDataset, out: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        build(encoder, data, Regions(), out)
    except OSError as error:
        sys.exit(2 if str(out) in str(error.filename) and error.errno == errno.EFBIG else 1)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_files_that_may_not_grow_end_a_build_with_an_error_and_it_can_go_on(
    encoder: Encoder, data: ImageDataset, grid_folder: Path, tmp_path: Path, small_blocks: None, share: float
) -> None:
    limit = int(share * (grid_folder / "index.faiss").stat().st_size)
    # started anew: a process forked from one that has run threads may wait for ever for their locks
    process = multiprocessing.get_context("spawn").Process(
        target=build_within, args=(limit, encoder, data, tmp_path / "index")
    )
    process.start()
    process.join(120)
    assert process.exitcode == 2 and not (tmp_path / "index").exists()
    build(encoder, data, Regions(), tmp_path / "index")
    assert contents(tmp_path / "index") == contents(grid_folder)


def test_blocks_that_a_killed_process_was_removing_do_not_stay(
    encoder: Encoder, data: ImageDataset, tmp_path: Path
) -> None:
    out, working = tmp_path / "index", tmp_path / "index.blocks"
    build(encoder, data, Regions(mode="images"), out)
    working.mkdir()
    (working / "000000.npz").touch()
    with pytest.raises(UserError, match="already holds an index"):
        build(encoder, data, Regions(mode="images"), out)
    assert not working.exists()

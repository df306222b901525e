"""A process that is killed while it moves a finished index into its place: the next one completes or takes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from index_samples import Killed, contents, photographs

import retrieval.indexing.building as building
import retrieval.indexing.index as index
from pretext.encoders import Encoder, save_encoder
from pretext.system.errors import UserError
from retrieval.__main__ import main
from retrieval.indexing.blocks import locked
from retrieval.indexing.index import PatchIndex
from retrieval.searcher import Searchable

STEPS = 4
"""Renames and deletions of a move that replaces nothing: settings, index, two blocks."""


@pytest.fixture
def argv(encoder: Encoder, tmp_path: Path) -> list[str]:
    """The command line that makes an index of 12 pictures."""
    save_encoder(encoder, tmp_path / "encoder.safetensors", {})
    spec = f"folder:{photographs(tmp_path / 'photos', range(12))}"
    words = ["--encoder", str(tmp_path / "encoder.safetensors"), "--data", spec, "--mode", "images"]
    return ["index", *words, "--out", str(tmp_path / "index")]


def killed_in_the_move(argv: list[str], call: int) -> None:
    """Run a command that dies at one of the renames and deletions of its move, counted from 0."""
    move: Callable[[Path, Path], None] = building.move_into_place

    def dying(folder: Path, out: Path) -> None:
        calls = iter(range(100))

        def step(name: str) -> Callable[..., object]:
            original = getattr(Path, name)

            def counted(self: Path, *rest: object, **options: object) -> object:
                if next(calls) == call:
                    raise Killed
                return original(self, *rest, **options)

            return counted

        with pytest.MonkeyPatch.context() as patch:
            for name in ("rename", "unlink"):
                patch.setattr(Path, name, step(name))
            move(folder, out)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(building, "move_into_place", dying)
        patch.setattr("retrieval.indexing.blocks.ROWS", 6)
        main(argv)


def once_more(argv: list[str]) -> None:
    with pytest.raises(UserError, match="already holds an index"):
        main(argv)


def add(argv: list[str]) -> None:
    main([*argv, "--add"])


def search(argv: list[str]) -> None:
    Searchable.open(Path(argv[-1]))


@pytest.mark.parametrize("call", range(1, STEPS))
@pytest.mark.parametrize("start", [once_more, add, search])
def test_a_finished_index_leaves_nothing_beside_it(
    argv: list[str], tmp_path: Path, call: int, start: Callable[[list[str]], None]
) -> None:
    main([*argv[:-1], str(tmp_path / "whole")])
    killed_in_the_move(argv, call)
    assert (tmp_path / "index.blocks").is_dir()
    start(argv)
    assert not (tmp_path / "index.blocks").exists()
    assert contents(tmp_path / "index") == contents(tmp_path / "whole")


def test_before_the_move_the_blocks_stay_for_the_next_build(argv: list[str], tmp_path: Path) -> None:
    killed_in_the_move(argv, 0)
    with pytest.raises(UserError, match="index does not exist"):
        search(argv)
    assert len(list((tmp_path / "index.blocks").glob("*.npz"))) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retrieval.indexing.blocks._encode_block", lambda *rest: pytest.fail("computed again"))
        main(argv)
    assert [file.name for file in tmp_path.iterdir() if "index" in file.name] == ["index"]


@pytest.mark.parametrize(("call", "pictures"), [(0, 12), (1, 12), (2, 15), (3, 15)])
def test_an_index_that_is_replaced_is_the_old_one_or_the_new_one(
    argv: list[str], tmp_path: Path, call: int, pictures: int
) -> None:
    main(argv)
    old = contents(tmp_path / "index")
    photographs(tmp_path / "photos", range(12, 15))
    killed_in_the_move([*argv, "--overwrite"], call)
    if pictures == 12:  # the data has grown since then
        with pytest.raises(UserError, match="differs from the indexed one"):
            search(argv)
        assert contents(tmp_path / "index") == old
    else:
        search(argv)
        assert not (tmp_path / "index.blocks").exists()
    assert len(PatchIndex.open(tmp_path / "index").table) == pictures


def test_a_search_does_not_wait_for_a_build(argv: list[str], tmp_path: Path) -> None:
    main(argv)
    with locked(tmp_path / "index.blocks"):
        (tmp_path / "index.blocks" / "000000.npz").touch()
        search(argv)
        assert (tmp_path / "index.blocks" / "000000.npz").is_file()
        (tmp_path / "index.blocks" / "000000.npz").unlink()


@pytest.mark.parametrize("step", ["file_sha256", "read_vectors"])
def test_an_index_that_is_replaced_while_it_is_opened_is_the_new_one(
    step: str, argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, old, new = (tmp_path / name for name in ("index", "old", "new"))
    for split, place in (("train", old), ("all", new)):
        assert main([*argv, "--split", split]) == 0
        out.rename(place)
    old.rename(out)
    original = getattr(index, step)

    def replace(path: Path) -> object:
        if new.exists():  # as the last step of a build
            out.rename(old)
            new.rename(out)
        return original(path)

    monkeypatch.setattr(index, step, replace)
    opened = PatchIndex.open(out)
    assert opened.manifest.split == "all" and len(opened.table) == opened.vectors.ntotal == 12


def test_what_lies_beside_an_index_and_is_not_ours_stays(argv: list[str], tmp_path: Path) -> None:
    main(argv)
    (tmp_path / "index.blocks").mkdir()
    (tmp_path / "index.blocks" / "mine.txt").write_text("mine")
    search(argv)
    assert (tmp_path / "index.blocks" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("name", [".", ".."])
def test_the_folder_that_would_hold_the_index_is_refused(
    argv: list[str], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(UserError, match="give --out a name, such as index"):
        main([*argv[:-1], name])

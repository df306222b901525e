"""Adding the new pictures of a data set to its index."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
import torch
from index_samples import Killed, build, contents, make_encoder, opened, photographs, stop_at
from PIL import Image

from pretext.datasets import ImageDataset
from pretext.encoders import Encoder
from pretext.system.errors import UserError
from retrieval.indexing.index import PatchIndex
from retrieval.patches import describe_regions
from retrieval.regions import Regions


def answers(index: PatchIndex, data: ImageDataset, encoder: Encoder) -> list[list[tuple[float, ...]]]:
    """Return the table row of the nearest region for every region of the data."""
    vectors, _ = describe_regions(encoder, data, index.manifest.regions, stage="pool5", bad_images="skip")
    _, rows = index.search(vectors, 1, encoder=encoder)
    return index.table[rows[:, 0]].tolist()


@pytest.mark.parametrize("factory", ["Flat", "IVF4_HNSW32,SQfp16"])
@pytest.mark.parametrize("pca", [None, 8])
def test_an_index_grows_with_its_folder(
    encoder: Encoder, tmp_path: Path, factory: str, pca: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photographs(tmp_path / "photos", range(10, 24))
    options = {"split": "all", "factory": factory, "pca": pca}
    build(encoder, opened(folder), Regions(grid=2), tmp_path / "index", **options)
    photographs(folder, range(5))  # sort before the others and shift their numbers
    photographs(folder, range(30, 33))
    shutil.copy(folder / "012.png", folder / "040.png")  # a second copy of a known picture
    grown, encoded = opened(folder), []
    described = resolve_name("retrieval.patches.describe_batches")

    def counted(encoder: Encoder, pictures: Iterator[tuple[object, np.ndarray]], *rest: object) -> object:
        return described(encoder, (encoded.append(each[1]["image"][0]) or each for each in pictures), *rest)

    monkeypatch.setattr("retrieval.indexing.blocks.describe_batches", counted)
    added = build(encoder, grown, Regions(grid=2), tmp_path / "index", **(options | {"add": True}))
    assert len(encoded) == 5 + 3 + 1
    whole = build(encoder, grown, Regions(grid=2), tmp_path / "whole", **options)
    assert sorted(added.table.tolist()) == sorted(whole.table.tolist())
    for found, expected in zip(answers(added, grown, encoder), whole.table.tolist(), strict=True):
        assert found[1:] == expected[1:]
        assert torch.equal(grown[found[0]][0], grown[expected[0]][0])  # one picture occurs twice
    assert PatchIndex.open(tmp_path / "index").manifest == added.manifest
    assert added.manifest.data_fingerprint == grown.fingerprint
    assert contents(tmp_path / "index")["pictures.npy"] == contents(tmp_path / "whole")["pictures.npy"]


def test_growth_goes_on_from_the_last_block(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.indexing.blocks.PICTURES", 4)
    folder, regions = photographs(tmp_path / "photos", range(8)), Regions(mode="images")
    build(encoder, opened(folder), regions, tmp_path / "index", split="all")
    shutil.copytree(tmp_path / "index", tmp_path / "whole")
    photographs(folder, range(8, 20))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        stop_at(patch, "retrieval.indexing.blocks._encode_block", 3)
        build(encoder, opened(folder), regions, tmp_path / "index", split="all", add=True)
    assert len(PatchIndex.open(tmp_path / "index").table) == 8
    for name in ("index", "whole"):
        build(encoder, opened(folder), regions, tmp_path / name, split="all", add=True)
    assert contents(tmp_path / "index") == contents(tmp_path / "whole")


def test_growth_that_was_cut_off_does_not_bar_the_way(encoder: Encoder, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos", range(8))
    options = {"split": "all", "add": True}
    build(encoder, opened(folder), Regions(mode="images"), tmp_path / "index", **options)
    photographs(folder, range(8, 10))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        stop_at(patch, "retrieval.indexing.building._write_tables", 0)
        build(encoder, opened(folder), Regions(mode="images"), tmp_path / "index", **options)
    photographs(folder, range(10, 13))  # more pictures appear before the next call
    grown = build(encoder, opened(folder), Regions(mode="images"), tmp_path / "index", **options)
    assert len(grown.table) == 13
    assert [row[0] for row in answers(grown, opened(folder), encoder)] == list(range(13))
    assert not (tmp_path / "index.blocks").exists()


def test_nothing_new_changes_nothing(encoder: Encoder, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos", range(8))
    for _ in range(2):  # --add also makes a missing index
        build(encoder, opened(folder), Regions(mode="images"), tmp_path / "index", split="all", add=True)
        before = contents(tmp_path / "index")
    assert contents(tmp_path / "index") == before


def test_pictures_that_cannot_be_read_are_no_growth(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRETEXT_PACK_GB", "0")  # without a pack, unreadable pictures keep their numbers
    folder = photographs(tmp_path / "photos", range(8))
    for name in ("0a.png", "003a.png"):
        (folder / name).write_bytes(b"no picture")
    options = {"split": "all", "bad_images": "skip"}
    built = build(encoder, opened(folder, "skip"), Regions(mode="images"), tmp_path / "index", **options)
    assert capsys.readouterr().err.count("skipped") == 2
    assert len(built.table) == 8
    photographs(folder, range(8, 10))
    grown = opened(folder, "skip")
    added = build(encoder, grown, Regions(mode="images"), tmp_path / "index", **options, add=True)
    assert len(added.table) == 10
    for image in added.table["image"]:
        assert len(grown[int(image)]) == 2  # can be decoded


@pytest.mark.parametrize(
    ("change", "options", "word"),
    [
        ("remove", {}, r"lacks 1 of the 8 pictures"),
        ("repaint", {}, r"lacks 1 of the 8 pictures"),
        (None, {"stage": "conv3"}, "made with another stage"),
        (None, {"factory": "IVF2,Flat"}, "made with another factory"),
        (None, {"pca": 4}, "made with another factory"),
        (None, {"overwrite": True}, "give one of them"),
    ],
)
def test_an_index_that_cannot_grow_is_left_alone(
    encoder: Encoder, tmp_path: Path, change: str | None, options: dict[str, object], word: str
) -> None:
    folder = photographs(tmp_path / "photos", range(8))
    build(encoder, opened(folder), Regions(mode="images"), tmp_path / "index", split="all")
    before = contents(tmp_path / "index")
    photographs(folder, range(8, 10))
    if change == "remove":
        (folder / "002.png").unlink()
    elif change == "repaint":
        Image.new("RGB", (40, 40), "red").save(folder / "002.png")
    given = {"split": "all", "add": True} | options
    with pytest.raises(UserError, match=word):
        build(encoder, opened(folder), Regions(mode="images"), tmp_path / "index", **given)
    with pytest.raises(UserError, match="made with another encoder"):
        build(make_encoder(1), opened(folder), Regions(mode="images"), tmp_path / "index", split="all", add=True)
    assert contents(tmp_path / "index") == before
    assert not (tmp_path / "index.blocks").exists()

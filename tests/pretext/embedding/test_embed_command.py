"""`python -m pretext embed`: what is in its files, bad input, and interruptions."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from embedding_samples import embed, maps_of, stored, write_encoder, write_pictures

from pretext.datasets.classification import class_names_of
from pretext.embedding import encoding, parts
from pretext.encoders import load_encoder
from pretext.system.errors import UserError


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder") / "encoder.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture
def given(encoder, folder, tmp_path):
    return ["--encoder", encoder, "--data", f"folder:{folder}", "--device", "cpu", "--out", tmp_path / "out.npz"]


def quarters(maps):
    """The means of the four quarters of each channel, row by row."""
    halves = [np.split(each, 2, axis=0) for each in maps]
    return np.array([[part.mean() for half in two for part in np.split(half, 2, axis=1)] for two in halves]).ravel()


@pytest.mark.parametrize(
    ("stage", "pool", "oracle"),
    [
        (None, "mean", lambda maps: maps.mean(axis=(1, 2))),
        ("conv1", "max", lambda maps: maps.reshape(len(maps), -1).max(axis=1)),
        ("conv1", "2", quarters),
    ],
)  # fmt: skip
def test_a_row_is_a_pictures_path_split_class_and_pooled_map(given, encoder, folder, tmp_path, stage, pool, oracle):
    assert embed(*given, "--pool", pool, *(["--stage", stage] if stage else [])) == 0
    rows = stored(tmp_path / "out.npz")
    assert sorted(rows) == ["about", "label", "path", "split", "vector"]
    assert sorted(rows["path"].tolist()) == sorted(str(file) for file in folder.rglob("*.png"))
    assert len(rows["path"]) == 28 and rows["vector"].dtype == np.float32
    about = json.loads(str(rows["about"]))
    deepest = load_encoder(encoder).stages[-1].name
    assert (about["stage"], about["pool"], about["precision"]) == (stage or deepest, pool, "float32")
    assert (about["pictures"], about["left_out"], about["dimensions"]) == (28, 0, rows["vector"].shape[1])
    for number in (0, 13, 27):
        file = Path(rows["path"][number])
        assert (rows["split"][number], rows["label"][number]) == (file.parts[-3], file.parts[-2])
        expected = oracle(maps_of(encoder, file, stage or deepest))
        np.testing.assert_allclose(rows["vector"][number], expected, atol=1e-5)


def test_a_parquet_file_holds_the_same_as_an_npz_file(given, tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    monkeypatch.setattr(parts, "PICTURES", 8)
    embed(*given, "--batch-size", 8)
    embed(*given[:-1], tmp_path / "out.parquet", "--batch-size", 8)
    rows = stored(tmp_path / "out.npz")
    table = pyarrow.read_table(tmp_path / "out.parquet")
    for name in ("path", "split", "label"):
        assert table[name].to_pylist() == rows[name].tolist()
    assert str(table.schema.field("vector").type) == f"fixed_size_list<element: float>[{rows['vector'].shape[1]}]"
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), rows["vector"])
    assert json.loads(table.schema.metadata[b"about"]) == json.loads(str(rows["about"]))
    assert pyarrow.ParquetFile(tmp_path / "out.parquet").num_row_groups == 4


@pytest.mark.parametrize("flags", [["--workers", 0], ["--workers", 3]])
def test_who_decodes_makes_no_difference(given, tmp_path, flags):
    embed(*given)
    before = (tmp_path / "out.npz").read_bytes()
    embed(*given, "--overwrite", *flags)
    assert (tmp_path / "out.npz").read_bytes() == before


@pytest.mark.parametrize(("split", "limit", "rows"), [("test", None, 4), ("train", 6, 6), ("all", 3, 9)])
def test_splits_and_limits(given, tmp_path, split, limit, rows):
    embed(*given, "--split", split, *(["--limit", limit] if limit else []))
    found = stored(tmp_path / "out.npz")
    assert len(found["vector"]) == rows
    assert set(found["split"]) == ({"train", "val", "test"} if split == "all" else {split})


def interrupted(monkeypatch, after):
    """Let the encoder fail after some batches, as a killed process would."""
    real, calls = encoding.stage_maps, []

    def failing(*args):
        calls.append(args)
        if len(calls) > after:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(parts, "stage_maps", failing)
    return calls


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_an_interrupted_command_continues_to_the_same_bytes(given, tmp_path, monkeypatch, suffix, capsys):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    monkeypatch.setattr(parts, "PICTURES", 8)
    out = tmp_path / f"out{suffix}"
    command = [*given[:-1], out, "--batch-size", 4, "--map", tmp_path / "map.html"]
    embed(*command)
    whole, page = out.read_bytes(), (tmp_path / "map.html").read_bytes()
    out.unlink()
    (tmp_path / "map.html").unlink()
    with monkeypatch.context() as patch:
        interrupted(patch, after=5)
        with pytest.raises(KeyboardInterrupt):
            embed(*command)
    beside = tmp_path / f"out{suffix}.parts"
    assert not out.exists() and sorted(file.name for file in beside.glob("*.npz")) == ["000000.npz", "000001.npz"]
    with pytest.raises(UserError, match="begun with another pool; repeat the first command, or start again"):
        embed(*command, "--pool", "max")
    calls = interrupted(monkeypatch, after=99)
    embed(*command)
    assert "continues at picture 17 of 28" in capsys.readouterr().err
    assert len(calls) == 3  # 12 pictures
    assert out.read_bytes() == whole and (tmp_path / "map.html").read_bytes() == page
    assert not beside.exists()


def test_a_damaged_part_is_made_again(given, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PICTURES", 8)
    command = [*given, "--batch-size", 4]
    embed(*command)
    whole = (tmp_path / "out.npz").read_bytes()
    (tmp_path / "out.npz").unlink()
    with monkeypatch.context() as patch:
        interrupted(patch, after=6)
        with pytest.raises(KeyboardInterrupt):
            embed(*command)
    part = tmp_path / "out.npz.parts" / "000001.npz"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    calls = interrupted(monkeypatch, after=99)
    embed(*command)
    assert len(calls) == 5 and (tmp_path / "out.npz").read_bytes() == whole


def test_work_that_was_begun_is_replaced_when_asked_and_files_are_not_by_accident(given, tmp_path):
    embed(*given)
    before = (tmp_path / "out.npz").read_bytes()
    with pytest.raises(UserError, match=r"out\.npz exists; give --overwrite to replace it"):
        embed(*given, "--pool", "max")
    assert (tmp_path / "out.npz").read_bytes() == before and not (tmp_path / "out.npz.parts").exists()
    embed(*given, "--pool", "max", "--overwrite")
    assert (tmp_path / "out.npz").read_bytes() != before
    (tmp_path / "out.npz").unlink()
    (tmp_path / "out.npz.parts").mkdir()
    (tmp_path / "out.npz.parts" / "mine.npz").touch()
    with pytest.raises(UserError, match="holds files that this command did not write"):
        embed(*given)
    assert (tmp_path / "out.npz.parts" / "mine.npz").exists()


def test_pictures_that_cannot_be_decoded_are_left_out_or_end_it(encoder, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(parts, "PICTURES", 8)
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    broken = sorted((data / "train" / "a").iterdir())[3]
    broken.write_text("no picture")
    given = ["--encoder", encoder, "--data", f"folder:{data}", "--out", tmp_path / "out.npz", "--batch-size", 8]
    embed(*given)
    rows = stored(tmp_path / "out.npz")
    assert len(rows["path"]) == 27 and str(broken) not in rows["path"]
    assert json.loads(str(rows["about"]))["left_out"] == 1
    assert f"left out 1 of 28 pictures that cannot be decoded: {broken}: not a picture" in capsys.readouterr().out
    with pytest.raises(UserError, match=f"{broken.name}: .*; --bad-images skip leaves such pictures out"):
        embed(*given, "--overwrite", "--bad-images", "stop")
    for file in data.rglob("*.png"):
        file.write_text("no picture")
    with pytest.raises(UserError, match="no picture can be decoded"):
        embed(*given, "--overwrite")
    assert not (tmp_path / "out.npz.parts").exists()


def test_pictures_of_several_classes_and_pictures_without_a_file(encoder, tmp_path):
    scenes = "scenes?train=6&val=3&test=3&size=32"
    embed("--encoder", encoder, "--data", scenes, "--out", tmp_path / "out.npz")
    rows = stored(tmp_path / "out.npz")
    assert rows["path"].tolist()[:2] == ["train/0", "train/1"] and rows["path"].tolist()[-1] == "test/2"
    from pretext.datasets import open_dataset

    data = open_dataset(scenes)
    assert rows["label"][0] == data.classes[int(data[0][1]["label"])]
    assert class_names_of({"labels": torch.tensor([2, 0, 2])}, ("a", "b", "c")) == "a, c"
    assert class_names_of({"labels": torch.tensor([], dtype=torch.int64)}, ("a",)) == ""


def test_without_classes_there_is_no_column_of_them(encoder, tmp_path):
    data = write_pictures(tmp_path / "data", classes=())
    embed("--encoder", encoder, "--data", f"folder:{data / 'train'}", "--out", tmp_path / "out.npz")
    assert sorted(stored(tmp_path / "out.npz")) == ["about", "path", "split", "vector"]


def test_names_that_are_no_text_are_shown_escaped(encoder, tmp_path):
    data = write_pictures(tmp_path / "data", train=4, val=3, test=3)
    odd = sorted((data / "train" / "a").iterdir())[0]
    odd.rename(odd.with_name(b"caf\xe9.png".decode("utf-8", "surrogateescape")))
    embed("--encoder", encoder, "--data", f"folder:{data}", "--out", tmp_path / "out.npz", "--map", tmp_path / "m.html")
    assert [Path(path).name for path in stored(tmp_path / "out.npz")["path"] if "caf" in path] == ["caf\\xe9.png"]
    assert "caf\\\\xe9.png" in (tmp_path / "m.html").read_text()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--out", "features.csv"], r"--out features\.csv: the name must end in \.parquet or \.npz"),
        (["--out", "."], "the name must end in"),
        (["--pool", "average"], "pool is average; allowed is mean, max, or a number of cells per side from 1 to 64"),
        (["--pool", "0"], "pool is 0; allowed is"),
        (["--stage", "conv9"], r"has no stage 'conv9'; did you mean 'conv\d'\?"),
        (["--split", "trian"], r"no split 'trian'; did you mean 'train'\?"),
        (["--batch-size", "0"], "batch_size is 0; allowed is 1 or more"),
        (["--workers", "-1"], "workers is -1; allowed is from 0 to 256"),
        (["--map", "page.png"], r"--map page\.png: the name must end in \.html"),
        (["--map-pictures", "0"], "map_pictures is 0; allowed is from 1 to 10000"),
        (["--image-size", "32"], r"encoder\.safetensors records its own size; leave the flag out"),
        (["--projecton", "pca"], r"unknown flag --projecton; did you mean --projection\?"),
    ],
)
def test_a_wrong_flag_is_one_line_and_leaves_nothing(given, tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    kept = given[:-2] if flags[0] == "--out" else given
    with pytest.raises(UserError, match=said) as caught:
        embed(*kept, *flags)
    assert str(caught.value).isprintable()
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("package", "flags", "said"),
    [
        ("pyarrow", ["--out", "features.parquet"], r"pip install 'pretext-bench\[hub\]', or write \.npz"),
        ("umap", ["--map", "m.html", "--projection", "umap"], r"pip install 'pretext-bench\[umap\]', or take pca"),
    ],
)
def test_a_package_that_is_not_installed_is_named_before_the_work(given, monkeypatch, package, flags, said):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == package else find(name, *a))
    with pytest.raises(UserError, match=said):
        embed(*(given[:-2] if flags[0] == "--out" else given), *flags)

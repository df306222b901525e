"""Parquet and saved Hugging Face data sets: columns, names and classes, and what is said of faulty files."""

from __future__ import annotations

import json
import shutil
import sys

import dataset_samples
import pytest
import torch
from dataset_samples import fails
from store_samples import arrow_table, write_arrow, write_parquet

from pretext.datasets import BadImage, open_dataset

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed; it reads Parquet and Arrow files")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed; it reads Parquet and Arrow files")


@pytest.fixture
def folder(tmp_path):
    dataset_samples.folder(tmp_path / "folder", 1)
    return tmp_path / "folder"


def test_without_pyarrow_one_line_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_text("")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for kind in ("parquet", "hf"):
        fails(f"{kind}:{tmp_path}", r"pyarrow is not installed; run pip install 'pretext-bench\[hub\]'")


@pytest.mark.parametrize("write", [write_parquet, write_arrow])
def test_names_and_text_classes_without_paths_and_metadata(folder, tmp_path, write):
    out = write(folder, tmp_path / "out", paths=False, numbered=False)
    kind = "parquet" if write is write_parquet else "hf"
    data, wanted = open_dataset(f"{kind}:{out}"), open_dataset(f"folder:{folder}")
    assert data.classes == ("a", "b")
    for name, part in wanted.splits.items():
        assert all(torch.equal(one, other) for (one, _), (other, _) in zip(part, data.split(name), strict=True))
        assert data.split(name).label.tolist() == part.label.tolist()
    assert data.images[0].endswith("-00000-of-00001/00000000")


def test_paths_without_a_folder_get_their_class_as_the_folder(folder, tmp_path):
    table = arrow_table(folder, "train").slice(0, 6)
    cells = [{"bytes": cell["bytes"], "path": cell["path"].rpartition("/")[2]} for cell in table["image"].to_pylist()]
    table = table.set_column(0, "image", pa.array(cells, table.schema.field("image").type))
    (tmp_path / "out").mkdir()
    pq.write_table(table, tmp_path / "out" / "train.parquet")
    found = open_dataset(f"parquet:{tmp_path / 'out'}?limit=6")
    wanted = open_dataset(f"folder:{folder / 'train'}")
    assert [part.fingerprint for part in found.splits.values()] == [p.fingerprint for p in wanted.splits.values()]


def test_columns_are_chosen_by_keys(folder, tmp_path):
    table = arrow_table(folder, "train")
    raw = pa.array([cell["bytes"] for cell in table["image"].to_pylist()], pa.large_binary())
    wide = table.append_column("thumb", table["image"]).append_column("raw", raw).append_column("fine", table["label"])
    (tmp_path / "out").mkdir()
    pq.write_table(wide.replace_schema_metadata(None), tmp_path / "out" / "a.parquet")
    spec = f"parquet:{tmp_path / 'out'}"
    fails(
        spec, "several columns hold pictures as bytes; the columns are image .*, label .*; image=image takes that one"
    )
    fails(f"{spec}?image=raws", "image=raws: no such column; did you mean 'raw'")
    fails(f"{spec}?image=label", "image=label: holds int64, not the bytes of picture files")
    fails(f"{spec}?image=raw&label=image", "label=image: holds struct.*; a class is text or a whole number")
    data = open_dataset(f"{spec}?image=raw&label=fine")
    assert data.classes == ("0", "1") and len(data[0][0]) == 3
    assert open_dataset(f"{spec}?image=thumb&label=none").annotations == frozenset()
    pq.write_table(wide.select(["image", "fine"]).replace_schema_metadata(None), tmp_path / "out" / "a.parquet")
    assert "label=fine reads that one" in open_dataset(spec).lacking["label"]
    pq.write_table(wide.select(["fine"]), tmp_path / "out" / "a.parquet")
    fails(spec, "no column holds pictures as bytes; the columns are fine")


def test_a_split_whose_classes_are_hidden_is_not_used(folder, tmp_path):
    out = write_parquet(folder, tmp_path / "out")
    table = pq.read_table(out / "test-00000-of-00001.parquet")
    hidden = table.set_column(1, "label", pa.array([-1] * len(table), pa.int64()))
    pq.write_table(hidden, out / "test-00000-of-00001.parquet")
    data = open_dataset(f"parquet:{out}")
    assert any("The pictures of test have no classes, unlike those of train" in note for note in data.notes)
    assert any("its val split serves as test" in note for note in data.notes)


@pytest.mark.parametrize("kind", ["parquet", "hf"])
def test_empty_cells_are_bad_pictures_and_broken_files_are_named(folder, tmp_path, kind):
    table = arrow_table(folder, "train")
    cells = table["image"].to_pylist()
    cells[2]["bytes"], cells[4] = None, None
    table = table.set_column(0, "image", pa.array(cells, table.schema.field("image").type))
    (tmp_path / "out").mkdir()
    file = tmp_path / "out" / f"a.{'parquet' if kind == 'parquet' else 'arrow'}"
    if kind == "parquet":
        pq.write_table(table, file)
    else:
        with pa.ipc.new_file(str(file), table.schema) as stream:
            stream.write_table(table)
    data = open_dataset(f"{kind}:{file}").base.base
    for row in range(len(data)):
        if data.images[row][-1] not in "24":
            assert data[row][0].shape == (3, 20, 24)
            continue
        with pytest.raises(BadImage, match=rf"a{file.suffix}: a/0000000[24]: empty file"):
            data[row]
    file.write_bytes(file.read_bytes()[:-30])
    fails(f"{kind}:{file}", f"a{file.suffix}: not an? (Parquet|Arrow) file that can be read")


def test_the_copy_of_a_parquet_file_is_made_once_and_again_when_it_is_damaged(folder, tmp_path, own_cache, monkeypatch):
    import pretext.datasets.parquet

    out = write_parquet(folder, tmp_path / "out")
    copied = []
    real = pretext.datasets.parquet._copy
    monkeypatch.setattr(pretext.datasets.parquet, "_copy", lambda *given: copied.append(given[0]) or real(*given))
    first = open_dataset(f"parquet:{out}").fingerprint
    assert open_dataset(f"parquet:{out}").fingerprint == first and len(copied) == 3
    entry = next((own_cache / "parquet").iterdir())
    (entry / "pictures.bin").write_bytes(b"")
    assert open_dataset(f"parquet:{out}").fingerprint == first and len(copied) == 4
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
    (entry / "index.json").write_text(json.dumps({"sizes": [1], "paths": []}))
    fails(f"parquet:{out}", "GB in the cache, .*set PRETEXT_CACHE to a folder on a larger disk")


def test_what_compressed_arrow_files_are_told(folder, tmp_path):
    table = arrow_table(folder, "train")
    file = tmp_path / "a.arrow"
    with pa.ipc.new_stream(str(file), table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as stream:
        stream.write_table(table)
    fails(f"hf:{file}", "a.arrow: is compressed")


def test_a_data_set_that_the_datasets_library_saved(folder, tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed; it writes what `hf` reads")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    made = {
        split: datasets.Dataset.from_list(arrow_table(folder, split).to_pylist(), features=features)
        for split in ("train", "val", "test")
    }
    datasets.DatasetDict(made).save_to_disk(tmp_path / "saved")
    made["train"].to_parquet(tmp_path / "files" / "train.parquet")
    wanted = open_dataset(f"folder:{folder}")
    saved = open_dataset(f"hf:{tmp_path / 'saved'}")
    assert saved.classes == wanted.classes
    assert {name: len(part) for name, part in saved.splits.items()} == dict.fromkeys(("train", "val", "test"), 6)
    assert {n: p.fingerprint for n, p in saved.splits.items()} == {n: p.fingerprint for n, p in wanted.splits.items()}
    assert sum(map(len, open_dataset(f"parquet:{tmp_path / 'files'}").splits.values())) == 6

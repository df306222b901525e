"""A folder of pictures as tar shards, Parquet, Arrow files and lists."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

SPLITS = ("train", "val", "test")


def pictures_of(folder, split):
    """Return the paths of a split's pictures, sorted, relative to the folder of the split."""
    return sorted(path.relative_to(folder / split) for path in (folder / split).rglob("*.*") if path.is_file())


def add(archive, name, content):
    """Add a member to a tar archive."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_shards(folder, out, *, shards=2, label="cls", suffix=""):
    """Write a folder with splits and class folders as tar shards, whose pictures lie in no order."""
    out.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        found = pictures_of(folder, split)[::-1]
        for number in range(shards):
            with tarfile.open(out / f"{split}-{number:03}.tar{suffix}", "w") as archive:
                for path in found[number::shards]:
                    key = path.with_suffix("").as_posix()
                    add(archive, path.as_posix(), (folder / split / path).read_bytes())
                    if label == "cls":
                        add(archive, f"{key}.cls", path.parts[0].encode())
                    elif label == "json":
                        add(archive, f"{key}.json", json.dumps({"about": {"class": path.parts[0]}}).encode())
    return out


def arrow_table(folder, split, *, paths=True, numbered=True):
    """Return a split as the table that Hugging Face's `datasets` makes of it."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed; it reads Parquet and Arrow files")
    found = pictures_of(folder, split)
    classes = sorted({path.parts[0] for path in found})
    cells = [
        {"bytes": (folder / split / path).read_bytes(), "path": f"{split}/{path.as_posix()}" if paths else None}
        for path in found
    ]
    names = [path.parts[0] for path in found]
    image = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    label = pa.array([classes.index(name) for name in names], pa.int64()) if numbered else pa.array(names, pa.string())
    features = {"image": {"_type": "Image"}}
    features["label"] = {"names": classes, "_type": "ClassLabel"} if numbered else {"dtype": "string", "_type": "Value"}
    table = pa.table({"image": image, "label": label})
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_parquet(folder, out, *, rows=2, **how):
    """Write a folder as Parquet files with row groups of so many rows."""
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed; it reads Parquet and Arrow files")
    out.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        name = {"val": "validation"}.get(split, split)
        file = out / f"{name}-00000-of-00001.parquet"
        pq.write_table(arrow_table(folder, split, **how), file, row_group_size=rows)
    return out


def write_arrow(folder, out, *, rows=2, **how):
    """Write a folder as `DatasetDict.save_to_disk` does."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed; it reads Parquet and Arrow files")
    for split in SPLITS:
        inside = out / {"val": "validation"}.get(split, split)
        inside.mkdir(parents=True)
        table = arrow_table(folder, split, **how)
        for name in ("data-00000-of-00001.arrow", "cache-0123456789abcdef.arrow"):
            with pa.ipc.new_stream(str(inside / name), table.schema) as stream:
                stream.write_table(table, max_chunksize=rows)
        (inside / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (out / "dataset_dict.json").write_text(json.dumps({"splits": [*SPLITS]}))
    return out


def write_lists(folder):
    """Write a list of each split into a folder, with the lines in no order; return the spec that opens them."""
    for split in SPLITS:
        lines = [f"{split}/{path.as_posix()}\t{path.parts[0]}\n" for path in pictures_of(folder, split)[::-1]]
        Path(folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    return f"list:{folder / 'train.txt'}?val=val.txt&test=test.txt"

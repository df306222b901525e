"""A folder, its tar shards, its Parquet and its list are one data set, and train the same encoder byte for byte."""

from __future__ import annotations

import random
import tarfile

import dataset_samples
import pytest
import torch
from safetensors import safe_open
from store_samples import add, pictures_of, write_arrow, write_lists, write_parquet, write_shards

from pretext import TrainConfig, open_dataset, train
from pretext.datasets.files import images_below
from pretext.datasets.stored_splits import folder_order
from pretext.encoders.files import read_record

STORES = ["wds", "wds-json", "wds-plain", "parquet", "hf", "list"]


@pytest.fixture
def folder(tmp_path):
    dataset_samples.folder(tmp_path / "folder", 1)
    return tmp_path / "folder"


def spec_of(store, folder):
    out = folder.parent / store
    if store == "list":
        return write_lists(folder)
    if store.startswith("wds"):
        label = {"wds": "cls", "wds-json": "json", "wds-plain": None}[store]
        key = "?label=about.class" if label == "json" else ""
        return f"wds:{write_shards(folder, out, label=label)}{key}"
    return f"{store}:{(write_parquet if store == 'parquet' else write_arrow)(folder, out)}"


@pytest.mark.parametrize("store", STORES)
def test_pictures_classes_and_fingerprints_are_those_of_the_folder(folder, store):
    data, same = open_dataset(f"folder:{folder}"), open_dataset(spec_of(store, folder))
    assert same.classes == data.classes == ("a", "b") and [*same.splits] == [*data.splits]
    for name, part in data.splits.items():
        other = same.split(name)
        assert len(other) == len(part) and other.fingerprint == part.fingerprint
        for (image, target), (image_there, target_there) in zip(part, other, strict=True):
            assert torch.equal(image, image_there) and target == target_there


def test_splits_are_drawn_alike(tmp_path):
    root = tmp_path / "all"
    for number in range(40):  # each picture four times, so that the draw must be by content
        picture = dataset_samples.pixels(1, number // 4)
        dataset_samples.save(root / "ab"[number // 4 % 2] / f"{number}.png", picture)
    names = pictures_of(tmp_path, "all")
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for path in random.Random(number).sample(names[number::2], 20):
                add(archive, f"./{path}", (root / path).read_bytes())
    data, same = open_dataset(f"folder:{root}"), open_dataset(f"wds:{tmp_path}/{{0..1}}.tar")
    assert same.notes == data.notes and len(data.notes) == 3
    assert any("30 of 40 pictures in train repeat another one" in note for note in data.notes)
    for name, part in data.splits.items():
        assert part.fingerprint == same.split(name).fingerprint


def trained(data, out):
    """Train for three steps; return the tensors of the encoder, and its record without the spec of the data."""
    config = TrainConfig(steps=3, batch_size=4, samples=0, workers=0, device="cpu")
    file = train("rotation", "alexnet?width=0.1&stem_stride=2", data, config, out, image_size=32)
    record = read_record(file)["record"]
    assert record.pop("data") == data.spec  # the only thing that differs
    with safe_open(file, "np") as opened:
        return {name: opened.get_tensor(name).tobytes() for name in opened.keys()}, record  # noqa: SIM118


@pytest.mark.parametrize(
    ("store", "is_packed"),
    [("wds", True), *(pytest.param(*each, marks=pytest.mark.slow) for each in [("parquet", True), ("list", True)])]
    + [pytest.param(store, False, marks=pytest.mark.slow) for store in ("wds-plain", "hf")],
)
def test_every_store_trains_the_same_encoder(folder, tmp_path, monkeypatch, store, is_packed):
    wanted = trained(open_dataset(f"folder:{folder}"), tmp_path / "runs" / "folder")
    assert wanted[1]["data_fingerprint"]
    if not is_packed:  # decoded while training
        monkeypatch.setenv("PRETEXT_PACK_GB", "0")
    assert trained(open_dataset(spec_of(store, folder)), tmp_path / "runs" / store) == wanted


def test_a_walk_through_folders_and_the_key_of_names_sort_alike(tmp_path):
    drawn = random.Random(1)
    for number in range(60):
        parts = [drawn.choice(["a", "a b", "a-b", "B", "ab", "_", "Z0"]) for _ in range(drawn.randint(0, 3))]
        dataset_samples.write(tmp_path.joinpath(*parts, f"{drawn.choice('abAB_-')}{number}.png"), "")
    walked = [path.removeprefix(f"{tmp_path}/") for path in images_below(tmp_path)]
    assert sorted(walked, key=folder_order) == walked != sorted(walked)

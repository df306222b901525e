"""Folders, files and classes whose names are not UTF-8: every command reads and writes them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import downstream.__main__ as downstream_command
import pretext.__main__ as pretext_command
import retrieval.__main__ as retrieval_command
from pretext.encoders import build_encoder, load_encoder
from pretext.encoders.files import save_encoder
from pretext.system.checkpoint import read_checkpoint
from retrieval import Searchable

pytestmark = pytest.mark.usefixtures("own_cache")

NAME = "caf\udce9"
"""As Python shows a name of the bytes 63 61 66 e9, which is Latin-1."""
SIZE = 32


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder of such a name with class folders, one of which has such a name too."""
    root = tmp_path / NAME
    try:
        root.mkdir()
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    for number, name in enumerate((NAME, "light")):
        (root / "data" / name).mkdir(parents=True)
        for i in range(12):
            rng = np.random.default_rng((number, i))
            pixels = rng.integers(180 * number, 180 * number + 60, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "data" / name / f"{NAME}{i}.png")
    return root


def test_a_run_is_written_resumed_and_read(root):
    out = root / "run"
    flags = [
        "--data",
        f"folder:{root / 'data'}",
        "--image-size",
        str(SIZE),
        "--encoder",
        "alexnet?width=0.125&stem_stride=2",
    ]
    train = ["train", "context_encoder", *flags, "--steps", "2", "--batch-size", "4", "--samples", "2"]
    assert pretext_command.main([*train, "--out", str(out)]) == 0
    assert read_checkpoint(out / "checkpoint.safetensors")[1]["step"] == 2
    (out / "encoder.safetensors").unlink()
    assert pretext_command.main([*train, "--out", str(out)]) == 0  # resumed from the checkpoint
    assert load_encoder(out / "encoder.safetensors").input_size == SIZE
    holes = ["inpaint", "--checkpoint", str(out), "--data", f"folder:{root / 'data'}", "--out", str(root / "holes")]
    assert pretext_command.main(holes) == 0
    assert (root / "holes" / "inpaintings.png").is_file()
    assert pretext_command.main(["data", f"folder:{root / 'data'}", "--out", str(root / "audit")]) == 0
    assert json.loads((root / "audit" / "audit.json").read_text())["classes"] == [NAME, "light"]


def test_an_encoder_is_judged_and_its_samples_are_read_again(root):
    encoder = root / "encoder.safetensors"
    save_encoder(build_encoder("alexnet?width=0.125&stem_stride=2", input_size=SIZE, seed=0), encoder, {})
    flags = ["svm", "--encoder", str(encoder), "--data", f"folder:{root / 'data'}", "--shots", "1"]
    flags += ["--samples", "1", "--costs", "1", "--features", "32"]
    assert downstream_command.main([*flags, "--out", str(root / "one")]) == 0
    (samples,) = {file.parent for file in (root / "one").rglob("sample1_k1.csv")}
    with (samples / "sample1_k1.csv").open(encoding="utf-8", newline="") as file:
        assert {line["class"] for line in csv.DictReader(file)} == {"caf\\udce9", "light"}
    again = ["--samples-from", str(samples), "--out", str(root / "two")]
    assert downstream_command.main([*flags, *again]) == 0
    one, two = (json.loads((root / name / "scores.json").read_text()) for name in ("one", "two"))
    assert one == two


def test_the_classes_of_masks_are_written(tmp_path):
    for folder, value in (("images", 90), ("masks", 255)):
        (tmp_path / folder).mkdir()
        for i in range(8):
            pixels = np.zeros((SIZE, SIZE), np.uint8)
            pixels[:, : 4 + i] = value
            Image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
    spec = f"masks:{tmp_path}?classes={NAME}"
    flags = ["--encoder", "random:alexnet?width=0.125&stem_stride=2", "--image-size", str(SIZE), "--steps", "1"]
    assert downstream_command.main(["segmentation", "--data", spec, *flags, "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "per_class.csv").open(encoding="utf-8", newline="") as file:
        assert [line["class"] for line in csv.DictReader(file)] == ["background", "caf\\udce9"]


def test_an_index_is_written_grown_and_searched(root):
    encoder, index = root / "encoder.safetensors", root / "index"
    save_encoder(build_encoder("alexnet?width=0.125&stem_stride=2", input_size=SIZE, seed=0), encoder, {})
    flags = ["--encoder", str(encoder), "--data", f"folder:{root / 'data'}"]
    make = ["index", *flags, "--mode", "images", "--out", str(index)]
    assert retrieval_command.main(make) == 0
    Image.new("RGB", (SIZE, SIZE), "red").save(root / "data" / "light" / f"new{NAME}.png")
    assert retrieval_command.main([*make, "--add"]) == 0
    assert len(Searchable.open(index).index.table) == 25
    assert retrieval_command.main(["search", str(index), "--query", "3", "--out", str(root / "found")]) == 0
    nearest = json.loads((root / "found" / "neighbours.json").read_text())["neighbours"][0]["file"]
    assert Path(nearest).is_file()
    assert retrieval_command.main(["inpaint", *flags, "--out", str(root / "fills")]) == 0
    assert (root / "fills" / "fills.png").is_file()


def test_weights_are_read(root):
    from safetensors.torch import save_file

    encoder = build_encoder("alexnet?width=0.125&stem_stride=2", input_size=SIZE, seed=1)
    torch.save(encoder.state_dict(), root / "weights.pth")
    save_file(encoder.state_dict(), root / "weights.safetensors")
    for name in ("weights.pth", "weights.safetensors"):
        loaded = load_encoder(f"alexnet?width=0.125&stem_stride=2&weights={root / name}", input_size=SIZE)
        assert all(torch.equal(value, encoder.state_dict()[key]) for key, value in loaded.state_dict().items())

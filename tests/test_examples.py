"""The scripts in examples/, as a user would run them in a folder with photographs and an encoder file."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretext.encoders import build_encoder, load_encoder, save_encoder

pytestmark = pytest.mark.slow

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
SHOWS = {
    "train_on_a_folder": "runs/mine/encoder.safetensors 320 images seen",
    "features_of_pictures": "tensor([[1.0",
    "in_faster_rcnn": "'loss_box_reg'",
    "own_module": "Stage(name='layer2', channels=128, stride=8), Stage(name='layer4', channels=512, stride=32)",
    "own_dataset": "runs/data/encoder.safetensors",
    "scores_as_a_table": "top1",
    "judge_kept": "\n20  ",
}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with photos/ in two class folders, and a small encoder file."""
    monkeypatch.chdir(tmp_path)
    for number in range(60):
        file = Path("photos", ("boats", "trees")[number % 2], f"{number:02}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 128 + 127 * (number % 2), (70, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    encoder = build_encoder("alexnet?width=0.25&stem_stride=2", input_size=64, seed=0)
    save_encoder(encoder, "encoder.safetensors", {})
    return tmp_path


def test_every_example_is_run():
    assert {file.stem for file in EXAMPLES} == set(SHOWS)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_runs(file, workplace, capsys):
    assert len([line for line in file.read_text().splitlines() if line.strip()]) < 15
    runpy.run_path(str(file), run_name="__main__")
    assert SHOWS[file.stem] in capsys.readouterr().out
    for trained in workplace.glob("runs/*/encoder.safetensors"):
        if file.stem != "own_module":
            assert load_encoder(trained).record["images_seen"] > 0

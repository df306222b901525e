"""Images that cannot be decoded in streamed data: left out or refused, counted, reported."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from training_samples import ENCODER, pictures, stop_in_step

from pretext.datasets import BadImage, open_dataset
from pretext.encoders import read_record
from pretext.system.errors import UserError
from pretext.training import loop
from pretext.training.config import TrainConfig
from pretext.training.loop import train


@pytest.fixture(autouse=True)
def _streamed(monkeypatch):
    monkeypatch.setenv("PRETEXT_PACK_GB", "0")


def trained(data, out, task="context_encoder", **settings):
    config = TrainConfig(**{"steps": 6, "batch_size": 8, "workers": 0, "device": "cpu", "log_every": 1} | settings)
    return train(task, ENCODER, open_dataset(data), config, out, image_size=32)


def unreadable(data):
    """Return the numbers of the training pictures that cannot be decoded, and the number of all."""
    part, found = open_dataset(data).split("train"), []
    for index in range(len(part)):
        try:
            part[index]
        except BadImage:
            found.append(index)
    return found, len(part)


def test_broken_pictures_are_left_out_and_reported(tmp_path, capsys):
    data = pictures(tmp_path / "data", set(range(32)) - set(range(0, 32, 4)))
    found, count = unreadable(data)
    assert found[0] == 0 or found[1] == 1
    assert trained(data, tmp_path / "out").is_file()
    said = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(said) == 1 and f"left out {len(found)} of {count} pictures" in said[0]
    assert f"and {len(found) - 5} more" in said[0]
    notes = json.loads((tmp_path / "out" / "run.json").read_text())["notes"]
    assert said[0].endswith(notes[-1]) and any("val split was drawn" in note for note in notes)


def test_a_broken_picture_stops_the_run_where_it_is_to(tmp_path):
    data = pictures(tmp_path / "data", range(28))
    with pytest.raises(UserError, match=r"a picture cannot be decoded: .*--bad-images skip"):
        trained(data, tmp_path / "out", bad_images="stop")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*.safetensors"))


def test_steps_without_enough_pictures_are_skipped(tmp_path):
    data = pictures(tmp_path / "data", set(range(32)) - set(range(0, 32, 3)))
    assert trained(data, tmp_path / "out", "byol", steps=12, batch_size=4, accumulate=2, keep="1").is_file()
    assert len(list((tmp_path / "out" / "kept").iterdir())) == 12
    steps = [json.loads(line)["step"] for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert 0 < len(steps) < 12


def test_no_sound_picture_is_one_line(tmp_path):
    data = pictures(tmp_path / "data", range(32))
    with pytest.raises(UserError, match=r"all \d+ pictures cannot be decoded, the first of them"):
        trained(data, tmp_path / "out")


SCRIPT = """
from pathlib import Path
from pretext.datasets import open_dataset
from pretext.training.config import TrainConfig
from pretext.training.loop import train
config = TrainConfig(steps=2, batch_size=8, workers=1, device="cpu")
print(train("autoencoder", "{encoder}", {data}, config, Path("out"), image_size=32))
"""
OWN = """
class Own(type(open_dataset("{data}").split("train"))): pass
data = open_dataset("{data}")
data.split("train").__class__ = Own
"""


def script(folder, text):
    (folder / "script.py").write_text(text)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_a_script_without_a_guard_may_stream(tmp_path):
    data = pictures(tmp_path / "data")
    ended = script(tmp_path, SCRIPT.format(encoder=ENCODER, data=f'open_dataset("{data}")'))
    assert ended.stderr == "" and ended.stdout == "out/encoder.safetensors\n" and ended.returncode == 0


@pytest.mark.slow
def test_a_script_with_a_data_set_of_its_own_is_told_of_the_guard(tmp_path):
    data = pictures(tmp_path / "data")
    lines = SCRIPT.format(encoder=ENCODER, data="data").replace("config =", OWN.format(data=data) + "config =", 1)
    ended = script(tmp_path, lines)
    assert ended.returncode and "workers to 0" in ended.stderr.splitlines()[-1]


def test_only_pictures_that_were_trained_on_are_counted(tmp_path, monkeypatch):
    seen, real = [], loop._step

    def counted(model, parts, *others):
        seen.append(sum(len(part.images) for part in parts))
        return real(model, parts, *others)

    monkeypatch.setattr(loop, "_step", counted)
    data = pictures(tmp_path / "data", set(range(0, 32, 3)))
    stop_in_step(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path / "out", keep="1")
    file = trained(data, tmp_path / "out", keep="1")
    assert len(seen) == 6 and sum(seen) < 6 * 8
    so_far = [sum(seen[: number + 1]) for number in range(6)]
    rows = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [row["images"] for row in rows] == so_far
    kept = sorted((tmp_path / "out" / "kept").iterdir())
    assert [read_record(each)["record"]["images_seen"] for each in (*kept, file)] == [*so_far, so_far[-1]]

"""The files of a run, damaged or left behind."""

from __future__ import annotations

import json
import threading

import pytest
from training_samples import ENCODER, pictures, run

from pretext.datasets import open_dataset
from pretext.datasets.files import FileDataset
from pretext.system.errors import UserError
from pretext.training import loop
from pretext.training.config import TrainConfig
from pretext.training.log import TrainingLog, read_log
from pretext.training.run_folder import RunFolder

ROW = '{"step": 2, "images": 32, "loss": {"model": 0.5}}\n'


def test_a_torn_last_line_of_the_log_is_left_out_and_said(tmp_path, capsys):
    file = tmp_path / "log.jsonl"
    for torn in ('{"step": 4, "ima', "\udcff", '{"step": "4"}', "null", '{"step": 4, "images": 8, "loss": {}}'):
        file.write_text(ROW + torn, encoding="utf-8", errors="surrogateescape")
        with TrainingLog(tmp_path, {"task": "t"}, step=4, total_steps=6, config=TrainConfig(steps=6)) as log:
            assert [row["step"] for row in log.rows] == [2]
        said = capsys.readouterr().err
        assert said.startswith(f"{file}, line 2: ") and said.endswith("; left out\n") and said.count("\n") == 1
        assert file.read_text() == ROW and read_log(file) == log.rows


def test_a_run_deletes_no_hidden_file_of_the_user(tmp_path):
    folder = tmp_path / "run"
    (folder / "samples").mkdir(parents=True)
    users = [folder / ".notes.tmp", folder / ".tmpA1b2C3", folder / "samples" / ".step-mine.tmp"]
    for file in users:
        file.write_text("a user's")
    run(folder, steps=2, samples=1)
    RunFolder(folder, {}).remove_unfinished_files()
    assert all(file.read_text() == "a user's" for file in users)


def test_a_run_on_streamed_files_begins_before_they_are_hashed(tmp_path, monkeypatch):
    begun, by_content = threading.Event(), FileDataset.fingerprint.fget

    def after_the_first_step(data):
        assert begun.wait(60), "the first step waits for the fingerprint"
        return by_content(data)

    def step(*arguments):
        begun.set()
        return taken(*arguments)

    taken = loop._step
    monkeypatch.setenv("PRETEXT_PACK_GB", "0")
    data = open_dataset(pictures(tmp_path / "pictures"))
    expected = data.split("train").fingerprint
    monkeypatch.setattr(FileDataset, "fingerprint", property(after_the_first_step))
    monkeypatch.setattr(loop, "_step", step)
    config = TrainConfig(steps=2, batch_size=8, workers=0, device="cpu")
    loop.train("context_encoder", ENCODER, open_dataset(data.spec), config, tmp_path / "run", image_size=32)
    assert json.loads((tmp_path / "run" / "run.json").read_bytes())["data_fingerprint"] == expected


def test_files_that_cannot_be_hashed_end_the_run_in_one_line(tmp_path, monkeypatch):
    def fails(data):
        raise UserError("a.png: Input/output error")

    monkeypatch.setenv("PRETEXT_PACK_GB", "0")
    monkeypatch.setattr(FileDataset, "fingerprint", property(fails))
    with pytest.raises(UserError, match=r"^a\.png: Input/output error$"):
        config = TrainConfig(steps=2, batch_size=8, workers=0, device="cpu")
        data = open_dataset(pictures(tmp_path / "pictures"))
        loop.train("context_encoder", ENCODER, data, config, tmp_path / "run", image_size=32)

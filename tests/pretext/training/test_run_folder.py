"""The files of a run, damaged or left behind."""

from __future__ import annotations

import json
import threading

import pytest
import torch
from training_samples import ENCODER, pictures, run, stop_in_step

from pretext.datasets import open_dataset
from pretext.datasets.files import FileDataset
from pretext.encoders import load_encoder, read_record
from pretext.encoders.files import save_encoder
from pretext.system.checkpoint import read_checkpoint, save_checkpoint
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


def test_a_run_whose_last_write_fails_does_not_return_the_encoder_of_a_former_one(tmp_path, monkeypatch):
    settings = {"steps": 2, "samples": 1, "keep": "1"}
    whole = run(tmp_path / "whole", **settings)
    file = run(tmp_path / "run", **settings)
    former = load_encoder(file)
    with torch.no_grad():
        next(former.parameters()).add_(1)
    save_encoder(former, file, former.record)  # of the same settings, as another version of the code trains it
    stale = [tmp_path / "run" / name for name in ("kept/step-0000009.safetensors", "samples/step-0000009.png")]
    users = [tmp_path / "run" / name for name in ("kept/notes.txt", "samples/step-mine.png", "thesis.txt")]
    for each in (*stale, *users):
        each.write_text("text")
    (tmp_path / "run" / "checkpoint.safetensors").unlink()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunFolder, "finish", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path / "run", **settings)
    monkeypatch.undo()
    assert not any(each.exists() for each in (file, file.with_name("run.json"), *stale))
    assert run(tmp_path / "run", **settings).read_bytes() == whole.read_bytes()
    assert all(each.read_text() == "text" for each in users)


def test_a_finished_run_writes_its_encoder_again_where_another_one_lies(tmp_path):
    own, other = run(tmp_path / "own", steps=1), run(tmp_path / "other", steps=1, seed=1)
    expected = own.read_bytes()
    for wrong in (other.read_bytes(), expected[:100]):
        own.write_bytes(wrong)
        assert run(tmp_path / "own", steps=1).read_bytes() == expected


def test_a_run_does_not_delete_the_weights_that_it_starts_from(tmp_path):
    file = run(tmp_path / "run", steps=1)
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    before = file.read_bytes()
    with pytest.raises(UserError, match=r"init .*encoder\.safetensors is a file of the run .*; give another --out"):
        run(tmp_path / "run", steps=1, init=str(file))
    assert file.read_bytes() == before


def change_state(folder, **state):
    """Change the state in a checkpoint; drop what is None."""
    tensors, about = read_checkpoint(folder / "checkpoint.safetensors")
    about = {key: value for key, value in {**about, **state}.items() if value is not None}
    save_checkpoint(folder / "checkpoint.safetensors", tensors, about)


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path, monkeypatch, capsys):
    stop_in_step(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, steps=3)
    monkeypatch.undo()
    change_state(tmp_path, images_seen=None, device=None)
    assert read_record(run(tmp_path, steps=3))["record"]["images_seen"] == 3 * 16
    assert "goes on on" not in capsys.readouterr().err


def test_a_run_that_moves_to_another_kind_of_device_says_so(tmp_path, monkeypatch, capsys):
    stop_in_step(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, steps=3)
    monkeypatch.undo()
    change_state(tmp_path, device="cuda")
    run(tmp_path, steps=3)
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "goes on on" in line]
    assert said.startswith(f"{tmp_path}: trained on cuda until step 2, and goes on on cpu; ")
    about = json.loads((tmp_path / "run.json").read_bytes())
    assert (about["device"], about["precision"]) == ("cpu", "float32")

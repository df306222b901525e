"""The files of a run, damaged or left behind."""

from __future__ import annotations

from training_samples import run

from pretext.training.config import TrainConfig
from pretext.training.log import TrainingLog, read_log
from pretext.training.run_folder import RunFolder

ROW = '{"step": 2, "images": 32, "loss": {"model": 0.5}}\n'


def test_a_torn_last_line_of_the_log_is_left_out_and_said(tmp_path, capsys):
    file = tmp_path / "log.jsonl"
    for torn in ('{"step": 4, "ima', "\udcff", '{"step": "4"}', "null", '{"step": 4, "images": 8, "loss": {}}'):
        file.write_text(ROW + torn, encoding="utf-8", errors="surrogateescape")
        with TrainingLog(tmp_path, task="t", step=4, total_steps=6, config=TrainConfig(steps=6)) as log:
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

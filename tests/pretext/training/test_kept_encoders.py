"""Encoder files that a run keeps at chosen steps: which steps, what they hold, and what an interruption leaves."""

from __future__ import annotations

import pytest
import torch
from training_samples import fail_to_save, run, stop_in_step

from pretext.encoders import load_encoder, read_record
from pretext.system.checkpoint import HOST
from pretext.training.config import TrainConfig

pytestmark = pytest.mark.slow

ENDED_PROCESS = 2**22 + 1
"""No process of Linux has so large a number."""


def kept(out):
    return {file.name: file.read_bytes() for file in sorted((out / "kept").iterdir())}


@pytest.mark.parametrize("percent", [1, 10, 30, 33, 50, 100])
@pytest.mark.parametrize("total", [1, 7, 10, 128, 781])
def test_a_share_of_the_budget_is_the_first_step_that_reaches_it(percent, total):
    config = TrainConfig(steps=total, keep=f"{percent}%")
    found = [step for step in range(1, total + 1) if config.keeps(step, total)]
    assert found == sorted({-(-k * percent * total // 100) for k in range(1, 100 // percent + 1)})


def test_a_number_of_steps_and_none():
    assert [step for step in range(1, 13) if TrainConfig(seconds=5, keep="5").keeps(step, None)] == [5, 10]
    assert not any(TrainConfig(steps=12).keeps(step, 12) for step in range(1, 13))
    assert [step for step in range(1, 9) if TrainConfig(steps=8, keep="12.5%").keeps(step, 8)] == [*range(1, 9)]


@pytest.mark.parametrize("keep", ["0", "0%", "101%", "ten", "-5", "1.5", "10 %", "nan", "nan%", "1e3", ""])
def test_another_value_is_refused(keep):
    with pytest.raises(ValueError, match=r"allowed is a number of steps, such as 500, or 0\.001% to 100%"):
        TrainConfig(keep=keep)


def test_a_share_of_seconds_is_refused():
    with pytest.raises(ValueError, match="a budget in seconds has no known steps; give a number of steps"):
        TrainConfig(seconds=60, keep="10%")


def test_each_is_the_encoder_after_its_step_and_the_run_ends_alike(tmp_path):
    constant = {"schedule": "constant", "warmup": 0.0}
    whole = run(tmp_path / "run", **constant, keep="50%")
    assert whole.read_bytes() == run(tmp_path / "plain", **constant).read_bytes()
    files = sorted((tmp_path / "run" / "kept").iterdir())
    assert [file.name for file in files] == ["step-0000003.safetensors", "step-0000006.safetensors"]
    assert [read_record(file)["record"]["images_seen"] for file in files] == [48, 96]
    assert files[1].read_bytes() == whole.read_bytes()
    shorter = load_encoder(run(tmp_path / "shorter", **constant, steps=3)).state_dict()
    assert all(torch.equal(value, shorter[name]) for name, value in load_encoder(files[0]).state_dict().items())


def test_a_stopped_run_keeps_each_step_once(tmp_path, monkeypatch):
    run(tmp_path / "whole", keep="2")
    stop_in_step(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", keep="2")
    monkeypatch.undo()
    (first,) = (tmp_path / "part" / "kept").iterdir()
    written = first.stat().st_mtime_ns
    run(tmp_path / "part", keep="2")
    assert first.stat().st_mtime_ns == written
    assert kept(tmp_path / "part") == kept(tmp_path / "whole")


def test_a_run_killed_between_an_encoder_file_and_its_checkpoint_loses_and_leaves_nothing(tmp_path, monkeypatch):
    run(tmp_path / "whole", keep="2")
    fail_to_save(monkeypatch, step=4)
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "part", keep="2", checkpoint_seconds=0.0)
    monkeypatch.undo()
    (tmp_path / "part" / "kept" / f".step-0000005.safetensors.{HOST}-{ENDED_PROCESS}.tmp").touch()
    run(tmp_path / "part", keep="2")
    assert kept(tmp_path / "part") == kept(tmp_path / "whole")

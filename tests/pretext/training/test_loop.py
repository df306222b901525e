"""The training loop: what a run writes, how it stops and resumes, and what it refuses."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from training_samples import DATA, ENCODER, run

from pretext.__main__ import main
from pretext.datasets import open_dataset
from pretext.datasets.pictures import equally_large
from pretext.encoders import build_encoder, load_encoder, read_record
from pretext.system.errors import UserError
from pretext.system.locks import lock_folder
from pretext.tasks.base import Batch, Inpainter, Task
from pretext.training.config import TrainConfig
from pretext.training.loop import train
from pretext.training.micro_batches import micro_batches
from pretext.training.run_folder import load_task
from pretext.transforms.crops import squares

loop = importlib.import_module("pretext.training.loop")


def test_a_run_writes_its_files(tmp_path):
    file = run(str(tmp_path / "run"))  # a path as text, as users write it
    record = read_record(file)["record"]
    assert record["images_seen"] == 96
    assert record["task"] == "context_encoder"
    assert record["data_fingerprint"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert all(np.isfinite(row["loss"]["generator"]) for row in rows)
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["flops_per_image"] > 0
    assert about["parameters"]["encoder"] < about["parameters"]["task"]
    assert list((tmp_path / "run" / "samples").glob("*.png"))
    assert isinstance(load_task(tmp_path / "run"), Inpainter)
    encoder = load_encoder(file)
    assert encoder.record == record
    trained, task = encoder.state_dict(), load_task(tmp_path / "run").encoder.state_dict()
    assert all(torch.equal(value, task[name]) for name, value in trained.items())


def test_the_start_is_the_random_row(tmp_path):
    file = run(tmp_path / "run", steps=1, learning_rate=1e-12, weight_decay=0.0, seed=3)
    random = build_encoder(ENCODER, input_size=32, seed=3)
    for (name, value), (_, trained) in zip(
        random.named_parameters(), load_encoder(file).named_parameters(), strict=True
    ):
        torch.testing.assert_close(value, trained, atol=1e-9, rtol=0, msg=name)


def test_other_users_can_read_the_files_of_a_run(tmp_path):
    file = run(tmp_path / "run", steps=1)
    plain = tmp_path / "plain"
    plain.touch()
    assert {each.stat().st_mode for each in (file, tmp_path / "run" / "checkpoint.safetensors")} == {
        plain.stat().st_mode
    }


def test_a_finished_run_is_not_run_again(tmp_path):
    file = run(tmp_path / "run")
    before = file.stat().st_mtime_ns
    assert run(tmp_path / "run") == file
    assert file.stat().st_mtime_ns == before


def test_a_second_run_in_a_folder_is_refused_and_harms_nothing(tmp_path):
    with lock_folder(tmp_path / "run") as locked:
        assert locked
        (tmp_path / "run" / ".log.jsonl.7.tmp").touch()
        with pytest.raises(UserError, match="another process is training in this folder"):
            run(tmp_path / "run")
        assert {file.name for file in (tmp_path / "run").iterdir()} == {".lock", ".log.jsonl.7.tmp"}
    assert run(tmp_path / "run", steps=1).is_file()


@pytest.mark.parametrize(
    ("task", "number"),
    [
        pytest.param("context_encoder:adversarial", signal.SIGTERM, marks=pytest.mark.slow),
        ("simclr:small", signal.SIGHUP),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_bytes(tmp_path, task, number, monkeypatch):
    whole = run(tmp_path / "whole", task).read_bytes()
    real, calls = loop._step, 0

    def interrupted(*given):
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), number)
        return real(*given)

    monkeypatch.setattr(loop, "_step", interrupted)
    before = signal.signal(number, signal.SIG_DFL)  # under nohup SIGHUP is ignored, and stays so
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "part", task)
    finally:
        signal.signal(number, before)
    monkeypatch.undo()
    assert not (tmp_path / "part" / "encoder.safetensors").exists()
    assert run(tmp_path / "part", task).read_bytes() == whole


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path):
    def command(out: Path) -> list[str]:
        words = f"-m pretext train context_encoder --encoder {ENCODER} --image-size 32 --steps 60 --batch-size 16"
        more = f"--workers 0 --checkpoint-seconds 0 --samples 0 --device cpu --data {DATA} --out {out}"
        return [sys.executable, *words.split(), *more.split()]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command(tmp_path / "whole"), check=True, env=environment, capture_output=True)
    killed = subprocess.Popen(command(tmp_path / "part"), env=environment, stdout=subprocess.PIPE)
    while not (tmp_path / "part" / "checkpoint.safetensors").exists():
        assert killed.poll() is None
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "part" / "encoder.safetensors").exists()
    subprocess.run(command(tmp_path / "part"), check=True, env=environment, capture_output=True)
    files = [tmp_path / name / "encoder.safetensors" for name in ("whole", "part")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    run(tmp_path / "run")
    with pytest.raises(
        UserError, match=r"train_config.learning_rate = 0.001, but this run has train_config.learning_rate = 0.01"
    ):
        run(tmp_path / "run", learning_rate=0.01)


def test_accumulated_parts_step_like_one_batch():
    # without batch normalisation the mean over parts is the mean over the batch
    class Brightness(Task):
        ended = 0

        def losses(self, batch):
            yield "task", self.encoder(batch.images)[-1].square().mean()
            self.ended += 1  # where MoCo enqueues its keys

    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = []
    for parts in (1, 4):
        task = Brightness(build_encoder(f"{ENCODER}&norm=none", input_size=32, seed=0))
        optimizers = {"task": torch.optim.SGD(task.parameters(), lr=0.1)}
        config = TrainConfig(batch_size=8, accumulate=parts, precision="float32")
        batches = micro_batches(Batch(equally_large(images), None, torch.Generator()), config, 0, torch.device("cpu"))
        losses = loop._step(task, batches, optimizers, config, torch.device("cpu"))
        assert task.ended == parts
        found.append((losses["task"], task.state_dict()))
    torch.testing.assert_close(found[0][0], found[1][0])
    untrained = build_encoder(f"{ENCODER}&norm=none", input_size=32, seed=0).state_dict()
    for name, value in found[0][1].items():
        torch.testing.assert_close(value, found[1][1][name], atol=1e-6, rtol=1e-4)
    assert any(not torch.equal(v, found[0][1][f"encoder.{n}"]) for n, v in untrained.items())


class MeanSquare(Task):
    """The mean square of the deepest map: without batch normalisation, a mean over rows."""

    player = "task"

    def losses(self, batch):
        yield self.player, self.encoder(batch.images)[-1].square().mean()


def mean_square(rows, accumulate):
    """Return the task, the parts of a batch of noise, its optimisers, and the settings."""
    task = MeanSquare(build_encoder(f"{ENCODER}&norm=none", input_size=32, seed=0))
    config = TrainConfig(batch_size=48, accumulate=accumulate, precision="float32")
    images = torch.randint(0, 256, (rows, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    parts = micro_batches(Batch(equally_large(images), None, torch.Generator()), config, 0, torch.device("cpu"))
    return task, parts, {"task": torch.optim.SGD(task.parameters(), lr=0.1)}, config, torch.device("cpu")


@pytest.mark.parametrize(
    ("rows", "accumulate", "sizes"),
    [(15, 8, [2] * 7 + [1]), (10, 4, [3, 3, 2, 2]), (12, 3, [4, 4, 4]), (5, 2, [3, 2])],
)
def test_every_row_counts_the_same_in_parts_of_unequal_size(rows, accumulate, sizes):
    found = []
    for count in (1, accumulate):
        given = mean_square(rows, count)
        assert [len(part) for part in given[1]] == (sizes if count > 1 else [rows])
        found.append((loop._step(*given)["task"], given[0].state_dict()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=0)
    for name, value in found[0][1].items():
        torch.testing.assert_close(value, found[1][1][name], atol=1e-7, rtol=1e-5)


def test_equal_parts_are_averaged_to_the_last_bit():
    given, (task, parts, optimizers, *_) = mean_square(12, 3), mean_square(12, 3)
    losses = []
    for part in parts:
        ((_, loss),) = task.losses(part)
        (loss / 3).backward()
        losses.append(loss.detach() / 3)
    optimizers["task"].step()
    assert torch.equal(loop._step(*given)["task"], sum(losses))
    expected = task.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in given[0].state_dict().items())


def test_a_loss_of_a_player_that_is_not_declared_is_named():
    given = mean_square(4, 1)
    given[0].player = "tusk"
    with pytest.raises(UserError, match=r"test_loop\.py: losses yields a loss of 'tusk'.* mean 'task'") as caught:
        loop._step(*given)
    assert "\n" not in str(caught.value)


def test_the_last_step_of_a_budget_in_seconds_is_watched_too(tmp_path):
    run(tmp_path, steps=None, seconds=0.3, watch="rankme", watch_every=10_000)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    (watched,) = [row for row in rows if "watch" in row]
    assert watched["step"] == max(row["step"] for row in rows)
    assert watched["images"] == json.loads((tmp_path / "run.json").read_text())["images_seen"]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(UserError, match=r"loss of generator is (nan|inf) at step \d+"):
        run(tmp_path / "run", optimizer="sgd", learning_rate=1e30, steps=20, warmup=0.0)


def test_a_budget_in_seconds_or_flops_ends_the_run(tmp_path):
    run(tmp_path / "seconds", steps=None, seconds=0.3)
    about = json.loads((tmp_path / "seconds" / "run.json").read_text())
    assert about["images_seen"] >= 16 and about["wall_s"] >= 0.3 and about["cpu_s"] > 0
    assert (tmp_path / "seconds" / "log.jsonl").read_text()  # though it has fewer steps than `log_every`
    assert list((tmp_path / "seconds" / "samples").glob("*.png"))
    run(tmp_path / "flops", steps=None, flops=4e9)
    about = json.loads((tmp_path / "flops" / "run.json").read_text())
    assert about["images_seen"] == 16 * max(1, round(4e9 / about["flops_per_image"] / 16)) > 16


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train rotatio --data scenes", "did you mean 'rotation'"),
        ("train rotation --data scenes --stepz 3", "did you mean --steps"),
        ("train rotation --data folder:nowhere", "no such folder"),
        ("train rotation --data scenes --batch-size 0", "batch_size is 0"),
        ("train rotation --data scenes --encoder alexnett", "did you mean 'alexnet'"),
        ("train", "name the task"),
        ("trian", "did you mean 'train'"),
    ],
)
def test_an_error_is_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        main(words.split())
    assert "\n" not in str(caught.value)


def test_list_names_everything(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for name in ("context_encoder", ":released", "simclr", "alexnet", "voc"):
        assert name in printed


def test_a_folder_without_labels_trains_but_not_by_labels(tmp_path):
    from PIL import Image

    for k in range(12):
        Image.new("RGB", (40, 30), (20 * k, 90, 60)).save(tmp_path / f"{k}.png")
    data = open_dataset(f"folder:{tmp_path}")
    config = TrainConfig(steps=1, batch_size=4, workers=0, device="cpu")
    assert train("autoencoder", ENCODER, data, config, tmp_path / "run", image_size=32).is_file()
    with pytest.raises(UserError, match="label"):
        train("supervised", ENCODER, data, config, tmp_path / "other", image_size=32)


def test_a_cut_checkpoint_is_named(tmp_path):
    run(tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="is truncated"):
        load_task(tmp_path / "run")


def test_the_commands_defaults_fit_one_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--data", DATA, "--steps", "1", "--batch-size", "2", "--workers", "0", "--device", "cpu"]
    assert main(["train", "rotation", *words]) == 0
    assert (tmp_path / "runs" / "rotation" / "encoder.safetensors").is_file()


def test_whole_images_are_made_for_the_log_only_where_a_line_is_due(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("pretext.tasks.base.squares", lambda pictures: made.append(1) or squares(pictures))
    run(tmp_path / "run", task="simclr", steps=12, log_every=6, samples=0)  # it trains on views alone
    assert 2 <= len(made) <= 3  # two lines, and what the operations are counted with

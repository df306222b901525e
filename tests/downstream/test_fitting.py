"""Interrupted training continues to the same numbers; frozen parameters do not change; progress without a terminal."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import os
import signal
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from probe_samples import SIZE, colours, small_encoder, small_scenes
from torch import nn

from benchmarks.executors.base import run_cell
from benchmarks.planning.cells import encoder_cell, probe_cell
from benchmarks.planning.making import open_data
from benchmarks.records.results import read_measurements
from downstream import fitting
from downstream.fitting import fit, write_curve
from downstream.probes.detection import Detection
from downstream.probes.fine_tune import FineTune
from downstream.probes.low_shot import LowShot
from downstream.probes.segmentation import Segmentation
from downstream.reading import batches
from downstream.resuming import CHECKPOINT, Resume
from pretext.system import progress
from pretext.system.checkpoint import HOST, read_checkpoint
from pretext.training.config import TrainConfig

STEPS = 5
PROBES = {
    "detection": Detection(train_images=12, test_images=8, steps=STEPS, batch_size=4, cells=2),
    "fine_tune": FineTune(train_images=24, steps=STEPS, batch_size=4),
    "segmentation": Segmentation(train_images=12, test_images=8, steps=STEPS, batch_size=4),
}
every_probe = pytest.mark.parametrize("name", PROBES)


class Cut(Exception):
    pass


@functools.cache
def scenes():
    return small_scenes(train=12, val=2, test=8)


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(fitting, "EVERY_S", 0.0)  # a checkpoint after every step


@contextmanager
def cut(monkeypatch, name, *, at, how=Cut):
    """Interrupt a probe while it reads batch number `at`, from 1, by an error or a signal."""
    module = importlib.import_module(f"downstream.probes.{name}")
    calls = []

    def failing(read, *args):
        calls.append(args)
        if len(calls) == at:
            if how is Cut:
                raise Cut
            os.kill(os.getpid(), how)
        return read(*args)

    with monkeypatch.context() as patch:
        for each in {"read", "read_each"} & vars(module).keys():
            patch.setattr(module, each, functools.partial(failing, getattr(module, each)))
        yield


def cut_off(monkeypatch, name, probe, out, *, at, how=Cut, data=None):
    """Start a probe and interrupt it; see `cut`."""
    error = Cut if how is Cut else KeyboardInterrupt
    with cut(monkeypatch, name, at=at, how=how), pytest.raises(error):
        list(probe.evaluate(small_encoder(), data or scenes(), out))


def judged(probe, out, data=None):
    scores = [
        {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in vars(score).items()}
        for score in probe.evaluate(small_encoder(), data or scenes(), out)
    ]
    return scores, json.loads((out / "curve.json").read_text())


@pytest.mark.slow
@every_probe
def test_an_interrupted_run_continues_to_the_same_numbers(name, tmp_path, monkeypatch, capsys):
    whole = judged(PROBES[name], tmp_path / "whole")
    out = tmp_path / "cut"
    cut_off(monkeypatch, name, PROBES[name], out, at=3)
    assert not (out / "curve.json").exists()
    cut_off(monkeypatch, name, PROBES[name], out, at=2)  # now in its fourth batch overall
    capsys.readouterr()
    assert judged(PROBES[name], out) == whole
    assert f"{name}: continues after step 3 of {out / CHECKPOINT}" in capsys.readouterr().err
    assert not (out / CHECKPOINT).exists() and not (tmp_path / "whole" / CHECKPOINT).exists()


@pytest.mark.slow
@every_probe
def test_weights_and_moments_are_those_of_an_uninterrupted_run(name, tmp_path, monkeypatch):
    monkeypatch.setattr(f"downstream.probes.{name}.write_curve", lambda *_: None)  # it would delete the checkpoint
    list(PROBES[name].evaluate(small_encoder(), scenes(), tmp_path / "whole"))
    cut_off(monkeypatch, name, PROBES[name], tmp_path / "cut", at=4)
    list(PROBES[name].evaluate(small_encoder(), scenes(), tmp_path / "cut"))
    (whole, _), (cut, about) = (read_checkpoint(tmp_path / end / CHECKPOINT) for end in ("whole", "cut"))
    assert about["step"] == STEPS and len(cut["curve"]) == STEPS
    assert any(key.endswith("exp_avg_sq") for key in cut) and any("running_mean" in key for key in cut)
    assert whole.keys() == cut.keys() and all(torch.equal(cut[key], value) for key, value in whole.items())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_current_step(number, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "EVERY_S", 1e9)
    before = signal.getsignal(number)
    cut_off(monkeypatch, "fine_tune", PROBES["fine_tune"], tmp_path / "cut", at=2, how=number)
    assert read_checkpoint(tmp_path / "cut" / CHECKPOINT)[1]["step"] == 2
    assert signal.getsignal(number) is before
    assert judged(PROBES["fine_tune"], tmp_path / "cut") == judged(PROBES["fine_tune"], tmp_path / "whole")


@pytest.mark.slow
def test_interrupted_during_the_test_it_does_not_train_again(tmp_path, monkeypatch):
    probe = PROBES["segmentation"]
    whole = judged(probe, tmp_path / "whole")
    cut_off(monkeypatch, "segmentation", probe, tmp_path / "cut", at=STEPS + 1)
    cut_off(monkeypatch, "segmentation", probe, tmp_path / "cut", at=1)
    assert judged(probe, tmp_path / "cut") == whole


@pytest.mark.parametrize("change", ["settings", "data", "weights", "damage"])
def test_a_checkpoint_with_another_key_is_deleted_with_a_line(change, tmp_path, monkeypatch, capsys):
    probe, out, data = PROBES["fine_tune"], tmp_path / "out", colours()
    cut_off(monkeypatch, "fine_tune", probe, out, at=3, data=data)
    encoder = small_encoder()
    if change == "settings":
        probe = dataclasses.replace(probe, weight_decay=0.02)
    elif change == "data":
        data = colours(train=59)
    elif change == "weights":
        with torch.no_grad():
            next(encoder.parameters()).add_(0.01)
    else:
        whole = (out / CHECKPOINT).read_bytes()
        (out / CHECKPOINT).write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    scores = list(probe.evaluate(encoder, data, out))
    printed = [line for line in capsys.readouterr().err.splitlines() if CHECKPOINT in line]
    assert len(printed) == 1 and "deleted it, training starts over" in printed[0]
    fresh = list(probe.evaluate(encoder, data, tmp_path / "fresh"))
    assert [score.value for score in scores] == [score.value for score in fresh]
    assert (out / "curve.json").read_text() == (tmp_path / "fresh" / "curve.json").read_text()


@pytest.mark.slow
def test_a_cell_of_the_benchmark_continues_too(tmp_path, monkeypatch, capsys):
    spec = f"scenes?size={SIZE}&train=12&val=2&test=8"
    source, _ = open_data(spec, SIZE, bad_images="skip", download=False)
    maker = encoder_cell(
        "random", seed=0, data=source, encoder=small_encoder().spec, task="random", train=TrainConfig(images=1)
    )
    cell = probe_cell(maker, "segmentation", PROBES["segmentation"], seed=0)
    values = []
    for out in (tmp_path / "whole", tmp_path / "cut"):
        artifacts = out / "artifacts" / cell.name
        assert run_cell(maker, out).state == "done"
        if out.name == "cut":
            with cut(monkeypatch, "segmentation", at=4):
                assert run_cell(cell, out).state == "failed"
            (artifacts / f".segmentation.png.{HOST}-999999999.tmp").touch()  # left by a killed writer
        assert run_cell(cell, out).state == "done"
        values.append([(row.metric, row.value) for row in read_measurements(out)])
        assert {path.name for path in artifacts.iterdir()} == {"curve.json", "per_class.csv", "segmentation.png"}
    assert values[0] == values[1]
    assert "segmentation: continues after step 3" in capsys.readouterr().err


def test_low_shot_continues_after_its_last_finished_fine_tuning(tmp_path, monkeypatch, capsys):
    probe = LowShot(percents=(50.0,), samples=2, steps=STEPS, epochs=0, batch_size=4, penalties=(1.0,), iterations=1)
    whole = [score.value for score in probe.evaluate(small_encoder(), scenes(), tmp_path / "whole")]
    out = tmp_path / "out"
    second = STEPS + 1  # reads of the first fine-tuning: its batches and its test
    with cut(monkeypatch, "fine_tune", at=second + 3), pytest.raises(Cut):
        list(probe.evaluate(small_encoder(), scenes(), out))
    capsys.readouterr()
    with cut(
        monkeypatch, "fine_tune", at=1 + (STEPS - 2) + 1 + 1
    ):  # one more than the remaining steps and the two tests
        assert [score.value for score in probe.evaluate(small_encoder(), scenes(), out)] == whole
    said = capsys.readouterr().err
    assert all(
        f"continues after step {k} of {out / f'50% sample {i}' / CHECKPOINT}" in said for i, k in ((0, STEPS), (1, 2))
    )
    for end in (out, tmp_path / "whole"):
        assert {path.name for path in end.rglob("*") if path.is_file()} == {"curve.json"}


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(PROBES["fine_tune"].evaluate(small_encoder(), colours()))
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".safetensors"]


def small_fit(encoder, *, factor=0.5, steps=4, resume=None):
    """Fit a linear layer to noise, without a probe."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    head = nn.Linear(encoder.stages[-1].channels, 2)

    def loss_of(batch):
        images = torch.rand(len(batch), 3, SIZE, SIZE, generator=generator)
        return nn.functional.cross_entropy(head(encoder.embed(images)), torch.from_numpy(batch) % 2)

    return fit(
        encoder,
        head,
        loss_of,
        batches(np.arange(10), 4, steps, seed=0),
        name="small",
        steps=steps,
        learning_rate=0.01,
        encoder_factor=factor,
        weight_decay=0.0,
        resume=resume,
    )


def test_without_a_terminal_lines_say_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    with torch.random.fork_rng():
        curve = small_fit(small_encoder())
    _, *lines = capsys.readouterr().err.splitlines()  # the first one is of the start
    assert [line.split(",")[0] for line in lines] == [f"small: {share} %" for share in (25, 50, 75, 100)]
    assert all(f"loss={loss:.4f}" in line for line, loss in zip(lines, curve, strict=True))
    assert "4 of 4 step" in lines[-1] and "00:00 left" in lines[-1]


def test_finished_training_is_not_repeated_until_its_curve_is_written(tmp_path):
    with torch.random.fork_rng():
        resume = Resume(tmp_path / CHECKPOINT, {"a": 1})
        curve = small_fit(small_encoder(), resume=resume)
        trained = small_encoder()
        assert small_fit(trained, resume=resume) == curve
        assert any(
            not torch.equal(a, b) for a, b in zip(trained.parameters(), small_encoder().parameters(), strict=True)
        )
        write_curve(tmp_path, curve)
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["curve.json"]


def test_each_parameter_learns_at_its_own_rate():
    """Adam's first step is the rate itself, whatever the gradient: see Kingma and Ba 2015, section 2.1."""
    encoder = small_encoder()
    factors = {name: (0.0, 0.25, 0.5)[i % 3] for i, (name, _) in enumerate(encoder.named_parameters())}
    before = {name: value.clone() for name, value in encoder.named_parameters()}
    with torch.random.fork_rng():
        small_fit(encoder, factor=factors, steps=1)
    for name, value in encoder.named_parameters():
        moved = (value - before[name]).abs().max().item()
        assert moved == pytest.approx(0.01 * factors[name], rel=1e-2), name


@every_probe
def test_some_test_pictures_are_drawn_and_the_same_for_every_seed(name, monkeypatch):
    """In a split sorted by class, the first images would show few classes."""
    probe, shown = PROBES[name], []
    method = {"detection": "_detect", "fine_tune": "_classify", "segmentation": "_segment"}[name]
    judge = getattr(type(probe), method)

    def listening(self, *args):
        shown.append(next(each for each in args if isinstance(each, np.ndarray)).tolist())
        return judge(self, *args)

    monkeypatch.setattr(type(probe), method, listening)
    data = small_scenes(train=12, val=2, test=40)
    for seed, count in ((0, 30), (1, 30), (0, 0)):
        list(dataclasses.replace(probe, seed=seed, test_images=count).evaluate(small_encoder(), data))
    first, second, every = shown
    assert first == second == sorted(set(first)) and len(first) == 30 and first != list(range(30))
    assert every == list(range(40))


def test_the_learning_rate_rises_over_a_twentieth_and_falls_as_a_cosine(monkeypatch):
    rates = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: rates.append(self.param_groups[0]["lr"]) or step(self))
    with torch.random.fork_rng():
        small_fit(small_encoder(), steps=40)
    at = np.arange(40)
    np.testing.assert_allclose(rates, 0.01 * np.minimum((at + 1) / 2, 0.5 + 0.5 * np.cos(np.pi * at / 40)))

"""Training from given weights: it starts at exactly these, resumes, records them, and refuses what does not fit."""

from __future__ import annotations

import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import save_file
from training_samples import DATA, ENCODER

from pretext.__main__ import main
from pretext.datasets import open_dataset
from pretext.encoders import build_encoder, load_encoder, read_record, save_encoder
from pretext.encoders.files import encoder_digest
from pretext.system.errors import UserError
from pretext.training import loop
from pretext.training.config import TrainConfig
from pretext.training.loop import train


@pytest.fixture
def given(tmp_path):
    """An encoder file whose weights no seed of a run draws; batch normalisation has other statistics too."""
    encoder = build_encoder(ENCODER, input_size=32, seed=77)
    for name, value in encoder.state_dict().items():
        if name.endswith("running_mean"):
            value.add_(0.25)
    save_encoder(encoder, tmp_path / "given.safetensors", {"task": "earlier", "images_seen": 5})
    return tmp_path / "given.safetensors"


def run(out, task="rotation", encoder=None, **settings):
    settings = {"steps": 4, "batch_size": 8, "log_every": 2, "workers": 0, "device": "cpu"} | settings
    return train(task, encoder, open_dataset(DATA), TrainConfig(**settings), out, image_size=32)


def tensors(encoder):
    return {name: value.clone() for name, value in encoder.state_dict().items()}


def are_equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_without_steps_the_encoder_is_the_given_one(tmp_path, given):
    file = run(tmp_path / "run", "random:untouched", init=str(given))
    assert are_equal(tensors(load_encoder(file)), tensors(load_encoder(given)))


@pytest.mark.parametrize("task", ["rotation", "context_encoder", "simclr:small", "moco", "byol:small"])
def test_every_copy_of_the_encoder_starts_at_the_given_weights(tmp_path, given, task, monkeypatch):
    found = []
    monkeypatch.setattr(loop, "_run", lambda model, *_: found.append(model))
    run(tmp_path / "run", task, init=str(given))
    (model,) = found
    wanted, state = tensors(load_encoder(given)), model.state_dict()
    copies = {name.removesuffix(next(iter(wanted))) for name in state if name.endswith(f".{next(iter(wanted))}")}
    assert "encoder." in copies and len(copies) == (2 if task in ("moco", "byol:small") else 1)
    for prefix in copies:
        assert are_equal({name: state[prefix + name] for name in wanted}, wanted)


def test_one_step_goes_from_the_given_weights(tmp_path, given):
    file = run(tmp_path / "run", init=str(given), steps=1)
    other = run(tmp_path / "other", encoder=load_encoder(given), steps=1)  # weights handed over in Python
    stepped = tensors(load_encoder(file))
    assert are_equal(stepped, tensors(load_encoder(other)))
    assert not are_equal(stepped, tensors(load_encoder(given)))


def test_a_stopped_run_from_weights_goes_on_to_the_same_bytes(tmp_path, given, monkeypatch):
    whole = run(tmp_path / "whole", "moco", init=str(given)).read_bytes()
    real, calls = loop._step, 0

    def interrupted(*arguments):
        nonlocal calls
        calls += 1
        if calls == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(loop, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", "moco", init=str(given))
    monkeypatch.undo()
    assert run(tmp_path / "part", "moco", init=str(given)).read_bytes() == whole


def test_the_record_names_the_weights_and_their_path_does_not_matter(tmp_path, given, capsys):
    file = run(tmp_path / "run", init=str(given))
    assert f"starts from {given}: all " in capsys.readouterr().err
    record = read_record(file)["record"]
    assert record["started_from"] == {"source": str(given), "task": "earlier", "images_seen": 5}
    assert record["encoder_sha256"] == encoder_digest(load_encoder(given))
    assert record["encoder"] == ENCODER
    moved = shutil.move(given, tmp_path / "moved.safetensors")
    assert run(tmp_path / "run", init=str(moved)) == file


def test_a_spec_with_weights_starts_a_run_too(tmp_path, given):
    weights = tmp_path / "plain.safetensors"
    save_file(tensors(load_encoder(given)), weights)
    file = run(tmp_path / "run", "random:untouched", init=f"{ENCODER}&weights={weights}")
    assert are_equal(tensors(load_encoder(file)), tensors(load_encoder(given)))
    started = read_record(file)["record"]["started_from"]
    assert started["weights"]["left_random"] == [] and started["source"].endswith(f"weights={weights}")


def test_a_run_does_not_go_on_from_other_weights(tmp_path, given):
    run(tmp_path / "run", init=str(given))
    with pytest.raises(UserError, match=r"holds a run with encoder_sha256 = \w+, but this run has .* = None; give ano"):
        run(tmp_path / "run", encoder=ENCODER)
    other = tmp_path / "other.safetensors"
    save_encoder(build_encoder(ENCODER, input_size=32, seed=78), other, {})
    with pytest.raises(UserError, match="holds a run with encoder_sha256"):
        run(tmp_path / "run", init=str(other))


def test_what_does_not_fit_is_one_line_before_anything_is_written(tmp_path, given):
    part = tensors(load_encoder(given))
    part.pop(next(iter(part)))
    save_file(part, tmp_path / "part.safetensors")
    small = tmp_path / "small.safetensors"
    save_encoder(build_encoder(ENCODER, input_size=24, seed=0), small, {})
    for encoder, init, message in (
        (None, None, "no encoder is given; name one, or weights to start from"),
        (load_encoder(given), str(given), "the encoder has weights of its own"),
        ("alexnet?width=0.2", str(given), r"is alexnet\?width=0.1&stem_stride=2, not alexnet\?width=0.2; give the enc"),
        (None, str(tmp_path / "nowhere"), "nowhere does not exist"),
        (None, str(small), "image_size is 32, but the encoder was made for 24 px"),
        (None, f"{ENCODER}&weights={tmp_path / 'part.safetensors'}", "missing .*; nothing was loaded; --allow-partial"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            run(tmp_path / "run", encoder=encoder, init=init)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
    assert run(tmp_path / "run", encoder="alexnet?stem_stride=2&width=0.1", init=str(given), steps=1).is_file()


def test_the_command_takes_the_architecture_from_the_weights(tmp_path, given, capsys):
    words = ["train", "rotation", "--init", str(given), "--data", DATA, "--image-size", "32", "--steps", "1"]
    words += ["--batch-size", "8", "--workers", "0", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    assert load_encoder(tmp_path / "run" / "encoder.safetensors").spec == ENCODER
    with pytest.raises(UserError, match=r"not alexnet\?stem_stride=4; give the encoder"):
        main([*words, "--encoder", "alexnet?stem_stride=4"])

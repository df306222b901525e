"""Watching a run: what is measured, on which pictures, and that the run does not depend on it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from training_samples import DATA, ENCODER, pictures, run, stop_in_step

from pretext.datasets import at_size, open_dataset
from pretext.encoders import build_encoder, load_encoder
from pretext.system.checkpoint import read_checkpoint
from pretext.system.errors import UserError
from pretext.training import loop
from pretext.training.config import TrainConfig
from pretext.training.loop import train
from pretext.training.watching import Watch, knn_accuracy

pytestmark = pytest.mark.slow


def watched(out):
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if "watch" in row]


@pytest.mark.parametrize("size", [7, 300])
def test_knn_is_scikit_learns(size):
    drawn = np.random.default_rng(size)
    labels, answers = drawn.integers(0, 5, size), drawn.integers(0, 5, 200)
    centres = drawn.normal(size=(5, 12)) + 3
    database, queries = (centres[each] + drawn.normal(size=(len(each), 12)) for each in (labels, answers))
    oracle = KNeighborsClassifier(
        min(20, size), metric="cosine", algorithm="brute", weights=lambda distances: np.exp((1 - distances) / 0.07)
    )
    oracle.fit(database - database.mean(axis=0), labels)
    expected = 100 * np.mean(oracle.predict(queries - database.mean(axis=0)) == answers)
    found = knn_accuracy(*(torch.from_numpy(each) for each in (database.astype(np.float32), labels)),
                         *(torch.from_numpy(each) for each in (queries.astype(np.float32), answers)))  # fmt: skip
    assert found == pytest.approx(expected) and 30 < found < 100


@pytest.mark.parametrize("task", ["context_encoder", "simclr:small"])
@pytest.mark.parametrize("watch", ["knn", "rankme"])
def test_a_watched_run_ends_with_the_same_bytes(tmp_path, task, watch):
    plain = run(tmp_path / "plain", task)
    file = run(tmp_path / "watched", task, watch=watch, watch_every=4)
    assert file.read_bytes() == plain.read_bytes()
    ends = [read_checkpoint(each.with_name("checkpoint.safetensors"))[0] for each in (plain, file)]
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert [(row["step"], row["images"]) for row in watched(tmp_path / "watched")] == [(4, 64), (6, 96)]


def test_random_state_modes_and_statistics_are_left_as_they_were():
    encoder = build_encoder(ENCODER, input_size=32, seed=0).train()
    next(encoder.children()).eval()
    modes = [part.training for part in encoder.modules()]
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    watch = Watch("knn", open_dataset(DATA), side=32, workers=2)
    assert watch.measure(encoder) == watch.measure(encoder)
    assert torch.equal(torch.get_rng_state(), states[0]) and (np.random.get_state()[1] == states[1]).all()
    assert [part.training for part in encoder.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_classes_of_two_colours_are_told_apart(tmp_path):
    for number in range(60):
        file = tmp_path / ("dark", "light")[number % 2] / f"{number:02}.png"
        file.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 100 + 155 * (number % 2), (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    watch = Watch("knn", open_dataset(f"folder:{tmp_path}"), side=32, workers=0)
    assert watch.measure(build_encoder(ENCODER, input_size=32, seed=0)) == {"knn_top1": 100.0}


def test_rank_me_is_that_of_the_training_pictures(tmp_path):
    file = run(tmp_path / "run", watch="rankme", watch_every=6)
    images = at_size(open_dataset(DATA).split("train"), 32, bad_images="stop").images
    with torch.no_grad():
        vectors = load_encoder(file)(images)[-1].mean(dim=(2, 3)).double().numpy()
    values = np.linalg.svd(vectors, compute_uv=False)
    shares = values / values.sum()
    (row,) = watched(tmp_path / "run")
    assert row["watch"] == {"rank_me": pytest.approx(float(np.exp(-(shares * np.log(shares)).sum())), rel=1e-3)}


class WithoutTest(dict):
    def __getitem__(self, name):
        assert name != "test", "the test split is read"
        return super().__getitem__(name)


def test_labels_reach_the_watch_only_and_test_pictures_nobody(tmp_path, monkeypatch):
    data, seen = open_dataset(DATA), []
    splits = WithoutTest(data.splits)
    for part in data.splits.values():
        part.splits = splits
    real = loop.micro_batches

    def recorded(batch, *others):
        seen.append(batch.labels)
        return real(batch, *others)

    monkeypatch.setattr(loop, "micro_batches", recorded)
    config = TrainConfig(steps=2, batch_size=8, workers=0, device="cpu", watch="knn", watch_every=1)
    train("rotation", ENCODER, data, config, tmp_path / "run", image_size=32)
    assert seen == [None, None] and len(watched(tmp_path / "run")) == 2


def test_a_resumed_run_has_the_same_measurements(tmp_path, monkeypatch):
    run(tmp_path / "whole", watch="knn", watch_every=1)
    stop_in_step(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", watch="knn", watch_every=1)
    monkeypatch.undo()
    assert len(watched(tmp_path / "part")) == 3
    run(tmp_path / "part", watch="knn", watch_every=1)
    assert watched(tmp_path / "part") == watched(tmp_path / "whole")


def test_pictures_without_a_class_can_be_watched_by_rank_only(tmp_path):
    spec = pictures(tmp_path / "data", broken={3, 9})
    with pytest.raises(UserError, match=r"^--watch knn needs one class per picture, and folder:.*give --watch rankme$"):
        train_on(spec, tmp_path / "knn", "knn")
    assert not (tmp_path / "knn").exists()
    train_on(spec, tmp_path / "rank", "rankme")
    assert [1 <= row["watch"]["rank_me"] <= 32 for row in watched(tmp_path / "rank")] == [True]


def test_a_split_without_sound_pictures_is_named(tmp_path):
    data = open_dataset(pictures(tmp_path / "data", broken=range(32)))
    with pytest.raises(UserError, match="train has 0 pictures to watch; leave out --watch, or add some"):
        Watch("rankme", data, side=32, workers=0)


def train_on(spec, out, watch):
    config = TrainConfig(steps=2, batch_size=8, workers=0, device="cpu", watch=watch)
    train("autoencoder", ENCODER, open_dataset(spec), config, out, image_size=32)

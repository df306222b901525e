"""Spread and effective rank against known values, and the warning of a collapsed run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from training_samples import run

from pretext.encoders import build_encoder
from pretext.system.errors import UserError
from pretext.training.collapse import feature_statistics, rank_me, spread


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_spread_is_one_around_the_sphere_and_zero_when_collapsed():
    assert spread(normal(4000, 32)).item() == pytest.approx(1, abs=0.02)
    assert spread(torch.rand(10, 1) * torch.ones(10, 32)).item() == pytest.approx(0, abs=1e-6)


def test_rank_me_is_the_entropy_of_singular_values():
    vectors = normal(20, 7, seed=1)
    values = np.linalg.svd(vectors.double().numpy(), compute_uv=False)
    shares = values / values.sum()
    assert rank_me(vectors).item() == pytest.approx(float(np.exp(-(shares * np.log(shares)).sum())), rel=1e-3)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_rank_me_counts_directions_of_equal_size(rank):
    basis = torch.linalg.qr(normal(8, 8))[0][:rank]
    assert rank_me(torch.linalg.qr(normal(40, rank))[0] @ basis).item() == pytest.approx(rank, rel=1e-2)


def test_rank_me_of_zero_vectors_is_one():
    assert rank_me(torch.zeros(5, 4)).item() == pytest.approx(1, abs=1e-4)


def test_features_of_a_diverged_encoder_are_one_line():
    encoder = build_encoder("alexnet?width=0.125&stem_stride=1", input_size=32, seed=0)
    with torch.no_grad():
        next(encoder.parameters()).fill_(float("inf"))
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    with pytest.raises(UserError, match="features are not finite; lower --learning-rate or set --clip-norm"):
        feature_statistics(encoder, images)


def test_an_encoder_is_left_as_it_was():
    encoder = build_encoder("alexnet?width=0.125&stem_stride=1", input_size=32, seed=0).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    assert feature_statistics(encoder, images)["feature_std"] > 0.05
    assert encoder.training and all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


@pytest.mark.slow
def test_a_run_says_that_its_encoder_has_collapsed(tmp_path, capfd, monkeypatch):
    run(tmp_path / "fine")
    assert "collapsed" not in capfd.readouterr().err
    monkeypatch.setattr("pretext.training.collapse.spread", lambda vectors: 0 * vectors.sum())
    run(tmp_path / "same")
    printed = capfd.readouterr().err
    assert printed.count("same: the encoder has collapsed at step") == 1 and "lower --learning-rate" in printed
    rows = [json.loads(line) for line in (tmp_path / "same" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["features"]["feature_std"] == 0 and rows[-1]["features"]["rank_me"] > 1


def test_a_batch_of_one_picture_is_no_collapse(tmp_path, capfd):
    run(tmp_path / "run", "autoencoder", batch_size=1, steps=2, log_every=1)
    assert "collapsed" not in capfd.readouterr().err

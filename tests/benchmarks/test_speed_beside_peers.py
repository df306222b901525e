"""The training steps beside peers: the plain network is the released one, and turns, ranges and ratios are right."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.timing import peers
from benchmarks.timing.peers import Compared, compared, plain_discriminator, plain_generator
from pretext.encoders import build_encoder
from pretext.tasks import build_task


def sizes(module: torch.nn.Module) -> list[tuple[int, ...]]:
    return sorted(tuple(each.shape) for each in module.parameters())


@pytest.mark.slow
def test_the_plain_networks_have_the_released_networks_weights() -> None:
    model = build_task(
        "context_encoder:released", build_encoder("released", input_size=128, seed=0), labels=None, seed=0
    )
    assert sizes(plain_generator()) == sizes(torch.nn.ModuleList([model.encoder, model.decoder]))
    assert sizes(plain_discriminator()) == sizes(model.discriminator)
    assert sum(each.numel() for each in (*plain_generator().parameters(), *plain_discriminator().parameters())) > 73e6


@pytest.mark.slow
def test_the_plain_step_trains_both_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "BATCH", 2)
    before, built = {}, []

    def remember(build):
        def made():
            network = build()
            built.append(network)
            before[len(built)] = [each.detach().clone() for each in network.parameters()]
            return network

        return made

    monkeypatch.setattr(peers, "plain_generator", remember(plain_generator))
    monkeypatch.setattr(peers, "plain_discriminator", remember(plain_discriminator))
    next(peers._plain_steps(torch.contiguous_format))
    for number, network in enumerate(built, start=1):
        moved = [not torch.equal(*pair) for pair in zip(network.parameters(), before[number], strict=True)]
        assert sum(moved) >= len(moved) - 2  # a bias before batch normalisation has no gradient


def test_sides_take_turns_and_the_peer_is_at_its_best_setting() -> None:
    order, counted = [], itertools.count()

    def measure(name, values):
        def one() -> float:
            order.append(name)
            return values[next(counted) // 3]

        return one

    found = compared(
        "work", measure("ours", [9, 30, 20]), {"slow": measure("slow", [1, 2, 3]), "fast": measure("fast", [4, 5, 6])}
    )
    assert order == 3 * ["ours", "slow", "fast"]
    assert found == Compared("work", [9, 30, 20], [4, 5, 6], "fast") and found.ratio == 4
    assert found.line().split() == ["work", "20.0", "(9.0–30.0)", "5.0", "(4.0–6.0)", "4.00", "fast"]


@pytest.mark.slow
def test_simclr_is_timed_from_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        file = tmp_path / "photos" / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file)
    for name, value in {"STEPS": 1, "WARM_UP": 1, "SIMCLR_BATCH": 4, "SIMCLR_SIDE": 32}.items():
        monkeypatch.setattr(peers, name, value)
    ours = peers.our_simclr(f"folder:{tmp_path / 'photos'}", tmp_path / "linked")
    linked = [file.resolve() for file in (tmp_path / "linked" / "pictures" / "all").iterdir()]
    assert 0 < len(linked) < 30 and all(file.parent == tmp_path / "photos" for file in linked)
    assert ours() > 0 and peers.lightly_simclr(tmp_path / "linked", 0) > 0

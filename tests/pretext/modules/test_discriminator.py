"""The discriminator: its loss with smoothed labels, spectral normalisation, and the warning that it has won."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from task_samples import SMALL, batch, noise
from training_samples import run

from pretext.encoders import build_encoder
from pretext.modules.discriminator import Discriminator, adversarial_loss
from pretext.system.errors import UserError
from pretext.tasks import build_task

ADVERSARIAL = "context_encoder:adversarial?mask=central"


@pytest.mark.parametrize("label", [0.0, 0.9, 1.0])
def test_the_loss_is_the_cross_entropy_with_one_label(label: float) -> None:
    logits = np.random.default_rng(0).normal(0, 2, 9)
    real = 1 / (1 + np.exp(-logits))
    expected = -(label * np.log(real) + (1 - label) * np.log(1 - real)).mean()
    assert adversarial_loss(torch.from_numpy(logits), label).item() == pytest.approx(expected)


def test_smoothing_lowers_the_label_of_real_pictures_only() -> None:
    losses = {}
    for smoothing in (0.0, 0.2):
        task = build_task(
            f"{ADVERSARIAL}&label_smoothing={smoothing}", build_encoder(SMALL, input_size=32, seed=0), seed=0
        )
        given: list[torch.Tensor] = []
        task.discriminator.register_forward_hook(lambda _, seen, out, given=given: given.append(out.detach()))
        losses[smoothing] = next(loss for player, loss in task.losses(batch(noise(6))) if player == "discriminator")
        real, fake = given[:2]
    expected = adversarial_loss(real, 0.8) + adversarial_loss(fake, 0.0)
    assert losses[0.2].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses[0.0].item() == pytest.approx(
        (adversarial_loss(real, 1.0) + adversarial_loss(fake, 0.0)).item(), rel=1e-5
    )
    with pytest.raises(UserError, match=r"label_smoothing is 0\.5"):
        build_task(f"{ADVERSARIAL}&label_smoothing=0.5", build_encoder(SMALL, input_size=32, seed=0), seed=0)


def test_spectral_normalisation_makes_every_kernel_no_longer_than_one() -> None:
    network = Discriminator(16, channels=3, width=0.5, spectral=True)
    for _ in range(200):  # each pass in training refines the estimate
        network(torch.rand(2, 3, 16, 16))
    network.eval()
    kernels = [layer.weight for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert len(kernels) == 3
    for kernel in kernels:
        assert torch.linalg.svdvals(kernel.flatten(1))[0].item() == pytest.approx(1, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("answers", "wins"), [((5.0, -5.0, -5.0), True), ((5.0, 5.0, 5.0), False)])
def test_a_discriminator_that_is_nearly_always_right_is_said(answers, wins, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    task = build_task(ADVERSARIAL, build_encoder(SMALL, input_size=32, seed=0), seed=0)
    each = itertools.cycle(answers)  # of the real pictures, the painted ones, and these for the generator
    monkeypatch.setattr(task.discriminator, "forward", lambda images: torch.full((len(images),), next(each)))
    list(task.losses(batch(noise(4))))
    assert task.warning() is None  # not after one step
    for _ in range(200):
        list(task.losses(batch(noise(4))))
    assert (task.warning() is not None) == wins
    if wins:
        assert "right about 99% of the pictures" in task.warning() and "lower discriminator_rate" in task.warning()


@pytest.mark.slow
def test_a_run_prints_the_warning_of_its_task_once(tmp_path, capfd, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("pretext.tasks.context_encoder.ContextEncoder.warning", lambda self: "something is wrong")
    run(tmp_path / "run", steps=4, log_every=1)
    assert capfd.readouterr().err.count("run: at step 1 something is wrong") == 1

"""Random weights: untouched, or with the statistics of batch normalisation from pictures."""

from __future__ import annotations

import torch
from task_samples import batch, noise

from pretext.encoders import build_encoder
from pretext.tasks import build_task

NORMED = "alexnet?width=0.1&stem_stride=1"


def norms(encoder: torch.nn.Module) -> list[torch.nn.BatchNorm2d]:
    return [module for module in encoder.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def test_weights_stay_and_every_normalised_channel_has_mean_0_and_variance_1() -> None:
    encoder, drawn = (build_encoder(NORMED, input_size=32, seed=3) for _ in range(2))
    images = noise(40)
    build_task("random", encoder, seed=0).prepare(batch(images))
    assert all(torch.equal(*pair) for pair in zip(encoder.parameters(), drawn.parameters(), strict=True))
    outputs: list[torch.Tensor] = []
    for norm in norms(encoder):
        norm.register_forward_hook(lambda _, given, out: outputs.append(out.clone()))
    with torch.no_grad():
        encoder.eval()(images)
    assert len(outputs) == 5
    for out in outputs:
        variance, mean = torch.var_mean(out, dim=(0, 2, 3), correction=0)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-3, rtol=0)
        torch.testing.assert_close(variance, torch.ones_like(variance), atol=2e-2, rtol=0)


def test_untouched_means_untouched() -> None:
    task = build_task("random:untouched", build_encoder(NORMED, input_size=32, seed=3), seed=0)
    assert task.prepares_on == 0
    fresh = build_encoder(NORMED, input_size=32, seed=3).state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in task.encoder.state_dict().items())
    assert all(not norm.running_mean.any() for norm in norms(task.encoder))


def test_batch_normalisation_is_left_as_training_has_it() -> None:
    encoder = build_encoder(NORMED, input_size=32, seed=3)
    before = [(norm.momentum, norm.training) for norm in norms(encoder)]
    build_task("random", encoder, seed=0).prepare(batch(noise(8)))
    assert [(norm.momentum, norm.training) for norm in norms(encoder)] == before

"""Frozen prototypes under the optimisers of the training loop: they rest, and begin anew when they are released."""

from __future__ import annotations

import importlib

import pytest
import torch
from task_samples import COARSE, batch, built, noise

from pretext.training.config import TrainConfig
from pretext.training.micro_batches import micro_batches
from pretext.training.optimisers import make_optimizers
from pretext.training.run_folder import RunFolder

loop = importlib.import_module("pretext.training.loop")
CPU = torch.device("cpu")
SPECS = {"swav": "swav?hidden=16&local_crops=1&freeze=0.5", "dino": "dino?hidden=16&local_crops=1&freeze=0.5"}
FRESH = {
    "adam": lambda weight, c: torch.optim.Adam([weight], c.learning_rate, (c.beta1, c.beta2), 1e-8, c.weight_decay),
    "adamw": lambda weight, c: torch.optim.AdamW([weight], c.learning_rate, (c.beta1, c.beta2), 1e-8, c.weight_decay),
    "sgd": lambda weight, c: torch.optim.SGD([weight], c.learning_rate, c.beta1, weight_decay=c.weight_decay),
}


def prototypes(model):
    return (model.prototypes if hasattr(model, "prototypes") else model.head.prototypes).weight


def take_step(model, optimizers, config, number):
    parts = micro_batches(batch(noise(4, seed=number)), config, number, CPU)
    loop._step(model, parts, optimizers, config, CPU)


@pytest.mark.parametrize("optimizer", sorted(FRESH))
@pytest.mark.parametrize("task", sorted(SPECS))
def test_frozen_prototypes_rest_and_then_move_as_at_the_start_of_a_run(task, optimizer, tmp_path):
    config = TrainConfig(
        batch_size=4, accumulate=2, optimizer=optimizer, weight_decay=0.1, learning_rate=0.02, clip_norm=1.0
    )
    model = built(SPECS[task], COARSE)
    optimizers, before = make_optimizers(model, config), prototypes(model).detach().clone()
    encoder = model.encoder.state_dict()
    first = {name: value.clone() for name, value in encoder.items()}
    for number in range(3):
        take_step(model, optimizers, config, number)
        model.after_step(0.1 * (number + 1))
    assert torch.equal(prototypes(model), before)
    assert any(not torch.equal(value, first[name]) for name, value in encoder.items())

    folder = RunFolder(tmp_path, {})  # a resumed run moves them as one that went on
    folder.save(model, optimizers, loop.RunState(3, 0.0, 0.0, 1.0, finished=False))
    resumed = built(SPECS[task], COARSE)
    its_optimizers = make_optimizers(resumed, config)
    folder.restore(resumed, its_optimizers, folder.checkpoint().tensors)
    for each, own in ((model, optimizers), (resumed, its_optimizers)):
        each.after_step(0.5)
        take_step(each, own, config, 3)
    weight = torch.nn.Parameter(before.clone())
    weight.grad = prototypes(model).grad.clone()
    FRESH[optimizer](weight, config).step()
    torch.testing.assert_close(prototypes(model), weight, rtol=0, atol=1e-6)
    assert (prototypes(model) - before).abs().max() > 1e-4
    assert torch.equal(prototypes(model), prototypes(resumed))

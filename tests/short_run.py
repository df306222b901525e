"""A short run of a task on drawn scenes, as the tests need it that ask whether a task learns."""

from __future__ import annotations

import torch

from pretext.collapse import watched
from pretext.datasets import open_dataset
from pretext.datasets.packed import at_size
from pretext.encoders import build_encoder
from pretext.optim import make_optimizer, rate_at
from pretext.tasks import Batch, build_task


def short_run(spec, *, steps=60, count=64):
    """Return the loss of each step, the trained task, and the spread of its features on pictures it has not seen."""
    data = open_dataset("scenes?size=32&train=2000&val=64&test=64")
    seen, held_out = (
        torch.stack([picture for picture, _ in at_size(data.split(split), 32, bad_images="stop")])
        for split in ("train", "test")
    )
    encoder = build_encoder("alexnet?width=0.125&stem_stride=1", input_size=32, seed=0)
    task = build_task(spec, encoder, seed=0).train()
    (parameters,) = task.players().values()
    options = {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05, "momentum": 0.9, "beta2": 0.999}
    optimiser = make_optimizer(parameters, **options)
    order, losses = torch.Generator().manual_seed(0), []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * rate_at(step / steps, schedule="cosine", warmup=0.05)
        images = seen[torch.randint(len(seen), (count,), generator=order)]
        for _, loss in task.losses(Batch(images, None, torch.Generator().manual_seed(step))):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        task.after_step((step + 1) / steps)
    return losses, task, watched(encoder, held_out)["feature_std"]

"""Time training steps beside other implementations, in turns, each peer at the best of several settings.

`released`: one adversarial step of the released inpainting network on a batch in memory, beside a network and a step
written in plain PyTorch from the description in the paper and its code: convolutions, two Adam optimisers, three passes
of the discriminator. `simclr`: from picture files to the optimiser's step, beside lightly's transform, projector, loss
and torchvision's loader, with several numbers of worker processes.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing.loading import files_of, link, peer_batches
from benchmarks.timing.steps import BareStep, steady_rate
from pretext.datasets import open_dataset
from pretext.datasets.pictures import equally_large
from pretext.encoders import build_encoder
from pretext.system.device import device_of
from pretext.system.precision import Precision, autocast
from pretext.tasks import build_task, task_training
from pretext.tasks.base import Batch
from pretext.training.config import TrainConfig
from pretext.training.loop import train

TURNS = 3
"""Measurements of each side, alternately."""
STEPS, WARM_UP = 6, 2
"""Timed steps of a measurement, and steps before them."""
BATCH, SIDE = 64, 128
"""Pictures per step of the released network, and their side in pixels."""
SIMCLR_BATCH, SIMCLR_SIDE = 128, 64
WORKERS = (0, 1, 2)
"""Numbers of worker processes that the peer is tried with."""
Measure = Callable[[], float]
"""Returns pictures per second."""


class Compared(NamedTuple):
    """Pictures per second of both sides, one value a turn; the peer's at its best setting."""

    work: str
    ours: list[float]
    theirs: list[float]
    setting: str
    """The peer's best setting."""

    @property
    def ratio(self) -> float:
        """Median of ours over median of theirs."""
        return statistics.median(self.ours) / statistics.median(self.theirs)

    def line(self) -> str:
        """Return the row of the table: medians, and the range in brackets."""
        sides = (f"{statistics.median(each):>7,.1f} ({min(each):,.1f}–{max(each):,.1f})" for each in self[1:3])
        ours, theirs = sides
        return f"{self.work:<34} {ours:<26} {theirs:<26} {self.ratio:>5.2f}  {self.setting}"


def print_peers(spec: str, precision: Precision) -> None:
    """Print a row for each comparison.

    Args:
        spec: Data set of picture files.
        precision: Number format of the layers, on both sides.
    """
    threads = torch.get_num_threads()
    print(f"{threads} thread(s), PyTorch {torch.__version__}; pictures per second: median (range) of {TURNS} turns\n")
    print(f"{'work':<34} {'ours':<26} {'peer':<26} {'ratio':>5}  best setting of the peer")
    ours, theirs = partial(our_released, precision), plain_released(precision)
    print(compared("released network, adversarial step", ours, theirs).line(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(simclr_compared(spec, Path(folder), precision).line(), flush=True)


def simclr_compared(spec: str, folder: Path, precision: Precision = "auto") -> Compared:
    """Measure SimCLR from files to the optimiser's step on both sides; the pictures are linked into a folder."""
    settings = {f"{number} workers": partial(lightly_simclr, folder, number, precision) for number in WORKERS}
    return compared(f"SimCLR, ResNet-18, {SIMCLR_SIDE} px, from files", our_simclr(spec, folder, precision), settings)


def compared(work: str, ours: Measure, theirs: Mapping[str, Measure]) -> Compared:
    """Measure both sides in turns, and keep the peer's setting with the best median."""
    mine: list[float] = []
    others: dict[str, list[float]] = {name: [] for name in theirs}
    for _ in range(TURNS):
        mine.append(ours())
        for name, measure in theirs.items():
            others[name].append(measure())
    best = max(others, key=lambda name: statistics.median(others[name]))
    return Compared(work, mine, others[best], best)


def rate(steps: Iterator[object], batch: int) -> float:
    """Return the pictures per second of `STEPS` steps after `WARM_UP` others."""
    return steady_rate(steps, batch, warm_up=WARM_UP, timed=STEPS)


def our_released(precision: Precision) -> float:
    """Return the speed of the task `context_encoder:released` as published."""
    device = device_of("auto")
    task = "context_encoder:released"
    published = {key: value for key, value in task_training(task).items() if key not in ("encoder", "image_size")}
    model = build_task(task, build_encoder("released", input_size=SIDE, seed=0), labels=None, seed=0).to(device)
    take_step = BareStep(model, TrainConfig(steps=1, precision=precision, **published))
    batch = Batch(equally_large(_pictures().to(device)), None, torch.Generator(device).manual_seed(0))
    return rate(map(take_step, itertools.repeat(batch)), BATCH)


def plain_released(precision: Precision) -> dict[str, Measure]:
    """Return measurements of the same step in plain PyTorch, in both memory formats."""
    return {
        "channels last": lambda: rate(_plain_steps(torch.channels_last, precision), BATCH),
        "channels first": lambda: rate(_plain_steps(torch.contiguous_format, precision), BATCH),
    }


def _plain_steps(layout: torch.memory_format, precision: Precision = "auto") -> Iterator[None]:
    device = device_of("auto")
    generator, discriminator = plain_generator(), plain_discriminator()
    for network in (generator, discriminator):
        network.to(device).to(memory_format=layout).train()
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.5, 0.999))
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    whole = (_pictures().to(device).float() / 127.5 - 1).to(memory_format=layout)
    centre = whole[:, :, SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4]
    seen = whole.clone()
    seen[:, :, SIDE // 4 + 4 : -SIDE // 4 - 4, SIDE // 4 + 4 : -SIDE // 4 - 4] = 0
    weight = torch.full_like(centre, 0.998)
    weight[:, :, 4:-4, 4:-4] = 0.0998
    one, zero = torch.ones(BATCH, device=device), torch.zeros(BATCH, device=device)
    while True:
        d_optimizer.zero_grad()
        with autocast(precision, device):
            fake = generator(seen)
            loss: Any = F.binary_cross_entropy_with_logits(discriminator(centre).flatten(), one)
            loss = loss + F.binary_cross_entropy_with_logits(discriminator(fake.detach()).flatten(), zero)
        loss.backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        with autocast(precision, device):
            adversarial = F.binary_cross_entropy_with_logits(discriminator(fake).flatten(), one)
            joint = 0.001 * adversarial + (weight * (fake - centre).square()).mean()
        joint.backward()
        g_optimizer.step()
        yield


def plain_generator() -> nn.Sequential:
    """Return the released encoder and decoder in plain layers."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in (64, 64, 128, 256, 512):
        layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True)]
        inputs = outputs
    del layers[1]  # the first convolution has no normalisation
    layers += [nn.Conv2d(inputs, 4000, 4), nn.BatchNorm2d(4000), nn.LeakyReLU(0.2, inplace=True)]
    layers += [nn.ConvTranspose2d(4000, 512, 4), nn.BatchNorm2d(512), nn.ReLU(inplace=True)]
    inputs = 512
    for outputs in (256, 128, 64):
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        inputs = outputs
    return nn.Sequential(*layers, nn.ConvTranspose2d(inputs, 3, 4, 2, 1), nn.Tanh())


def plain_discriminator() -> nn.Sequential:
    """Return the released discriminator of the centre in plain layers."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in (64, 128, 256, 512):
        layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True)]
        inputs = outputs
    del layers[1]
    return nn.Sequential(*layers, nn.Conv2d(inputs, 1, 4))


def our_simclr(spec: str, folder: Path, precision: Precision = "auto") -> Measure:
    """Return the measurement of `train`, and link the training pictures into `folder` for the peer."""
    data = open_dataset(spec)
    link(files_of(data.split("train")), folder / "pictures")
    steps = 5 * STEPS
    config = TrainConfig(steps=steps, batch_size=SIMCLR_BATCH, log_every=STEPS, samples=0, precision=precision)

    def measure() -> float:
        with tempfile.TemporaryDirectory() as out:
            train("simclr", "torchvision:resnet18", data, config, Path(out, "run"), image_size=SIMCLR_SIDE)
            log = [json.loads(line) for line in Path(out, "run", "log.jsonl").read_text().splitlines()]
        return statistics.median(row["images_per_second"] for row in log[1:])  # the first ones are the warm-up

    return measure


def lightly_simclr(folder: Path, workers: int, precision: Precision = "auto") -> float:
    """Return the speed of lightly's parts on the pictures linked into a folder."""
    return rate(lightly_steps(folder, workers, precision=precision)[1], SIMCLR_BATCH)


def lightly_steps(
    folder: Path, workers: int, *, steps: int | None = None, seed: int = 0, precision: Precision = "auto"
) -> tuple[nn.Module, Iterator[None]]:
    """Return a ResNet-18 and the steps that train it by lightly's parts, with the settings of its own benchmarks.

    Args:
        folder: Holds the folder `pictures`.
        workers: Number of processes that load.
        steps: Length of the run; the learning rate falls to 0 by a cosine. None leaves it constant.
        seed: Seed of the order of pictures; the weights are drawn from torch's own generator.
        precision: Number format of the layers.
    """
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms.simclr_transform import SimCLRTransform
    from torchvision.models import resnet18

    device = device_of("auto")
    views = SimCLRTransform(input_size=SIMCLR_SIDE)
    batches = peer_batches(folder / "pictures", views, SIMCLR_BATCH, workers, seed=seed)
    backbone = resnet18()
    backbone.fc = nn.Identity()
    model = nn.Sequential(backbone, SimCLRProjectionHead(512, 512, 128)).to(device).train()
    criterion = NTXentLoss(temperature=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) if steps else None

    def training() -> Iterator[None]:
        for first, second in batches:
            with autocast(precision, device):
                loss: Any = criterion(model(first.to(device)), model(second.to(device)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
            yield

    return backbone, training()


def _pictures() -> UInt8[Tensor, "B 3 S S"]:
    return torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

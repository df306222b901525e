"""The one training loop, read top to bottom: `train`, and what it calls."""

from __future__ import annotations

import copy
import math
import os
import time
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pretext.datasets.base import ImageDataset
from pretext.datasets.packed import at_size
from pretext.encoders import build_encoder
from pretext.system.device import device_of
from pretext.system.distributed import average_gradients, rank, world
from pretext.system.stopping import stop_politely
from pretext.tasks import build_task, task_config
from pretext.tasks.base import Batch, Task, label_kind
from pretext.training.config import TrainConfig
from pretext.training.loading import Loaded, load_batches
from pretext.training.log import TrainingLog
from pretext.training.optimisers import make_optimizer, rate_at
from pretext.training.run_folder import Reached, RunFolder, run_settings

SHEET_IMAGES = 8


def train(
    task: str,
    encoder: str,
    data: ImageDataset,
    config: TrainConfig,
    out: Path,
    *,
    image_size: int,
    task_settings: Any = None,
) -> Path:
    """Train an encoder by a pretext task; go on where an earlier call in the same folder stopped.

    Args:
        task: A spec, `context_encoder:adversarial?loss=l1`.
        encoder: An encoder spec.
        data: Its training split is seen, without targets unless the task needs labels.
        config: How long, how fast, on what.
        out: Folder of the run: `encoder.safetensors`, `checkpoint.safetensors`, `log.jsonl`, `run.json`, `samples/`.
        image_size: Side in pixels.
        task_settings: The task's `Config`, where it is not what the spec says.

    Returns:
        The encoder file.

    Raises:
        UserError: If anything does not fit, the folder holds a run of other settings, or a loss is not finite.
    """
    task_settings = task_settings or task_config(task)
    device = device_of(config.device)
    _join_processes(device)
    built = build_encoder(encoder, input_size=image_size, seed=config.seed)  # a wrong name is told before any decoding
    pictures = at_size(data.split("train"), image_size, bad_images=config.bad_images)
    settings = run_settings(task, task_settings, encoder, pictures, config, image_size=image_size)
    folder = RunFolder(out, settings)
    resumed = folder.checkpoint()
    for remains in out.glob(".*.tmp"):  # of a run that was killed while it wrote
        remains.unlink(missing_ok=True)
    if resumed is not None and folder.encoder.is_file() and resumed.reached.finished:
        return folder.encoder

    model = build_task(task_settings, built, labels=label_kind(pictures), seed=config.seed).to(device)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizers = make_optimizers(model, config)
    highest = {player: [group["lr"] for group in o.param_groups] for player, o in optimizers.items()}
    step, earlier_seconds = 0, 0.0
    if resumed is not None:
        folder.restore(model, optimizers, resumed.tensors)
        step, earlier_seconds = resumed.reached.step, resumed.reached.seconds
    elif model.prepares_on:
        earlier_seconds = _prepare(model, pictures, config, device)
    if config.compile:
        model.encoder.compile()

    loader = load_batches(
        pictures,
        config.batch_size,
        seed=config.seed,
        first=step,
        rank=rank(),
        world=world(),
        labels=model.needs_labels,
        workers=config.workers,
        frames=model.frames,
        choose=model.choose_frames,
    )
    flops = _flops_per_image(model, pictures, device) if resumed is None else resumed.reached.flops_per_image
    total = config.total_steps(pictures=len(pictures), flops_per_image=flops) if optimizers else 0
    sheets = {math.ceil((k + 1) * total / config.samples) for k in range(config.samples)} if total else set()
    log = TrainingLog(out, settings, step, total, config)
    model.train()
    started = saved = time.monotonic()
    with stop_politely() as stop, log:
        while total != 0:
            seconds = earlier_seconds + time.monotonic() - started
            progress = step / total if total else seconds / (config.seconds or 1.0)
            if progress >= 1 or stop.asked:
                break
            share = rate_at(progress, schedule=config.schedule, warmup=config.warmup)
            for player, optimizer in optimizers.items():
                for group, rate in zip(optimizer.param_groups, highest[player], strict=True):
                    group["lr"] = rate * share

            before = time.monotonic()
            given = next(loader)
            log.waited(time.monotonic() - before)
            given = given.each(lambda part: part.to(device, non_blocking=True))
            parts = _parts(given, config, step, device)
            losses = _step(model, parts, optimizers, config, device)
            step += 1
            model.after_step(step / total if total else progress)
            log.step(step, losses, share * config.learning_rate, model, given.images)

            if step in sheets and rank() == 0:
                _sample(model, parts[0], out / "samples" / f"step-{step:07d}.png")
            if time.monotonic() - saved > config.checkpoint_seconds and rank() == 0:
                seconds = earlier_seconds + time.monotonic() - started
                folder.save(model, optimizers, Reached(step, seconds, flops, finished=False))
                saved = time.monotonic()

    reached = Reached(step, earlier_seconds + time.monotonic() - started, flops, finished=not stop.asked)
    if rank() != 0:
        return folder.encoder
    folder.save(model, optimizers, reached)
    if stop.asked:
        raise KeyboardInterrupt
    folder.finish(model, reached, images_seen=step * config.batch_size + min(model.prepares_on, len(pictures)))
    return folder.encoder


def make_optimizers(model: Task, config: TrainConfig) -> dict[str, torch.optim.Optimizer]:
    """Return the optimiser of each of a task's players."""
    return {
        player: make_optimizer(
            parameters,
            name=config.optimizer,
            learning_rate=config.learning_rate * model.rate_factors().get(player, 1.0),
            weight_decay=config.weight_decay,
            momentum=config.beta1,
            beta2=config.beta2,
        )
        for player, parameters in model.players().items()
    }


def _prepare(model: Task, data: ImageDataset, config: TrainConfig, device: torch.device) -> float:
    """Let a task look at its pictures, the same ones on every process; return the seconds that it took."""
    started = time.monotonic()
    count = min(model.prepares_on, len(data))
    shown = next(load_batches(data, count, seed=config.seed, first=0, rank=0, world=1, labels=False, workers=0))
    model.prepare(shown.each(lambda part: part.to(device)).batch(_seeded(device, config.seed, 0, 0, 0, 1)))
    return time.monotonic() - started


def _step(
    model: Task,
    parts: list[Batch],
    optimizers: dict[str, torch.optim.Optimizer],
    config: TrainConfig,
    device: torch.device,
) -> dict[str, Tensor]:
    """Let every player move once; return the loss of each."""
    losses: dict[str, Tensor] = {}
    bfloat16 = config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)
    turns = [model.losses(part) for part in parts]
    while True:
        player = None
        for turn in turns:  # a part's graph is gone before the next one's is built
            with autocast:
                found = next(turn, None)
            if found is None:  # as for every part; what follows a task's last loss has then run for each
                continue
            if player is None:
                player = found[0]
                optimizers[player].zero_grad(set_to_none=True)
            torch.autograd.backward(found[1] / len(parts))
            losses[player] = losses.get(player, 0) + found[1].detach() / len(parts)
        if player is None:
            return losses
        parameters = [p for group in optimizers[player].param_groups for p in group["params"]]
        average_gradients(parameters)
        if config.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        optimizers[player].step()


def _parts(given: Loaded, config: TrainConfig, step: int, device: torch.device) -> list[Batch]:
    """Return the step's batch in its parts, each with a generator of its own; torch's own is seeded too."""
    size = math.ceil(len(given.images) / config.accumulate)
    return [
        given.each(itemgetter(slice(at, at + size))).batch(_seeded(device, config.seed, step, rank(), k))
        for k, at in enumerate(range(0, len(given.images), size))
    ]


def _seeded(device: torch.device, *entropy: int) -> torch.Generator:
    state = np.random.SeedSequence(entropy).generate_state(2, np.uint32)
    seed = int(state[0]) << 31 | int(state[1]) >> 1
    torch.manual_seed(seed)  # for layers that draw by themselves: dropout, stochastic depth
    return torch.Generator(device).manual_seed(seed)


@torch.no_grad()
def _sample(model: Task, batch: Batch, path: Path) -> None:
    from pretext.training.sample_sheets import sample_sheet

    few = Loaded(batch.images, None, batch.clips).each(lambda part: part[:SHEET_IMAGES])
    model.eval()
    columns = model.pictures(few.batch(torch.Generator(batch.images.device).manual_seed(0)))
    model.train()
    if columns:
        sample_sheet({name: picture.float().cpu() for name, picture in columns.items()}, path)


def _flops_per_image(model: Task, data: ImageDataset, device: torch.device) -> float:
    """Count a forward and backward pass of every player on two pictures, on a copy."""
    from torch.utils.flop_counter import FlopCounterMode

    count = 2
    pair = torch.stack([data[k % len(data)][0] for k in range(count)]).to(device)
    labels = None
    if model.needs_labels:
        kind = label_kind(data)
        assert kind is not None
        shape = (count, kind.classes) if kind.multi_label else (count,)
        labels = torch.zeros(shape, dtype=torch.int64, device=device)
    spare = copy.deepcopy(model)
    with FlopCounterMode(display=False) as counter:
        for _, loss in spare.losses(Batch(pair, labels, torch.Generator(device).manual_seed(0))):
            torch.autograd.backward(loss)
    return counter.get_total_flops() / count


def _join_processes(device: torch.device) -> None:
    """Join the others where torchrun has started several."""
    import torch.distributed as dist

    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")

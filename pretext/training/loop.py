"""The training loop: `train`, followed by the functions that it calls, in the order of their calls."""

from __future__ import annotations

import inspect
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pretext.datasets.base import ImageDataset
from pretext.datasets.given import Given, as_dataset
from pretext.datasets.kept import for_views, is_packed
from pretext.encoders import Encoder
from pretext.system.device import device_of
from pretext.system.distributed import (
    average_gradients,
    check_equal,
    everyones,
    join_processes,
    mean_losses,
    one_voice,
    rank,
    world,
)
from pretext.system.errors import UserError, did_you_mean
from pretext.system.locks import lock_folder
from pretext.system.precision import autocast, say_if_slow, used
from pretext.system.stopping import stop_at_once, stop_politely
from pretext.tasks import build_task, task_config
from pretext.tasks.base import Batch, Task, label_kind
from pretext.training.batch_statistics import whole_batch_statistics
from pretext.training.config import TrainConfig
from pretext.training.flops import flops_per_image
from pretext.training.left_out import LeftOut, sound_images
from pretext.training.loading import load_batches, next_batch
from pretext.training.log import TrainingLog
from pretext.training.micro_batches import equal_part, least_rows, micro_batches
from pretext.training.optimisers import make_optimizers, rate_at
from pretext.training.run_folder import Checkpoint, RunFolder, run_folder
from pretext.training.run_state import RunState
from pretext.training.sample_sheets import SampleTimes, write_sample
from pretext.training.starting import initial_encoder, prepared
from pretext.training.stopwatch import Spent, stopwatch
from pretext.training.tracking import check_trackers
from pretext.training.watching import Watch, check_watch


def train(
    task: str,
    encoder: str | Encoder | None,
    data: Given,
    config: TrainConfig,
    out: str | Path,
    *,
    image_size: int,
    task_settings: Any = None,
) -> Path:
    """Train an encoder by a pretext task. A second call with the same folder and settings resumes the run.

    Args:
        task: Task spec, such as `context_encoder:adversarial?loss=l1`.
        encoder: Encoder spec; or an encoder, such as `Encoder.wrap(module)`, trained in place. To resume, it must have
            the weights with which the run began. None takes the architecture of `config.init`.
        data: Data set, or anything that `as_dataset` takes: a torch data set, an array, a list of paths. Its training
            split is used, without labels unless the task needs them.
        config: Budget, optimisation and logging.
        out: Folder for `encoder.safetensors`, `checkpoint.safetensors`, `log.jsonl`, `run.json`, `samples/`, `kept/`.
        image_size: Side of the images in pixels.
        task_settings: The task's `Config`; None takes the one of `task`.

    Returns:
        The encoder file.

    Raises:
        UserError: If a setting does not fit, the folder holds a run with other settings or another process trains in
            it, or a loss is not finite.
        KeyboardInterrupt: On SIGINT, SIGTERM or SIGHUP, after the current step is finished and saved.
    """
    with one_voice(), stop_at_once():
        task_settings = task_settings or task_config(task)
        device = device_of(config.device)
        join_processes(device)
        if config.batch_size % world():
            raise UserError(
                f"batch_size {config.batch_size} is not divisible by the {world()} processes; "
                f"give a multiple of {world()}"
            )
        given, folder = as_dataset(data), Path(out)
        return _train(task, encoder, given, config, folder, device, image_size=image_size, task_settings=task_settings)


def _train(
    task: str,
    encoder: str | Encoder | None,
    data: ImageDataset,
    config: TrainConfig,
    out: Path,
    device: torch.device,
    *,
    image_size: int,
    task_settings: Any,
) -> Path:
    """Find or make the run's data and encoder, and go on with the run if it is not finished; see `train`."""
    built = initial_encoder(encoder, config, image_size)  # a typo fails before decoding
    drawn = encoder if isinstance(encoder, str) and config.init is None else built
    check_watch(config.watch, data)
    check_trackers(config.track)
    train_data = for_views(data.split("train"), image_size, bad_images=config.bad_images)
    folder = run_folder(out, task, task_settings, drawn, train_data, config, image_size=image_size)
    if world() > 1:  # of the data, the fingerprint decides
        check_equal(folder.identity | {"data": None, "packed (PRETEXT_PACK_GB)": is_packed(train_data)})
    if _finished(folder, folder.checkpoint()):  # without a lock: the folder may be read-only
        return folder.encoder
    model = build_task(task_settings, built, labels=label_kind(train_data), seed=config.seed).to(device)
    with lock_folder(out) if rank() == 0 else nullcontext(True) as locked:
        if not all(everyones(locked)):
            raise UserError(f"{out}: another process is training in this folder; wait for it, or give another --out")
        return _run(model, train_data, config, folder, device)


def _finished(folder: RunFolder, checkpoint: Checkpoint | None) -> bool:
    """Return whether the first process finds the run finished: on a network the others may see its files later."""
    return everyones(checkpoint is not None and checkpoint.state.finished and folder.has_its_encoder())[0]


def _run(model: Task, train_data: ImageDataset, config: TrainConfig, folder: RunFolder, device: torch.device) -> Path:
    """Start a run, or resume it from the checkpoint in its locked folder; return the encoder file."""
    # 1. The checkpoint of an earlier call.
    out, side = folder.path, model.encoder.input_size
    checkpoint = folder.checkpoint()
    if _finished(folder, checkpoint):  # by a process that held the lock until now
        return folder.encoder
    check_equal({"checkpoint": checkpoint and checkpoint.state})
    if rank() == 0:
        say_if_slow(config.precision, device)
        folder.remove_unfinished_files()

    # 2. The task and its optimisers, new or restored.
    left_out = LeftOut(train_data, config.bad_images)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizers = make_optimizers(model, config)
    step, images_seen, earlier = 0, 0, Spent()
    if checkpoint is not None:
        folder.restore(model, optimizers, checkpoint.tensors)
        step, earlier = checkpoint.state.step, checkpoint.state.spent
        before = step * config.batch_size + min(model.prepares_on, len(train_data))
        images_seen = before if checkpoint.state.images_seen is None else checkpoint.state.images_seen
        if rank() == 0:
            checkpoint.state.say_if_moved(out, device)
    elif model.prepares_on:
        earlier, images_seen = prepared(model, train_data, config, device, left_out)
    if config.compile:
        model.encoder.compile()

    # 3. The batches and the number of steps.
    batches = load_batches(
        train_data,
        config.batch_size,
        side=side,
        seed=config.seed,
        first=step,
        rank=rank(),
        world=world(),
        labels=model.needs_labels,
        workers=config.workers,
        frames=model.frames,
        choose=model.choose_frames,
        left_out=left_out,
    )
    first_images = sound_images(train_data, side, 2, left_out)  # two, because some losses compare images
    if checkpoint is None:
        flops = everyones(flops_per_image(model, train_data, first_images, device))[0]
    else:
        flops = checkpoint.state.flops_per_image
    # None if the budget is in seconds; 0 if the task has no optimisers: `Task.prepare` was all of its training
    total_steps = config.total_steps(image_count=len(train_data), flops_per_image=flops) if optimizers else 0
    streamed = not is_packed(train_data)
    least = least_rows(model, train_data, first_images[0], config, device, streamed=streamed) if optimizers else 1
    watch = None
    if config.watch is not None and total_steps != 0 and rank() == 0:
        watch = Watch(config.watch, train_data, side=side, workers=config.workers)
    spent, last_saved = stopwatch(earlier, processes=world()), time.monotonic()

    def done() -> float:
        """Return the share of the budget that is spent."""
        return step / total_steps if total_steps else spent().seconds / (config.seconds or 1.0)

    def state(*, finished: bool) -> RunState:
        """Return how far the run has come."""
        return RunState(step, *spent(), flops, finished=finished, images_seen=images_seen, device=device.type)

    log = TrainingLog(
        out,
        folder.settings,
        step=step,
        total_steps=total_steps,
        config=config,
        progress=done(),
        images_seen=images_seen,
    )
    samples = SampleTimes(total_steps, config.samples, progress=done())
    if checkpoint is None and rank() == 0:
        folder.remove_former_run(config.init)

    # 4. The loop.
    model.train()
    stopped = False
    with stop_politely() as stop:
        with log:
            while total_steps != 0:
                decided = everyones((done(), stop.requested))
                progress = decided[0][0]  # the clock of the first process counts for all
                stopped = any(requested for _, requested in decided)
                if progress >= 1 or stopped:
                    break
                rate_factor = rate_at(progress, schedule=config.schedule, warmup=config.warmup)
                for optimizer in optimizers.values():
                    for group in optimizer.param_groups:
                        group["lr"] = rate_factor * group["peak_lr"]

                waiting_since = time.monotonic()
                batch = next_batch(batches, stop)
                if streamed:
                    rows = left_out.share(-1 if batch is None else len(batch), config.batch_size)
                    if rows < 0:  # the signal that requests the stop has ended the workers of a process too
                        continue
                    batch = equal_part(batch, rows, config.accumulate, least)
                log.add_waiting(time.monotonic() - waiting_since)
                step += 1
                if batch is not None and len(batch):
                    images_seen += len(batch) * world()
                    batch = batch.to(device)
                    parts = micro_batches(batch, config, step - 1, device, least)
                    losses = mean_losses(_step(model, parts, optimizers, config, device))
                    model.after_step(step / total_steps if total_steps else progress)
                    rate = rate_factor * config.learning_rate
                    log.step(step, losses, rate, model, batch, progress=done(), images_seen=images_seen)
                    if rank() == 0 and samples.due(step, done()):
                        sheet = write_sample(model, parts[0], out / "samples" / f"step-{step:07d}.png")
                        log.sheet(step, sheet)
                else:  # too few images can be decoded: all skip the step
                    log.advance(done())

                if watch is not None and step % config.watch_every == 0:
                    log.watched(step, watch, model.encoder, images_seen=images_seen)
                if config.keeps(step, total_steps) and rank() == 0:
                    folder.keep(model, step, images_seen=images_seen)
                if time.monotonic() - last_saved > config.checkpoint_seconds and rank() == 0:
                    folder.save(model, optimizers, state(finished=False))
                    last_saved = time.monotonic()
            if watch is not None and not stopped:
                log.watched(step, watch, model.encoder, images_seen=images_seen)

        # 5. The last checkpoint and the encoder file. Only the first process writes them; the others wait.
        if rank() == 0:
            last = state(finished=not stopped)
            folder.save(model, optimizers, last)
            if not stopped:
                notes = [*train_data.notes, *left_out.notes()]
                folder.finish(model, last, precision=used(config.precision, device), notes=notes)
        left_out.report()
        everyones(None)
    if stopped:
        raise KeyboardInterrupt
    return folder.encoder


def _step(
    model: Task,
    parts: list[Batch],
    optimizers: dict[str, torch.optim.Optimizer],
    config: TrainConfig,
    device: torch.device,
) -> dict[str, Tensor]:
    """Update each player's parameters once, by its loss averaged over the rows of all micro-batches; return the losses.

    `Task.losses` is a generator: it computes the second player's loss after the first player has been updated.
    """
    pending = [model.losses(micro_batch) for micro_batch in parts]
    rows = sum(map(len, parts))
    losses: dict[str, Tensor] = {}
    while True:
        player = None
        for part, losses_of_micro_batch in zip(parts, pending, strict=True):
            with autocast(config.precision, device), whole_batch_statistics():
                item = next(losses_of_micro_batch, None)
            if item is None:  # all end in the same round; the code after a task's last yield still runs for each
                continue
            if player is None:
                player = item[0]
                if player not in optimizers:
                    raise UserError(
                        f"{inspect.getfile(type(model))}: losses yields a loss of {player!r}, which players() does not "
                        f"declare; {did_you_mean(str(player), optimizers)}"
                    )
                optimizers[player].zero_grad(set_to_none=True)
            loss = item[1] / (rows / len(part))
            torch.autograd.backward(loss)  # frees this graph before the next one is built
            losses[player] = losses.get(player, 0) + loss.detach()
        if player is None:
            return losses
        parameters = [parameter for group in optimizers[player].param_groups for parameter in group["params"]]
        average_gradients(parameters)
        if config.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        optimizers[player].step()

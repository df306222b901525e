"""Training on several processes: equal parameters after every budget, common decisions, one line for errors."""

from __future__ import annotations

import importlib
import os
import signal
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from training_samples import ENCODER, pictures

from pretext.datasets import open_dataset
from pretext.training.config import TrainConfig

loop = importlib.import_module("pretext.training.loop")
pytestmark = pytest.mark.slow  # two processes each


def one_of_two(number, data, folder, task, settings, signalled, streamed):
    """Train as one process of two; write its parameters, its steps and how it ended."""
    torch.set_num_threads(1)
    os.environ["PRETEXT_PACK_GB"] = "0" if streamed else "4"
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2, timeout=timedelta(seconds=60)
    )
    real, seen, steps = loop._step, [], 0

    def step(model, *rest):
        nonlocal steps
        seen[:] = [model]
        losses = real(model, *rest)
        steps += 1
        if number == 1 and steps == signalled:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses

    loop._step = step
    config = TrainConfig(**{"batch_size": 8, "workers": 0, "device": "cpu", "log_every": 1} | settings)
    try:
        loop.train(task, ENCODER, open_dataset(data), config, Path(folder) / "run", image_size=32)
        end = "finished"
    except (Exception, SystemExit, KeyboardInterrupt) as reason:
        end = f"{type(reason).__name__}: {reason}"
    values = [parameter.detach().numpy().ravel() for model in seen for parameter in model.parameters()]
    np.savez(f"{folder}/{number}.npz", values=np.concatenate(values or [np.zeros(0)]), steps=steps, end=end)
    dist.destroy_process_group()


def two(data, folder, task="simclr:small", *, signalled=None, streamed=False, **settings):
    folder.mkdir(exist_ok=True)
    (folder / "meet").unlink(missing_ok=True)
    mp.spawn(one_of_two, args=(data, str(folder), task, settings, signalled, streamed), nprocs=2)
    return [dict(np.load(folder / f"{number}.npz")) for number in range(2)]


def assert_equal(found):
    first, second = found
    assert first["steps"] == second["steps"] > 0
    assert len(first["values"]) and np.isfinite(first["values"]).all()
    assert first["values"].tobytes() == second["values"].tobytes()


@pytest.mark.parametrize(
    ("budget", "streamed", "broken"),
    [
        ({"steps": 4}, False, ()),
        ({"seconds": 0.7}, False, ()),
        ({"steps": 8}, True, range(0, 32, 5)),
        ({"seconds": 0.7, "accumulate": 2}, True, range(0, 32, 5)),
    ],
)
def test_two_processes_keep_equal_parameters(budget, streamed, broken, tmp_path):
    found = two(pictures(tmp_path / "data", broken), tmp_path / "out", streamed=streamed, **budget)
    assert [str(each["end"]) for each in found] == ["finished", "finished"]
    assert_equal(found)


def test_a_signal_to_one_process_stops_both_at_one_step_and_they_go_on_to_the_same_parameters(tmp_path):
    data = pictures(tmp_path / "data")
    whole = two(data, tmp_path / "whole", steps=6)
    part = two(data, tmp_path / "part", steps=6, signalled=3)
    assert [str(each["end"]).rstrip() for each in part] == ["KeyboardInterrupt:", "SystemExit: 130"]
    assert_equal(part)
    assert part[0]["steps"] == 3
    rest = two(data, tmp_path / "part", steps=6)
    assert_equal(rest)
    assert rest[0]["values"].tobytes() == whole[0]["values"].tobytes()


@pytest.mark.parametrize(
    ("settings", "broken", "message"),
    [
        ({"batch_size": 7}, (), "batch_size 7 is not divisible by the 2 processes"),
        ({"batch_size": 2, "task": "byol"}, (), "needs two or more in each"),
        ({"bad_images": "stop"}, (9, 10, 11), "a picture cannot be decoded"),
        ({}, range(32), "pictures cannot be decoded"),
    ],
)
def test_what_two_processes_cannot_train_on_is_one_line_of_the_first(settings, broken, message, tmp_path):
    found = two(pictures(tmp_path / "data", broken), tmp_path / "out", streamed=True, **{"steps": 8} | settings)
    first, second = (str(each["end"]) for each in found)
    assert first.startswith("UserError: ") and message in first and "\n" not in first
    assert second == "SystemExit: 2"
    assert found[0]["steps"] == found[1]["steps"]

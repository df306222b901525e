"""Batch normalisation of all processes' images, beside torch's own on the whole batch."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from process_samples import in_two_processes
from torch import nn
from torch.nn.modules._functions import SyncBatchNorm

from pretext.training import batch_statistics
from pretext.training.batch_statistics import whole_batch_statistics

LAYERS = (
    (lambda: nn.BatchNorm2d(5), (6, 5, 3, 2), torch.channels_last),
    (lambda: nn.BatchNorm1d(5, affine=False, eps=1e-3), (6, 5), torch.contiguous_format),
    (lambda: nn.BatchNorm1d(5, momentum=None), (6, 5, 7), torch.contiguous_format),
    (lambda: nn.BatchNorm3d(5, track_running_stats=False), (6, 5, 2, 2, 2), torch.contiguous_format),
    (lambda: nn.Sequential(nn.Conv2d(5, 4, 1), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU()), (6, 5, 2, 2),
     torch.channels_last),
)  # fmt: skip


def passed_twice(number: int, rows: slice):
    """Pass rows of two batches through a layer in training; return outputs, gradients and statistics by name."""
    make, shape, layout = LAYERS[number]
    torch.manual_seed(number)
    layer, results = make().double(), {}
    for part in range(2):
        whole = (3 * torch.randn(shape, dtype=torch.float64) + 2).to(memory_format=layout)
        weights = torch.randn(shape[0], 1, dtype=torch.float64)
        x = whole[rows].clone().requires_grad_()
        with whole_batch_statistics():
            outputs = layer(x)
        loss = (outputs.flatten(1) ** 3 * weights[rows]).mean()
        loss.backward()
        results |= {f"output {part}": outputs.detach(), f"gradient {part}": x.grad * len(x)}
    gradients = {f"gradient of {name}": value.grad for name, value in layer.named_parameters()}
    return {name: value.numpy() for name, value in (results | gradients | dict(layer.named_buffers())).items()}


def _one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    rows = slice(3 * rank, 3 * rank + 3)
    torch.save([passed_twice(number, rows) for number in range(len(LAYERS))], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_layers_on_two_processes_are_those_of_torch_on_the_whole_batch(tmp_path):
    in_two_processes(_one_of_two, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    for number in range(len(LAYERS)):
        one, parts = passed_twice(number, slice(None)), (first[number], second[number])
        assert one.keys() == parts[0].keys() == parts[1].keys()
        for name, expected in one.items():
            a, b = (part[name] for part in parts)
            if name.startswith("gradient of"):  # each process's loss is a mean over its rows; averaged in training
                a = b = (a + b) / 2
            elif name.startswith(("output", "gradient")):
                a = b = np.concatenate([a, b])
            else:
                assert a.tobytes() == b.tobytes(), (number, name)
            np.testing.assert_allclose(a, expected, rtol=1e-10, atol=1e-12, err_msg=f"{number} {name}")


def test_a_single_process_computes_by_torch_alone():
    with whole_batch_statistics() as nothing:
        assert nothing is None


def test_evaluation_uses_the_running_statistics(monkeypatch):
    monkeypatch.setattr(batch_statistics, "world", lambda: 2)
    layer, x = nn.BatchNorm2d(3).eval(), torch.randn(2, 3, 4, 4)
    with whole_batch_statistics():
        assert torch.equal(layer(x), F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias))


def test_on_a_gpu_it_is_torchs_own(monkeypatch):
    monkeypatch.setattr(batch_statistics, "world", lambda: 2)
    monkeypatch.setattr(batch_statistics, "dist", SimpleNamespace(group=SimpleNamespace(WORLD="everybody")))
    monkeypatch.setattr(SyncBatchNorm, "apply", lambda *given: given)
    given = SimpleNamespace(is_cuda=True)
    passed = batch_statistics._batch_norm(given, "mean", "var", "weight", "bias", True, 0.2, 1e-3)
    names = [*inspect.signature(SyncBatchNorm.forward).parameters][1:]
    assert dict(zip(names, passed, strict=True)) == {
        "input": given, "weight": "weight", "bias": "bias", "running_mean": "mean", "running_var": "var",
        "eps": 1e-3, "momentum": 0.2, "process_group": "everybody", "world_size": 2,
    }  # fmt: skip

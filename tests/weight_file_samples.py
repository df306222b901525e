"""Small networks and checkpoints in the layouts of other projects, for the tests of external weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

timm = pytest.importorskip("timm", reason="timm is not installed")
models = pytest.importorskip("torchvision").models
BLOCK = models.resnet.BasicBlock
LAST = ("layer4.0.conv2", "layer4.0.bn2")
"""Beginnings of the names of the last layer of `resnet10`."""
MEAN, STD = (torch.tensor(x).view(1, 3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


@timm.models.register_model
def resnet10_of_test(pretrained=False, **options):
    """timm's ResNet-18 with one block per layer, equal to torchvision's `ResNet(BasicBlock, [1, 1, 1, 1])`."""
    blocks = {"block": timm.models.resnet.BasicBlock, "layers": (1, 1, 1, 1)}
    return timm.models.resnet._create_resnet("resnet18", pretrained, **(blocks | options))


def resnet10():
    return models.ResNet(BLOCK, [1, 1, 1, 1])


def alive(make, seed):
    """Return a model in which all tensors differ, batch statistics included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value.add_(0.02 * torch.rand_like(value) if name.endswith("var") else 0.02 * torch.randn_like(value))
    return model.eval()


def under(prefix, tensors, leave_out="fc."):
    return {prefix + name: value for name, value in tensors.items() if not name.startswith(leave_out)}


def linear(name, *, out=4, n=4):
    return {f"{name}.weight": torch.rand(out, n), f"{name}.bias": torch.rand(out)}


def moco_v2(ours, other):
    """Return a checkpoint of MoCo's training script, optimiser included."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.rand(3))], lr=0.1, momentum=0.9)
    optimizer.param_groups[0]["params"][0].grad = torch.rand(3)
    optimizer.step()
    heads = linear("module.encoder_q.fc.0") | linear("module.encoder_q.fc.2") | linear("module.encoder_k.fc.0")
    queue = {"module.queue": torch.rand(4, 8), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    q, k = under("module.encoder_q.", ours.state_dict()), under("module.encoder_k.", other.state_dict())
    return {"epoch": 3, "arch": "resnet10", "state_dict": k | q | heads | queue, "optimizer": optimizer.state_dict()}


def saved(found, tmp_path, name="weights.pth"):
    torch.save(found, tmp_path / name)
    return tmp_path / name

"""Small modules of several designs, to be wrapped as encoders, and the encoder file that CONTRIBUTING.md shows."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"


def example(what):
    """Return the file of one's own that CONTRIBUTING.md shows: a task, a probe or an encoder."""
    section = re.split(rf"## An? {what} of your own", GUIDE.read_text())[1].split("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return code


class Residual(nn.Module):
    """Two stages of strides 2 and 4 with a residual block each, pooling, and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.first = nn.Sequential(Block(8, 8, 1))
        self.second = nn.Sequential(Block(8, 16, 2), Block(16, 16, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        return self.fc(self.drop(self.pool(self.second(self.first(self.stem(x)))).flatten(1)))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.narrow = nn.Conv2d(inputs, 4, 1)
        self.wide = nn.Conv2d(4, outputs, 3, stride=stride, padding=1)
        self.norm = nn.BatchNorm2d(outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride=stride) if stride > 1 else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.skip(x) + self.norm(self.wide(self.relu(self.narrow(x)))))


class Tokens(nn.Module):
    """A transformer on patches of 8 px, with a class token and positions for pictures of 32 px only."""

    def __init__(self, registers=0):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        self.prefix = nn.Parameter(torch.randn(1, 1 + registers, 16))
        self.positions = nn.Parameter(torch.randn(1, 17 + registers, 16))
        self.blocks = nn.Sequential(
            *(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True) for _ in range(4))
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.prefix.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        return self.head(self.blocks(x)[:, 0])


class ChannelsLast(nn.Module):
    """Stages that end as B×H×W×C; their sides equal their channels, so shapes alone do not tell which is which."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 2, stride=2)
        self.norm = nn.LayerNorm(16)
        self.second = nn.Linear(16, 16)

    def forward(self, x):
        x = self.norm(self.first(x).permute(0, 2, 3, 1))
        return self.second(x)


class Branches(nn.Module):
    """Control flow that depends on values, which cannot be traced."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        x = self.conv(x)
        return x if x.mean() > 0 else -x


def alive(module, seed=0):
    """Return the module with random weights, biases and statistics, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.5 + 0.1)
    return module.eval()


def hooked(module, names, images):
    """Return what the named submodules return for images, by the module's own forward pass."""
    found = {}
    handles = [
        module.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: found.update({name: out}))
        for name in names
    ]
    with torch.no_grad():
        module(images)
    for handle in handles:
        handle.remove()
    return [found[name] for name in names]

"""Operations of a training step, against a count by hand."""

from __future__ import annotations

import torch
from torch import nn

from pretext.datasets import open_dataset
from pretext.encoders import Encoder
from pretext.tasks.base import Task
from pretext.training.flops import flops_per_image

SIDE, OUT, CLASSES = 8, 4, 5


class Tiny(Task):
    """A 3×3 convolution of 3 to 4 channels, and a linear layer of 4 to 5 on the average of its map."""

    def __init__(self):
        layers = nn.Sequential(nn.Conv2d(3, OUT, 3, padding=1, bias=False), nn.ReLU())
        super().__init__(Encoder.wrap(layers, ["1"], input_size=SIDE))
        self.classifier = nn.Linear(OUT, CLASSES, bias=False)

    def losses(self, batch):
        yield "task", self.classifier(self.encoder.embed(batch.images)).sum()


def test_the_count_is_that_by_hand():
    images = [torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)] * 2
    data = open_dataset("scenes?size=16&train=2&val=1&test=1")
    convolution = 2 * 3 * 3 * 3 * OUT * SIDE * SIDE  # a multiplication and an addition per weight and place
    linear = 2 * OUT * CLASSES
    by_hand = 2 * convolution + 3 * linear  # forward, gradient of the weights, and of the input unless it is the image
    assert flops_per_image(Tiny(), data, images, torch.device("cpu")) == by_hand

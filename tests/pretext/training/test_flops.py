"""Operations of a training step, against a count by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from training_samples import run

from pretext.datasets import open_dataset
from pretext.encoders import Encoder
from pretext.system.errors import UserError
from pretext.tasks.base import Task
from pretext.training.flops import flops_per_image, takes_one_image

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


class Comparing(Task):
    """A convolution whose vectors a given loss compares."""

    def __init__(self, loss):
        super().__init__(Encoder.wrap(nn.Sequential(nn.Conv2d(3, OUT, 3)), ["0"], input_size=SIDE))
        self.loss = loss

    def losses(self, batch):
        yield "task", self.loss(self.encoder.embed(batch.images))


@pytest.mark.parametrize(
    ("loss", "learns"),
    [
        (lambda vectors: (vectors - vectors.mean(dim=0)).square().sum(), False),  # a gradient of zero
        (lambda vectors: vectors.var(dim=0).mean(), False),  # not a number
        (lambda vectors: vectors.square().sum(), True),
    ],
)
@pytest.mark.filterwarnings("ignore:var")
def test_one_picture_is_enough_only_if_something_is_learnt_from_it(loss, learns):
    data = open_dataset("scenes?size=16&train=2&val=1&test=1")
    image = torch.arange(3 * SIDE * SIDE, dtype=torch.uint8).reshape(3, SIDE, SIDE)
    assert takes_one_image(Comparing(loss), data, image, torch.device("cpu")) == learns


def test_parts_of_one_picture_are_refused_where_a_task_compares_pictures(tmp_path):
    with pytest.raises(UserError, match="this task needs two or more in each"):
        run(tmp_path, "simclr", batch_size=2, accumulate=2, steps=1)

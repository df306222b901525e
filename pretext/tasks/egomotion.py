"""Egomotion: predict the motion between two views (Agrawal et al. 2015).

Agrawal, Carreira and Malik, Learning to See by Moving, ICCV 2015, arXiv 1505.01596. One encoder reads both views. A
small top network reads their two maps and classifies each dimension of the motion into bins, with one softmax for
each. This is the paper's experiment on images of digits (section 4), where known shifts and rotations replace
odometry: 7 shifts along each axis, and 20 bins of 3° from -30° to 30°. Published, AlexNet on videos from driving
cars, as quoted by Pathak et al. 2016, arXiv 1604.07379, table 2 (recalled): VOC 2007 classification 52.9, detection
41.8.

Both views are windows of one image. The second window is shifted by (x, y), along the axes of the first and in shares
of the window's side, and rotated about its own centre.

Shortcuts: windows lie inside the image, so that no black corner reveals a rotation. The first window is rotated and
lies between pixels too, so that interpolation is no sign of motion; its position does not depend on the label. Not
blocked: interpolation blurs along the rows of pixels, whose direction hints at a view's rotation; dark corners and
other traces of the lens reveal where in the image a window lies.

Deviations: motion in a plane instead of odometry, even if the data has clips; shifts and windows for photographs (the
paper shifts a digit of 28 px by up to 3); the mean of the three cross-entropies, not the sum; no dropout in the top
network, and 500 units in its one hidden layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pretext.encoders.base import Encoder, deepest_shape
from pretext.modules.projector import projector
from pretext.system.ranges import MOST, check_range
from pretext.tasks.base import Batch, Task


class Window(NamedTuple):
    """A square in each image: centre and side in pixels, clockwise rotation in radians."""

    x: Float[Tensor, "B"]
    y: Float[Tensor, "B"]
    side: float
    turn: Float[Tensor, "B"]


@final
class Egomotion(Task):
    """Encoder on both views, and a top network that classifies the motion between them."""

    @dataclass(frozen=True)
    class Config:
        """The motions, their bins, the windows and the top network."""

        shift: float = 0.2
        """Largest shift along each axis, as a share of the window's side."""
        shifts: int = 7
        """Number of evenly spaced shifts along each axis; each is a class."""
        turn: float = 30.0
        """Largest rotation in either direction, in degrees."""
        turns: int = 20
        """Number of bins of the rotation; each is a class."""
        crop: float = 0.45
        """Side of a window, as a share of the image's; windows must fit with any shift and rotation."""
        hidden: int = 500
        """Width of the top network's hidden layer."""

        def __post_init__(self) -> None:
            check_range(self, "shift", above=0, most=1)
            check_range(self, "turn", above=0, most=180, unit="degrees")
            check_range(self, "shifts", "turns", least=2, most=1000)
            largest = 0.98 / (math.sqrt(2) * (1 + 2 * self.shift))
            if not 0.05 <= self.crop <= largest:
                raise ValueError(f"crop is {self.crop}; allowed is from 0.05 to {largest:.3f}, with shift={self.shift}")
            check_range(self, "hidden", least=1, most=MOST["hidden"])

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config = config
        channels, height, width = deepest_shape(encoder)
        self.bins = (config.shifts, config.shifts, config.turns)
        self.top = projector(2 * channels * height * width, config.hidden, sum(self.bins), layers=2, norm=False)
        self._accuracies = torch.zeros(3)

    def motions(self, count: int, size: int, generator: torch.Generator) -> tuple[Window, Window, Int[Tensor, "3 B"]]:
        """Return two windows for each image, and the classes of x, y and rotation from the first to the second.

        Args:
            count: Number of images B.
            size: Side of the images in pixels.
            generator: Source of all random draws.
        """
        config, side = self.config, self.config.crop * size
        draws = torch.rand(6, count, generator=generator, device=generator.device)
        bins = draws.new_tensor(self.bins).view(3, 1)
        classes = (draws[:3] * bins).long().clamp(max=bins.long() - 1)
        x, y = (2 * classes[:2] / (config.shifts - 1) - 1) * config.shift * side
        # Room for any rotation and shift around the first centre, and half a pixel for the interpolation.
        margin = side * math.sqrt(0.5) * (1 + 2 * config.shift) + 0.5
        start_x, start_y = margin + draws[3:5] * max(0.0, size - 2 * margin)
        largest = math.radians(config.turn)
        turn, change = largest * (2 * draws[5] - 1), largest * (2 * draws[2] - 1)
        cos, sin = turn.cos(), turn.sin()
        first = Window(start_x, start_y, side, turn)
        second = Window(start_x + cos * x - sin * y, start_y + sin * x + cos * y, side, turn + change)
        return first, second, classes

    def views(self, batch: Batch) -> tuple[Float[Tensor, "2 B 3 S S"], Int[Tensor, "3 B"]]:
        """Return two views of each image, and the classes of the motion between them."""
        images = batch.magnified(1 / self.config.crop).float() / 255
        *windows, classes = self.motions(len(batch), images.shape[-1], batch.generator)
        views = [crop_window(images, window, size=batch.side) for window in windows]
        return torch.stack(views).clamp_(0, 1), classes

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the mean cross-entropy over the three dimensions of the motion."""
        views, classes = self.views(batch)
        first, second = self.encoder(views.flatten(0, 1))[-1].flatten(1).chunk(2)
        logits = self.top(torch.cat([first, second], dim=1)).split(self.bins, dim=1)
        correct = [scores.detach().argmax(dim=1) == label for scores, label in zip(logits, classes, strict=True)]
        self._accuracies = torch.stack(correct).float().mean(dim=1)
        parts = [F.cross_entropy(scores, label) for scores, label in zip(logits, classes, strict=True)]
        yield "task", torch.stack(parts).mean()

    def metrics(self) -> Mapping[str, float]:
        """Return the accuracies of the last step; chance is 1 / number of bins."""
        names = ("accuracy_x", "accuracy_y", "accuracy_turn")
        return dict(zip(names, self._accuracies.tolist(), strict=True))

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each image and its two views."""
        (first, second), _ = self.views(batch)
        return {"picture": batch.images.float() / 255, "first view": first, "second view": second}


def crop_window(images: Float[Tensor, "B 3 N N"], window: Window, *, size: int) -> Float[Tensor, "B 3 S S"]:
    """Return each image's window, resampled to `size` pixels."""
    along = (torch.arange(size, device=images.device) + 0.5) / size - 0.5
    right, down = window.side * along.view(1, 1, -1), window.side * along.view(1, -1, 1)
    cos, sin = window.turn.cos().view(-1, 1, 1), window.turn.sin().view(-1, 1, 1)
    x = window.x.view(-1, 1, 1) + cos * right - sin * down
    y = window.y.view(-1, 1, 1) + sin * right + cos * down
    with torch.autocast(images.device.type, enabled=False):
        places = torch.stack([x, y], dim=-1) * 2 / images.shape[-1] - 1
        return F.grid_sample(images, places, mode="bilinear", padding_mode="border", align_corners=False)

"""Egomotion: predict the motion between two views (Agrawal et al. 2015).

Agrawal, Carreira and Malik, Learning to See by Moving, ICCV 2015, arXiv 1505.01596: one encoder sees both views,
a small top network their two maps, and answers with one softmax for each dimension of the motion, in bins. This
is their experiment on pictures of digits (section 4), where known shifts and turns take the place of odometry: 7
shifts along each axis, and 20 bins of 3° from -30° to 30°. Published, AlexNet on the video of driving cars, as
quoted by Pathak et al. 2016, arXiv 1604.07379, table 2 (recalled): VOC 2007 classification 52.9, detection 41.8.

Both views are windows cut out of one picture. The second is shifted by (x, y), along the axes of the first and in
shares of a window's side, and turned about its own centre.

Shortcuts: windows lie inside the picture, so that no black corner tells a turn. The first is turned and lies
between pixels too, so that being interpolated is no sign of having moved; and where it lies does not depend on the
answer. Not blocked: interpolation blurs along the rows of pixels, whose direction hints at how a view was turned;
dark corners and other traces of the lens tell where in a picture a window lies.

Deviations: motion in a plane, in place of odometry, even where the data has clips; shifts and windows that suit
photographs (a digit of 28 px is shifted by up to 3); the mean of the three cross-entropies, not the sum; no
dropout in the top network, and 500 units in its one hidden layer.
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
from pretext.tasks.base import Batch, Task


class Window(NamedTuple):
    """A square in each picture: its centre and side in pixels, its turn in radians, clockwise."""

    x: Float[Tensor, "B"]
    y: Float[Tensor, "B"]
    side: float
    turn: Float[Tensor, "B"]


def look(images: Float[Tensor, "B 3 S S"], window: Window) -> Float[Tensor, "B 3 S S"]:
    """Return what a window shows, at the pictures' own size."""
    size = images.shape[-1]
    along = (torch.arange(size, device=images.device) + 0.5) / size - 0.5
    right, down = window.side * along.view(1, 1, -1), window.side * along.view(1, -1, 1)
    cos, sin = window.turn.cos().view(-1, 1, 1), window.turn.sin().view(-1, 1, 1)
    x = window.x.view(-1, 1, 1) + cos * right - sin * down
    y = window.y.view(-1, 1, 1) + sin * right + cos * down
    with torch.autocast(images.device.type, enabled=False):
        places = torch.stack([x, y], dim=-1) * 2 / size - 1
        return F.grid_sample(images, places, mode="bilinear", padding_mode="border", align_corners=False)


@final
class Egomotion(Task):
    """See the module."""

    @dataclass(frozen=True)
    class Config:
        """The motions, and how finely they are told apart."""

        shift: float = 0.2
        """Largest shift along each axis, as a share of a window's side."""
        shifts: int = 7
        """Shifts along each axis that there are, evenly from one side to the other."""
        turn: float = 30.0
        """Largest turn, in degrees, either way."""
        turns: int = 20
        """Bins of turns."""
        crop: float = 0.45
        """Side of a window, as a share of the picture's; with its shifts and any turn it has to fit."""
        hidden: int = 500
        """Width of the top network's hidden layer."""

        def __post_init__(self) -> None:
            if not 0 < self.shift <= 1:
                raise ValueError(f"shift is {self.shift}; allowed is above 0 and up to 1")
            if not 0 < self.turn <= 180:
                raise ValueError(f"turn is {self.turn}; allowed is above 0 and up to 180 degrees")
            for name in ("shifts", "turns"):
                if not 2 <= getattr(self, name) <= 1000:
                    raise ValueError(f"{name} is {getattr(self, name)}; allowed is from 2 to 1000")
            largest = 0.98 / (math.sqrt(2) * (1 + 2 * self.shift))
            if not 0.05 <= self.crop <= largest:
                raise ValueError(f"crop is {self.crop}; allowed is from 0.05 to {largest:.3f}, with shift={self.shift}")
            if not 1 <= self.hidden <= 65536:
                raise ValueError(f"hidden is {self.hidden}; allowed is from 1 to 65536")

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config = config
        channels, height, width = deepest_shape(encoder)
        self.answers = (config.shifts, config.shifts, config.turns)
        self.top = projector(2 * channels * height * width, config.hidden, sum(self.answers), layers=2, norm=False)
        self._accuracies = torch.zeros(3)

    def motions(self, count: int, size: int, generator: torch.Generator) -> tuple[Window, Window, Int[Tensor, "3 B"]]:
        """Return two windows for each picture, and the classes of x, y and turn that lead from one to the other.

        Args:
            count: B.
            size: Side of the pictures.
            generator: Draws them.
        """
        config, side = self.config, self.config.crop * size
        draws = torch.rand(6, count, generator=generator, device=generator.device)
        bins = draws.new_tensor(self.answers).view(3, 1)
        classes = (draws[:3] * bins).long().clamp(max=bins.long() - 1)
        x, y = (2 * classes[:2] / (config.shifts - 1) - 1) * config.shift * side
        # Room for any turn and any shift around the first centre, and half a pixel that interpolation needs.
        margin = side * math.sqrt(0.5) * (1 + 2 * config.shift) + 0.5
        start_x, start_y = margin + draws[3:5] * max(0.0, size - 2 * margin)
        largest = math.radians(config.turn)
        turn, more = largest * (2 * draws[5] - 1), largest * (2 * draws[2] - 1)
        cos, sin = turn.cos(), turn.sin()
        first = Window(start_x, start_y, side, turn)
        second = Window(start_x + cos * x - sin * y, start_y + sin * x + cos * y, side, turn + more)
        return first, second, classes

    def views(self, batch: Batch) -> tuple[Float[Tensor, "2 B 3 S S"], Int[Tensor, "3 B"]]:
        """Return two views of each picture, and the classes of the motion between them."""
        *windows, classes = self.motions(len(batch.images), batch.images.shape[-1], batch.generator)
        images = batch.images.float() / 255
        return torch.stack([look(images, window) for window in windows]).clamp_(0, 1), classes

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the mean cross-entropy of the three dimensions."""
        views, classes = self.views(batch)
        first, second = self.encoder(views.flatten(0, 1))[-1].flatten(1).chunk(2)
        logits = self.top(torch.cat([first, second], dim=1)).split(self.answers, dim=1)
        right = [answer.detach().argmax(dim=1) == truth for answer, truth in zip(logits, classes, strict=True)]
        self._accuracies = torch.stack(right).float().mean(dim=1)
        parts = [F.cross_entropy(answer, truth) for answer, truth in zip(logits, classes, strict=True)]
        yield "task", torch.stack(parts).mean()

    def metrics(self) -> Mapping[str, float]:
        """Return the accuracies at the last step; chance is one over the number of bins."""
        names = ("accuracy_x", "accuracy_y", "accuracy_turn")
        return dict(zip(names, self._accuracies.tolist(), strict=True))

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each picture and the two views."""
        (first, second), _ = self.views(batch)
        return {"picture": batch.images.float() / 255, "first view": first, "second view": second}

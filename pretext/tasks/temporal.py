"""Temporal coherence: attract frames near in time (Wang and Gupta 2015).

Wang and Gupta, Unsupervised Learning of Visual Representations using Videos, ICCV 2015, arXiv 1505.00687: a
ranking loss on cosine distances with margin 0.5. It ranks the first and last patch of a track of 30 frames against
4 other patches of the batch, random ones at first and the hardest ones later. Published, AlexNet, as quoted by Pathak
et al. 2016, arXiv 1604.07379, table 2 (recalled): VOC 2007 classification 58.7, detection 47.4.

`temporal:order` classifies whether, of three frames b, c, d, the middle one lies between the two others in time:
Misra, Zitnick and Hebert, Shuffle and Learn, ECCV 2016, arXiv 1603.08561. Both tuples of a clip, (b, c, d) and
(b, o, d) with an outer frame o, have the same ends. As in the paper, forwards and backwards both count as in order.

Frames come from data with clips (`--data clips:FOLDER`). Any other data has STILL IMAGES, which are turned into clips:
a square window pans across the image in a random direction, and zooms. This motion is synthetic, the camera's only and
the same for the whole image, so that such a row says little about video.

Shortcuts: the colours of a clip identify it, and nothing blocks that, here or in the paper; static cameras leave a
background that identifies it too. Since both tuples have the same ends, the time between the ends reveals no order.

Deviations: whole frames, cropped alike, instead of tracked patches and of windows chosen by optical flow; distant
frames of the same clip repel too; negatives stay random by default, since the hardest of the batch collapse narrow
encoders on small budgets (loss 0.5); in `temporal:paper` they start at a share of the run, where the paper has 10
epochs; means instead of sums; small heads by default (4096 and 1024 in `temporal:paper`), on the averaged deepest map
for ranking; as many tuples in order as not; a hidden layer compares the three frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pretext.encoders.base import Encoder, deepest_shape
from pretext.modules.projector import projector
from pretext.system.distributed import gather, rank
from pretext.system.ranges import MOST, check_range
from pretext.tasks.base import Batch, Task
from pretext.transforms.crops import cut

STILL_FRAMES = 61
"""Length in frames of the clip that is synthesised from a still image."""
STILL_SIDES = (0.4, 0.7)
"""Smallest and largest side of the window that pans across a still image, as shares of the image's."""


@final
class Temporal(Task):
    """Encoder with a projector for ranking, or with two heads for order classification."""

    @dataclass(frozen=True)
    class Config:
        """The task, the frames, the ranking loss and the heads."""

        order: bool = False
        """Classify the order of three frames, instead of ranking distances between frames."""
        near: int = 30
        """Distance in frames between the two that attract; less in shorter clips."""
        far: int = 60
        """Distance in frames from which frames of the same clip repel."""
        window: int = 60
        """With `order`: length in frames of the window whose four quarters give one frame each."""
        margin: float = 0.5
        """Margin of the ranking loss, in cosine distance."""
        negatives: int = 4
        """Number of negative frames for each frame."""
        hard_from: float = 1.0
        """Share of the run after which negatives are the hardest of the batch, not random; 1: never."""
        crop: float = 0.875
        """Side of the crop, the same for all frames of a clip, as a share of the frame's side."""
        flip: float = 0.5
        """Probability of flipping a clip horizontally."""
        hidden: int = 512
        """Width of the head's hidden layers; published 4096."""
        projection: int = 128
        """Channels of the vectors that are compared; published 1024."""

        def __post_init__(self) -> None:
            check_range(self, "near", "negatives", least=1, most=65536)
            check_range(self, "far", "projection", least=2, most=65536)
            check_range(self, "window", least=4, most=65536)
            check_range(self, "hidden", least=1, most=MOST["hidden"])
            if not self.near < self.far:
                raise ValueError(f"far is {self.far}; allowed is above near={self.near}")
            check_range(self, "margin", above=0, most=2)
            check_range(self, "hard_from", "flip", least=0, most=1)
            check_range(self, "crop", least=0.1, most=1)

    variants: ClassVar[Mapping[str, Any]] = {
        "order": Config(order=True),
        "paper": Config(hard_from=0.25, hidden=4096, projection=1024),
    }
    variant_help: ClassVar[Mapping[str, str]] = {
        "order": "predicts whether three frames are in order",
        "paper": "published widths; hardest negatives after a quarter",
    }
    titles: ClassVar[Mapping[str, str]] = {"order": "Order of frames"}

    progress: Tensor

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config = config
        self.frames = 4 if config.order else 2
        channels, height, width = deepest_shape(encoder)
        if config.order:
            self.describe = projector(channels * height * width, config.hidden, config.hidden, layers=2, norm=False)
            self.compare = projector(3 * config.hidden, config.hidden, 1, layers=2, norm=False)
        else:
            self.projector = projector(channels, config.hidden, config.projection, layers=2, norm=False)
        self.register_buffer("progress", torch.zeros(()))
        self._accuracy = torch.zeros(())

    def choose_frames(
        self, place: Int[Tensor, "B"], length: Int[Tensor, "B"], generator: torch.Generator
    ) -> Int[Tensor, "B F"]:
        """See `Task.choose_frames`: the frame and one at distance `near`, or b, c, d and o."""
        draws = torch.rand(6, len(place), generator=generator, device=place.device)
        if not self.config.order:
            distance = torch.minimum(torch.maximum(place, length - 1 - place), place.new_tensor(self.config.near))
            back = (draws[0] < 0.5) & (place >= distance) | (place + distance >= length)
            return torch.stack([place, torch.where(back, place - distance, place + distance)], dim=1)
        window = length.clamp(max=self.config.window)
        earliest, latest = (place - window + 1).clamp(min=0), torch.minimum(place, length - window)
        start = earliest + (draws[0] * (latest - earliest + 1)).long()
        borders = torch.arange(5, device=place.device) * window[:, None] // 4  # of the window's quarters
        quarters = start[:, None] + borders[:, :4] + (draws[1:5].T * borders.diff(dim=1)).long()
        return middle_and_outer(quarters, draws[5] < 0.5)

    def clips(self, batch: Batch) -> tuple[Float[Tensor, "B F 3 S S"], Int[Tensor, "B"], Int[Tensor, "B F"]]:
        """Return cropped frames, the number of each clip, and the frames' positions in it."""
        count, device = len(batch), batch.device
        draws = torch.rand(4, count, generator=batch.generator, device=device)
        if batch.clips is not None:
            frames, number, place = batch.clips.frames, batch.clips.number, batch.clips.place
            side = torch.full_like(place, 1, dtype=torch.float32) * self.config.crop
            left, top = (draws[k, :, None] * (1 - side) for k in (0, 1))
        else:
            drawn = torch.randint(STILL_FRAMES, (count,), generator=batch.generator, device=device)
            place = self.choose_frames(drawn, torch.full_like(drawn, STILL_FRAMES), batch.generator)
            number = torch.arange(count, device=device) + rank() * count
            frames = batch.pictures.rows(lambda tensor: torch.stack([tensor] * self.frames, dim=1))
            left, top, side = pan(draws[:3], place / (STILL_FRAMES - 1))
        flipped = (draws[3] < self.config.flip).repeat_interleave(self.frames)
        flat = frames.rows(lambda tensor: tensor.flatten(0, 1))
        square = torch.minimum(flat.height, flat.width)  # the frame's centre, of which the windows are shares
        left, top, side = (square * share.flatten() for share in (left, top, side))
        box = top + (flat.height - square) / 2, side, left + (flat.width - square) / 2, side
        views = cut(flat, box, batch.side, flipped).clamp_(0, 1)
        return views.view(count, self.frames, *views.shape[1:]), number, place

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the ranking loss, or the cross-entropy of the order classification."""
        frames, number, place = self.clips(batch)
        if self.config.order:
            yield "task", self._order_loss(frames, batch.generator)
        else:
            yield "task", self._ranking_loss(frames, number, place, batch.generator)

    def after_step(self, progress: float) -> None:
        """Store the progress of the run, which decides between random and hard negatives."""
        self.progress.fill_(progress)

    def metrics(self) -> Mapping[str, float]:
        """Return the accuracy of the last step; chance is 0.5, except with hard negatives."""
        return {"accuracy": float(self._accuracy)}

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return the frames of each clip."""
        names = ("first", "between", "last", "outside") if self.config.order else ("frame", "near frame")
        return dict(zip(names, self.clips(batch)[0].unbind(1), strict=True))

    def _ranking_loss(
        self, frames: Float[Tensor, "B 2 3 S S"], number: Tensor, place: Tensor, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        vectors = self.projector(self.encoder.embed(frames.transpose(0, 1).flatten(0, 1)))
        with torch.autocast(vectors.device.type, enabled=False):
            anchors, near = F.normalize(vectors.float(), dim=1).chunk(2)
            others = torch.cat([gather(anchors), gather(near)])
            distance = (gather(place).T.flatten() - place[:, :1]).abs()
            allowed = (gather(number).repeat(2) != number[:, None]) | (distance >= self.config.far)
            random = torch.rand(allowed.shape, generator=generator, device=allowed.device)
            ranks = torch.where(self.progress < self.config.hard_from, random, (anchors @ others.T).detach())
            excess = ranking_excess(
                anchors,
                near,
                others,
                ranks.masked_fill(~allowed, float("-inf")),
                margin=self.config.margin,
                negatives=self.config.negatives,
            )
        count = (excess > float("-inf")).sum().clamp(min=1)
        self._accuracy = ((excess.detach() < self.config.margin) & (excess.detach() > float("-inf"))).sum() / count
        return excess.clamp(min=0).sum() / count

    def _order_loss(self, frames: Float[Tensor, "B 4 3 S S"], generator: torch.Generator) -> Float[Tensor, ""]:
        count = len(frames)
        vectors = F.relu(self.describe(self.encoder(frames.flatten(0, 1))[-1].flatten(1)))
        first, between, last, outside = vectors.view(count, 4, -1).unbind(1)
        backwards = (torch.rand(count, 1, generator=generator, device=frames.device) < 0.5).to(first.dtype)
        first, last = torch.lerp(first, last, backwards), torch.lerp(last, first, backwards)
        tuples = torch.cat([torch.cat([first, middle, last], dim=1) for middle in (between, outside)])
        logits = self.compare(tuples).squeeze(1)
        in_order = (torch.arange(2 * count, device=frames.device) < count).to(logits.dtype)
        self._accuracy = ((logits.detach() > 0) == (in_order > 0)).float().mean()
        return F.binary_cross_entropy_with_logits(logits, in_order)


def ranking_excess(
    anchors: Float[Tensor, "B D"],
    near: Float[Tensor, "B D"],
    others: Float[Tensor, "N D"],
    ranks: Float[Tensor, "B N"],
    *,
    margin: float,
    negatives: int,
) -> Float[Tensor, "B K"]:
    """Return D(anchor, near) - D(anchor, negative) + margin for each anchor and negative, before clipping at 0.

    Args:
        anchors: One frame of each clip, L2-normalised like all vectors here.
        near: The frame near each anchor, which should be closer than the negatives.
        others: Frames from which negatives are chosen.
        ranks: The K frames with the highest ranks are the negatives; -inf excludes a frame, and its result is -inf.
        margin: Margin M of the ranking loss.
        negatives: Number of negatives K for each anchor, or fewer if there are not as many frames.

    Source: Wang and Gupta 2015, section 4.
    """
    best, chosen = ranks.topk(min(negatives, ranks.shape[1]), dim=1)
    distance = (1 - anchors @ others.T).gather(1, chosen)
    excess = 1 - (anchors * near).sum(dim=1, keepdim=True) - distance + margin
    return excess.masked_fill(best == float("-inf"), float("-inf"))


def middle_and_outer(quarters: Int[Tensor, "B 4"], late: Bool[Tensor, "B"]) -> Int[Tensor, "B 4"]:
    """Return b, c, d and o of four frames in temporal order: o is the last one where `late`, else the first."""
    return torch.where(late[:, None], quarters, quarters.roll(-1, dims=1))


def pan(
    draws: Float[Tensor, "3 B"], progress: Float[Tensor, "B F"]
) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B F"], Float[Tensor, "B F"]]:
    """Return left, top and side of a moving window, as shares of the image's side.

    Args:
        draws: Uniform in [0, 1): the direction, the first side and the last side.
        progress: Completed share of the motion at each frame, 0 to 1.
    """
    turn = 2 * torch.pi * draws[0]
    smallest, largest = STILL_SIDES
    first, last = smallest + (largest - smallest) * draws[1:, :, None]
    side = torch.lerp(first, last, progress)
    across, down = (0.5 + (progress - 0.5) * way[:, None] for way in (turn.cos(), turn.sin()))
    return across * (1 - side), down * (1 - side), side

"""Temporal coherence: attract frames near in time (Wang and Gupta 2015).

Wang and Gupta, Unsupervised Learning of Visual Representations using Videos, ICCV 2015, arXiv 1505.00687: a
ranking loss on cosine distances with margin 0.5; a frame's first and last patch of a track of 30 frames, against
4 others of the batch, at first random ones and then the hardest. Published, AlexNet, as quoted by Pathak et al.
2016, arXiv 1604.07379, table 2 (recalled): VOC 2007 classification 58.7, detection 47.4.

`order` asks instead, of three frames b, c, d, whether the middle one is between the two others in time: Misra,
Zitnick and Hebert, Shuffle and Learn, ECCV 2016, arXiv 1603.08561. Both tuples of a clip, (b, c, d) and (b, o, d)
with an outer frame o, have the same ends, and forwards and backwards both count as in order, as in the paper.

Frames come from data with clips (`--data clips:FOLDER`). A STILL PICTURE, of any other data, is made a clip: a
square window pans across it from one side to the other, in a random direction, and zooms. Its motion is made up,
the camera's alone and the same for everything in sight, so that such a row says little about video.

Shortcuts: the colours of a clip tell it from others, and nothing blocks that, here or in the paper; still cameras
leave a background that does it too. The ends being equal, the time between them does not tell an order.

Deviations: whole frames, cropped alike, in place of tracked patches and of windows chosen by optical flow; distant
frames of the same clip repel too; negatives stay random by default, as the hardest of the batch draw narrow encoders
on small budgets to one point (loss 0.5), and come in at a share of the run in `paper`, where the paper has 10 epochs;
means where the paper sums; small heads by default (4096 and 1024 in `paper`), on the averaged deepest map for
ranking; the two tuples of a clip are as many in order as not; a hidden layer compares the three frames.
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
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import crop_matrix, resample

STILL_FRAMES = 61
"""Frames of the clip that a still picture is made."""
STILL_SIDES = (0.4, 0.7)
"""Sides of the windows that pan over it, as shares of its own."""


def ranking_excess(
    anchors: Float[Tensor, "B D"],
    near: Float[Tensor, "B D"],
    others: Float[Tensor, "N D"],
    ranks: Float[Tensor, "B N"],
    *,
    margin: float,
    negatives: int,
) -> Float[Tensor, "B K"]:
    """Return D(anchor, near) - D(anchor, other) + margin of each frame and its negatives; all vectors are of length 1.

    Args:
        anchors: A frame of each clip.
        near: The one that is to be nearer than others.
        others: Frames to choose negatives from.
        ranks: The highest are chosen; -inf is none, and what stands for it is -inf.
        margin: M.
        negatives: K, as far as there are so many.

    Source: Wang and Gupta 2015, section 4 (the ranking loss, before it is cut off at 0).
    """
    best, chosen = ranks.topk(min(negatives, ranks.shape[1]), dim=1)
    apart = (1 - anchors @ others.T).gather(1, chosen)
    excess = 1 - (anchors * near).sum(dim=1, keepdim=True) - apart + margin
    return excess.masked_fill(best == float("-inf"), float("-inf"))


def middle_and_outer(quarters: Int[Tensor, "B 4"], late: Bool[Tensor, "B"]) -> Int[Tensor, "B 4"]:
    """Return b, c, d and o of four frames in time: o comes after the others where `late`, else before them."""
    return torch.where(late[:, None], quarters, quarters.roll(-1, dims=1))


def pan(
    draws: Float[Tensor, "3 B"], progress: Float[Tensor, "B F"]
) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B F"], Float[Tensor, "B F"]]:
    """Return left, top and side of a moving window, as shares of the picture's side.

    Args:
        draws: Uniform in [0, 1): the direction, the first side and the last.
        progress: How much of the way is behind it, 0 to 1.
    """
    turn = 2 * torch.pi * draws[0]
    least, most = STILL_SIDES
    first, last = least + (most - least) * draws[1:, :, None]
    side = torch.lerp(first, last, progress)
    across, down = (0.5 + (progress - 0.5) * way[:, None] for way in (turn.cos(), turn.sin()))
    return across * (1 - side), down * (1 - side), side


@final
class Temporal(Task):
    """See the module."""

    @dataclass(frozen=True)
    class Config:
        """What is asked, of which frames, by which heads."""

        order: bool = False
        """Whether to ask for the order of three frames, in place of ranking distances."""
        near: int = 30
        """Frames between the two that attract; as many as there are in a shorter clip."""
        far: int = 60
        """Frames of the same clip repel from so many frames between them on."""
        window: int = 60
        """`order`: frames are drawn from a stretch of so many, one of each quarter."""
        margin: float = 0.5
        """By how much nearer, in cosine distance, the near frame is to be."""
        negatives: int = 4
        """Frames that each frame is ranked against."""
        hard_from: float = 1.0
        """Share of the run from which on these are the hardest of the batch, not random ones; 1 is never."""
        crop: float = 0.875
        """Side of the window that all frames of a clip are cropped to, as a share of theirs."""
        flip: float = 0.5
        """Probability of mirroring a clip left and right."""
        hidden: int = 512
        """Width of the head's hidden layers; the papers have 4096."""
        projection: int = 128
        """Length of the vectors that are compared; the paper has 1024."""

        def __post_init__(self) -> None:
            whole = {"near": 1, "far": 2, "window": 4, "negatives": 1, "hidden": 1, "projection": 2}
            for name, least in whole.items():
                if not least <= getattr(self, name) <= 65536:
                    raise ValueError(f"{name} is {getattr(self, name)}; allowed is from {least} to 65536")
            if not self.near < self.far:
                raise ValueError(f"far is {self.far}; allowed is above near={self.near}")
            if not 0 < self.margin <= 2:
                raise ValueError(f"margin is {self.margin}; allowed is above 0 and up to 2")
            for name, least_share in {"hard_from": 0.0, "crop": 0.1, "flip": 0.0}.items():
                if not least_share <= getattr(self, name) <= 1:
                    raise ValueError(f"{name} is {getattr(self, name)}; allowed is from {least_share} to 1")

    variants: ClassVar[Mapping[str, Any]] = {
        "order": Config(order=True),
        "paper": Config(hard_from=0.25, hidden=4096, projection=1024),
    }
    variant_help: ClassVar[Mapping[str, str]] = {
        "order": "predicts whether three frames are in order",
        "paper": "published widths; hardest negatives after a quarter",
    }

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
        self._right = torch.zeros(())

    def choose_frames(
        self, place: Int[Tensor, "B"], length: Int[Tensor, "B"], generator: torch.Generator
    ) -> Int[Tensor, "B F"]:
        """See `Task.choose_frames`: the frame and one near it, or b, c, d and o."""
        draws = torch.rand(6, len(place), generator=generator, device=place.device)
        if not self.config.order:
            apart = torch.minimum(torch.maximum(place, length - 1 - place), place.new_tensor(self.config.near))
            back = (draws[0] < 0.5) & (place >= apart) | (place + apart >= length)
            return torch.stack([place, torch.where(back, place - apart, place + apart)], dim=1)
        stretch = length.clamp(max=self.config.window)
        earliest, latest = (place - stretch + 1).clamp(min=0), torch.minimum(place, length - stretch)
        start = earliest + (draws[0] * (latest - earliest + 1)).long()
        ends = torch.arange(5, device=place.device) * stretch[:, None] // 4
        quarters = start[:, None] + ends[:, :4] + (draws[1:5].T * ends.diff(dim=1)).long()
        return middle_and_outer(quarters, draws[5] < 0.5)

    def clips(self, batch: Batch) -> tuple[Float[Tensor, "B F 3 S S"], Int[Tensor, "B"], Int[Tensor, "B F"]]:
        """Return cropped frames, the number of each clip, and the frames' places in it."""
        count, size, device = len(batch.images), batch.images.shape[-1], batch.images.device
        draws = torch.rand(4, count, generator=batch.generator, device=device)
        if batch.clips is not None:
            frames, number, place = batch.clips
            side = torch.full_like(place, 1, dtype=torch.float32) * self.config.crop
            left, top = (draws[k, :, None] * (1 - side) for k in (0, 1))
        else:
            drawn = torch.randint(STILL_FRAMES, (count,), generator=batch.generator, device=device)
            place = self.choose_frames(drawn, torch.full_like(drawn, STILL_FRAMES), batch.generator)
            number = torch.arange(count, device=device) + rank() * count
            frames = batch.images[:, None].expand(-1, self.frames, -1, -1, -1)
            left, top, side = pan(draws[:3], place / (STILL_FRAMES - 1))
        mirrored = (draws[3] < self.config.flip).repeat_interleave(self.frames)
        left, top, side = (size * share.flatten() for share in (left, top, side))
        rows, columns = crop_matrix(top, side, size, size), crop_matrix(left, side, size, size, mirrored)
        views = resample(frames.flatten(0, 1), rows, columns).clamp_(0, 1)
        return views.view(count, self.frames, *views.shape[1:]), number, place

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the ranking loss, or the cross-entropy of tuples being in order."""
        frames, number, place = self.clips(batch)
        if self.config.order:
            yield "task", self._order_loss(frames, batch.generator)
        else:
            yield "task", self._ranking_loss(frames, number, place, batch.generator)

    def after_step(self, progress: float) -> None:
        """Take note of the time for hard negatives."""
        self.progress.fill_(progress)

    def metrics(self) -> Mapping[str, float]:
        """Return the share of right answers at the last step; chance is 0.5, but for the hardest negatives."""
        return {"accuracy": float(self._right)}

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return the frames that it sees."""
        names = ("first", "between", "last", "outside") if self.config.order else ("frame", "near frame")
        return dict(zip(names, self.clips(batch)[0].unbind(1), strict=True))

    def _ranking_loss(
        self, frames: Float[Tensor, "B 2 3 S S"], number: Tensor, place: Tensor, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        vectors = self.projector(self.encoder.embed(frames.transpose(0, 1).flatten(0, 1)))
        with torch.autocast(vectors.device.type, enabled=False):
            anchors, near = F.normalize(vectors.float(), dim=1).chunk(2)
            others = torch.cat([gather(anchors), gather(near)])
            apart = (gather(place).T.flatten() - place[:, :1]).abs()
            allowed = (gather(number).repeat(2) != number[:, None]) | (apart >= self.config.far)
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
        there = (excess > float("-inf")).sum().clamp(min=1)
        self._right = ((excess.detach() < self.config.margin) & (excess.detach() > float("-inf"))).sum() / there
        return excess.clamp(min=0).sum() / there

    def _order_loss(self, frames: Float[Tensor, "B 4 3 S S"], generator: torch.Generator) -> Float[Tensor, ""]:
        count = len(frames)
        described = F.relu(self.describe(self.encoder(frames.flatten(0, 1))[-1].flatten(1)))
        first, between, last, outside = described.view(count, 4, -1).unbind(1)
        backwards = (torch.rand(count, 1, generator=generator, device=frames.device) < 0.5).to(first.dtype)
        first, last = torch.lerp(first, last, backwards), torch.lerp(last, first, backwards)
        tuples = torch.cat([torch.cat([first, middle, last], dim=1) for middle in (between, outside)])
        logits = self.compare(tuples).squeeze(1)
        in_order = (torch.arange(2 * count, device=frames.device) < count).to(logits.dtype)
        self._right = ((logits.detach() > 0) == (in_order > 0)).float().mean()
        return F.binary_cross_entropy_with_logits(logits, in_order)

"""Relative location: predict where a tile lies (Doersch et al. 2015).

Doersch, Gupta and Efros, Unsupervised Visual Representation Learning by Context Prediction, ICCV 2015,
arXiv 1505.05192, section 3. Published (recalled): R-CNN on VOC 2007, AlexNet-like, 46.3 mAP with colours dropped and
45.7 with colours projected, where the same network from scratch has 39.8; as others measured it later,
VOC 2007 classification 65.3 and ImageNet linear conv1…conv5 16.2 23.3 30.2 31.7 29.6 % top-1.

Shortcuts:
    edges that go on from tile to tile: a gap and jitter (section 3.1) block what compares bordering lines of
        pixels, of textures finer than the gap; long lines and slow gradients span it, and are not blocked;
    chromatic aberration, which tells a tile's place in the picture: blocked by `drop` and by `grey`; by
        `project` where red and blue go together, as a lens that moves green against both lets them;
    interpolation: blocked, see `pretext.transforms.grids`;
    brightness that tells the place by itself (sky above, a vignette): not blocked, as in the paper.

Deviations: pairs come from one 3×3 grid, each of the eight answers once a picture, the first tile of a pair drawn
from all that have such a neighbour (the paper: from a grid as large as the picture); tiles are enlarged to half
of the encoder's input; pictures are not resized at random, and tiles not downsampled at random against
pixelation; batch normalisation between the last layers, which are an eighth as wide by default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pretext.encoders.base import Encoder
from pretext.modules.projector import projector
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import LUMA
from pretext.transforms.grids import SIDE, TILES, Grid, cut_tiles, draw_places, layout, sheet, tile_layer, tile_size

NEIGHBOURS = tuple((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0))
"""What each answer means: rows down and columns to the right of the first tile."""
GREEN_MAGENTA = (-1.0, 2.0, -1.0)

Colour = Literal["drop", "project", "grey", "keep"]


@final
class RelativeLocation(Task):
    """See the module."""

    @dataclass(frozen=True)
    class Config(Grid):
        """The tiles and their colours."""

        jitter: float = 7 / 24
        """Share of the free room that a tile moves in; as published, ±7 px where 48 px are free."""
        colour: Colour = "drop"
        """`drop` replaces two channels by noise, `project` removes green-magenta, `grey` averages, `keep` keeps."""

    variants: ClassVar[Mapping[str, Any]] = {"paper": Config(span=0.8, tile=96, head_width=1.0)}
    """`paper`: tiles of 96 px, cut without resizing from pictures of 540 px, and layers of 4096."""
    variant_help: ClassVar[Mapping[str, str]] = {
        "paper": "96 px tiles of 540 px images, full-width head",
    }
    training_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"encoder": "alexnet", "image_size": 540}}

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config = config
        self.size = tile_size(encoder, config)
        width = max(8, round(4096 * config.head_width))
        self.layer = tile_layer(encoder, self.size, width)
        self.head = projector(2 * width, width, len(NEIGHBOURS), layers=3)
        firsts = [_with_neighbour(*neighbour) for neighbour in NEIGHBOURS]
        self.choices: Tensor
        self.firsts: Tensor
        self.steps: Tensor
        self.register_buffer("choices", torch.tensor([len(some) for some in firsts]), persistent=False)
        self.register_buffer("firsts", torch.tensor([(some * 2)[:6] for some in firsts]), persistent=False)
        self.register_buffer("steps", torch.tensor([SIDE * d + r for d, r in NEIGHBOURS]), persistent=False)
        self._accuracy = torch.zeros(())

    def tiles(self, batch: Batch) -> Float[Tensor, "B 9 3 T T"]:
        """Return what the encoder sees of each picture, in reading order."""
        size, where = batch.images.shape[-1], layout(batch.images.shape[-1], self.config)
        places = draw_places(len(batch.images), size, where, batch.generator, batch.images.device)
        tiles = cut_tiles(batch.images, places[:, :, None], side=where.side, size=self.size)
        return without_aberration(tiles, self.config.colour, self.encoder.mean, batch.generator)

    def pairs(self, batch: Batch) -> tuple[Int[Tensor, "B 8"], Int[Tensor, "B 8"]]:
        """Return the first and the second tile of a pair for each answer, drawn for every picture."""
        draws = torch.rand(len(batch.images), 8, generator=batch.generator, device=batch.images.device)
        which = (draws * self.choices).long().clamp(max=self.choices - 1)
        firsts = self.firsts[torch.arange(8, device=which.device), which]
        return firsts, firsts + self.steps

    def answer(
        self, tiles: Float[Tensor, "B 9 3 T T"], firsts: Int[Tensor, "B 8"], seconds: Int[Tensor, "B 8"]
    ) -> Float[Tensor, "B 8 8"]:
        """Return the logits of the eight answers for each pair."""
        features = self.layer(self.encoder(tiles.flatten(0, 1))[-1]).view(len(tiles), TILES, -1)
        picture = torch.arange(len(tiles), device=tiles.device)[:, None]
        both = torch.cat([features[picture, firsts], features[picture, seconds]], dim=2)
        return self.head(both.flatten(0, 1)).view(len(tiles), 8, -1)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the cross-entropy of the eight places."""
        logits = self.answer(self.tiles(batch), *self.pairs(batch)).flatten(0, 1)
        right = torch.arange(8, device=logits.device).repeat(len(batch.images))
        self._accuracy = (logits.detach().argmax(dim=1) == right).float().mean()
        yield "task", F.cross_entropy(logits, right)

    def metrics(self) -> Mapping[str, float]:
        """Return the accuracy at the last step; chance is 0.125."""
        return {"accuracy": float(self._accuracy)}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return the picture, its tiles, and a pair of them where it belongs and where it is put."""
        size, picture = batch.images.shape[-1], torch.arange(len(batch.images), device=batch.images.device)
        tiles, (firsts, seconds) = self.tiles(batch), self.pairs(batch)
        right = picture % 8
        given = self.answer(tiles, firsts, seconds)[picture, right].argmax(dim=1)
        columns = {"picture": batch.images.float() / 255, "tiles": sheet(tiles, size)}
        for name, place in (("pair", right), ("answer", given)):
            pair = torch.full_like(tiles, 0.5)
            pair[:, TILES // 2] = tiles[picture, firsts[picture, right]]
            pair[picture, place + (place >= 4)] = tiles[picture, seconds[picture, right]]
            columns[name] = sheet(pair, size)
        return columns


def without_aberration(
    tiles: Float[Tensor, "B 9 3 T T"], colour: Colour, mean: tuple[float, float, float], generator: torch.Generator
) -> Float[Tensor, "B 9 3 T T"]:
    """Return tiles whose channels do not tell how a lens moved them against each other.

    Args:
        tiles: In [0, 1].
        colour: See `Config`.
        mean: The encoder's, per channel: noise lies around it, as the paper's does around 0 after subtraction.
        generator: Draws the channel that stays, and the noise.

    Source: section 3.1.
    """
    if colour == "drop":
        kept = torch.randint(3, tiles.shape[:2], generator=generator, device=tiles.device)
        stays = F.one_hot(kept, 3).bool()[..., None, None]
        spread = (tiles * stays).sum(dim=2, keepdim=True).std(dim=(3, 4), keepdim=True)
        noise = torch.randn(tiles.shape, generator=generator, device=tiles.device)
        return torch.where(stays, tiles, tiles.new_tensor(mean).view(3, 1, 1) + noise * spread / 100)
    if colour == "project":
        axis = tiles.new_tensor(GREEN_MAGENTA)
        return _mixed(tiles, torch.eye(3, device=tiles.device) - torch.outer(axis, axis) / axis.dot(axis))
    return _mixed(tiles, tiles.new_tensor(LUMA).expand(3, 3)) if colour == "grey" else tiles


def _mixed(tiles: Tensor, matrix: Tensor) -> Tensor:
    """Multiply every pixel by a matrix."""
    with torch.autocast(tiles.device.type, enabled=False):
        return (matrix @ tiles.flatten(3)).view(tiles.shape)


def _with_neighbour(down: int, right: int) -> list[int]:
    """Return the tiles that have a neighbour there."""
    return [t for t in range(TILES) if 0 <= t // SIDE + down < SIDE and 0 <= t % SIDE + right < SIDE]

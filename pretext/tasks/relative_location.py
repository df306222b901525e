"""Relative location: predict where a tile lies (Doersch et al. 2015).

Doersch, Gupta and Efros, Unsupervised Visual Representation Learning by Context Prediction, ICCV 2015,
arXiv 1505.05192, section 3: given two tiles of an image, predict which of the first tile's eight neighbours the second
is. Published (recalled): R-CNN on VOC 2007, AlexNet-like, 46.3 mAP with colour dropping and 45.7 with colour
projection, against 39.8 for the same network from scratch; as others measured it later, VOC 2007 classification 65.3
and ImageNet linear conv1…conv5 16.2 23.3 30.2 31.7 29.6 % top-1.

Shortcuts:
    edges that continue from tile to tile: a gap and jitter (section 3.1) block the comparison of bordering lines of
        pixels, and of textures finer than the gap; long lines and slow gradients cross it and are not blocked;
    chromatic aberration, which reveals a tile's place in the image: blocked by `drop` and by `grey`; by `project`
        if red and blue shift together, as with a lens that shifts green against both;
    interpolation: blocked, see `pretext.transforms.grids`;
    brightness that reveals the place by itself (sky above, a vignette): not blocked, as in the paper.

Deviations: pairs come from one 3×3 grid, each of the eight labels once per image, with the first tile of a pair drawn
from all that have such a neighbour (the paper: from a grid as large as the image); tiles are enlarged to half of the
encoder's input size; images are not resized at random, and tiles not downsampled at random against pixelation; batch
normalisation between the last layers, which are an eighth as wide by default.
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
from pretext.transforms.grids import SIDE, TILES, Grid, draw_places, layout, sheet, tile_layer, tile_size, tiles_at

NEIGHBOURS = tuple((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0))
"""The eight classes: (rows down, columns right) from the first tile to the second."""
GREEN_MAGENTA = (-1.0, 2.0, -1.0)
"""Colour axis that `colour=project` removes."""

Colour = Literal["drop", "project", "grey", "keep"]


@final
class RelativeLocation(Task):
    """Encoder on each tile, and a head that classifies pairs of tiles."""

    @dataclass(frozen=True)
    class Config(Grid):
        """The tiles, and the measure against chromatic aberration."""

        jitter: float = 7 / 24
        """Share of a cell's free space that its tile moves in; published ±7 px of 48 px."""
        colour: Colour = "drop"
        """Colours: `drop` two channels for noise, `project` out green-magenta, convert to `grey`, or `keep`."""

    # tiles of 96 px, cut without resizing from images of 540 px, and layers of 4096 channels
    variants: ClassVar[Mapping[str, Any]] = {"paper": Config(span=0.8, tile=96, head_width=1.0)}
    variant_help: ClassVar[Mapping[str, str]] = {
        "paper": "96 px tiles of 540 px images, full-width head",
    }
    training_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"encoder": "alexnet", "image_size": 540}}

    def __init__(self, encoder: Encoder, config: Config) -> None:
        """Build the head.

        Raises:
            ValueError: If the encoder cannot read the tiles.
        """
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
        """Return the processed tiles of each image, in reading order."""
        grid = layout(batch.side, self.config)
        places = draw_places(len(batch), batch.side, grid, batch.generator, batch.device)[:, :, None]
        tiles = tiles_at(batch.magnified(self.size / grid.side), batch.side, places, side=grid.side, size=self.size)
        return without_aberration(tiles, self.config.colour, self.encoder.mean, batch.generator)

    def pairs(self, batch: Batch) -> tuple[Int[Tensor, "B 8"], Int[Tensor, "B 8"]]:
        """Return the first and the second tile of a random pair for each class, separately for every image."""
        draws = torch.rand(len(batch), 8, generator=batch.generator, device=batch.device)
        which = (draws * self.choices).long().clamp(max=self.choices - 1)
        firsts = self.firsts[torch.arange(8, device=which.device), which]
        return firsts, firsts + self.steps

    def classify(
        self, tiles: Float[Tensor, "B 9 3 T T"], firsts: Int[Tensor, "B 8"], seconds: Int[Tensor, "B 8"]
    ) -> Float[Tensor, "B 8 8"]:
        """Return the logits of the eight classes for each pair."""
        features = self.layer(self.encoder(tiles.flatten(0, 1))[-1]).view(len(tiles), TILES, -1)
        image = torch.arange(len(tiles), device=tiles.device)[:, None]
        pairs = torch.cat([features[image, firsts], features[image, seconds]], dim=2)
        return self.head(pairs.flatten(0, 1)).view(len(tiles), 8, -1)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the cross-entropy over the eight positions."""
        logits = self.classify(self.tiles(batch), *self.pairs(batch)).flatten(0, 1)
        classes = torch.arange(8, device=logits.device).repeat(len(batch))
        self._accuracy = (logits.detach().argmax(dim=1) == classes).float().mean()
        yield "task", F.cross_entropy(logits, classes)

    def metrics(self) -> Mapping[str, float]:
        """Return the accuracy of the last step; chance is 0.125."""
        return {"accuracy": float(self._accuracy)}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each image, its tiles, and a pair of them at its true and at its predicted position."""
        size, image = batch.side, torch.arange(len(batch), device=batch.device)
        tiles, (firsts, seconds) = self.tiles(batch), self.pairs(batch)
        true = image % 8
        predicted = self.classify(tiles, firsts, seconds)[image, true].argmax(dim=1)
        columns = {"picture": batch.images.float() / 255, "tiles": sheet(tiles, size)}
        for name, position in (("pair", true), ("answer", predicted)):
            pair = torch.full_like(tiles, 0.5)
            pair[:, TILES // 2] = tiles[image, firsts[image, true]]
            pair[image, position + (position >= 4)] = tiles[image, seconds[image, true]]  # 4 is the centre
            columns[name] = sheet(pair, size)
        return columns


def without_aberration(
    tiles: Float[Tensor, "B 9 3 T T"], colour: Colour, mean: tuple[float, float, float], generator: torch.Generator
) -> Float[Tensor, "B 9 3 T T"]:
    """Return tiles without the shifts between channels that chromatic aberration causes.

    Args:
        tiles: Tiles in [0, 1].
        colour: See `Config`.
        mean: The encoder's mean of each channel; the noise has this mean, which the encoder subtracts.
        generator: Draws the channel that is kept, and the noise.

    Source: section 3.1.
    """
    if colour == "drop":
        kept = torch.randint(3, tiles.shape[:2], generator=generator, device=tiles.device)
        is_kept = F.one_hot(kept, 3).bool()[..., None, None]
        std = (tiles * is_kept).sum(dim=2, keepdim=True).std(dim=(3, 4), keepdim=True)
        noise = torch.randn(tiles.shape, generator=generator, device=tiles.device)
        return torch.where(is_kept, tiles, tiles.new_tensor(mean).view(3, 1, 1) + noise * std / 100)
    if colour == "project":
        axis = tiles.new_tensor(GREEN_MAGENTA)
        return _mixed(tiles, torch.eye(3, device=tiles.device) - torch.outer(axis, axis) / axis.dot(axis))
    return _mixed(tiles, tiles.new_tensor(LUMA).expand(3, 3)) if colour == "grey" else tiles


def _mixed(tiles: Tensor, matrix: Tensor) -> Tensor:
    """Multiply every pixel's colour by a 3×3 matrix."""
    with torch.autocast(tiles.device.type, enabled=False):
        return (matrix @ tiles.flatten(3)).view(tiles.shape)


def _with_neighbour(down: int, right: int) -> list[int]:
    """Return the tiles that have a neighbour in that direction."""
    return [t for t in range(TILES) if 0 <= t // SIDE + down < SIDE and 0 <= t % SIDE + right < SIDE]

"""Jigsaw: predict the order of nine shuffled tiles (Noroozi and Favaro 2016).

Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles, ECCV 2016,
arXiv 1603.09246, section 3. Published (recalled): context-free network, VOC 2007 classification 67.6 and
detection 53.2 mAP, VOC 2012 segmentation 37.6 mIoU, 71 % of puzzles solved with 1000 permutations and 88 % with
100; as others measured it later, ImageNet linear conv1…conv5 18.2 28.8 34.0 33.9 27.1 % top-1.

Shortcuts:
    mean and standard deviation of a tile, which neighbours share: blocked, each channel of each tile is normalised;
    edges that continue from tile to tile: a random gap blocks the comparison of bordering lines of pixels, and of
        textures finer than the gap; long lines and slow gradients cross it and are not blocked;
    chromatic aberration, which reveals a tile's place: blocked in greyscale images, and made unreliable in colour
        images by `channel_shift`; not blocked in colour images by default, which are too small to show it;
    interpolation: blocked, see `pretext.transforms.grids`;
    permutations that a few tiles identify: blocked, the permutations are as far apart as possible.

Deviations: the set of permutations starts with the identity (the paper draws the first), and ties of the greedy
choice go to the permutation with the farthest nearest neighbour, then to the first (the paper says nothing of ties);
a tile's shifted channels stay inside its cell, which leaves the tile less room to move; tiles are enlarged to half of
the encoder's input size; batch normalisation before the last layer, no dropout. The defaults have 100 permutations, a
wider gap (the published share is one pixel at 32 px), no channel shifts and layers an eighth as wide; `jigsaw:paper`
has the published values.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pretext.encoders.base import Encoder
from pretext.modules.projector import projector
from pretext.system.ranges import check_range
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import LUMA
from pretext.transforms.grids import TILES, Grid, draw_places, layout, sheet, tile_layer, tile_size, tiles_at


@final
class Jigsaw(Task):
    """Encoder on each tile, and a head that classifies the permutation of the nine tiles."""

    @dataclass(frozen=True)
    class Config(Grid):
        """The tiles, the permutations, and the measures against shortcuts."""

        gap: float = 0.25
        """Mean gap between tiles as a share of a cell's side; published 11/75: tiles of 64 px in cells of 75."""
        permutations: int = 100
        """Number of permutations, which are the classes; published 1000."""
        normalise: bool = True
        """Normalise each channel of each tile to mean 0 and standard deviation 1."""
        greyscale: float = 0.3
        """Probability of converting an image to greyscale."""
        channel_shift: int = 0
        """Largest random shift of a tile's channels, in image pixels; useful for large images only."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_range(self, "permutations", least=2, most=10000)
            check_range(self, "greyscale", least=0, most=1)
            check_range(self, "channel_shift", least=0, most=100, unit="pixels")

    # cells of 75 px, of which tiles of 64 px, on 225 of 256 px: span 225 / 256, gap 11 / 75
    variants: ClassVar[Mapping[str, Any]] = {
        "paper": Config(
            span=0.87890625, gap=0.14666666666666667, tile=64, head_width=1.0, permutations=1000, channel_shift=2
        )
    }
    variant_help: ClassVar[Mapping[str, str]] = {
        "paper": "1000 permutations, 64 px tiles, full-width head",
    }
    training_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"encoder": "alexnet?stem_stride=2", "image_size": 256}
    }

    def __init__(self, encoder: Encoder, config: Config) -> None:
        """Build the head and the set of permutations.

        Raises:
            ValueError: If the encoder cannot read the tiles.
        """
        super().__init__(encoder)
        self.config = config
        self.size = tile_size(encoder, config, margin=config.channel_shift)
        width, hidden = (max(8, round(full * config.head_width)) for full in (512, 4096))
        self.layer = tile_layer(encoder, self.size, width)
        self.head = projector(TILES * width, hidden, config.permutations, layers=2)
        self.orders: Tensor
        self.register_buffer("orders", torch.from_numpy(permutation_set(config.permutations)).long())
        self._accuracy = torch.zeros(())

    def tiles(self, batch: Batch) -> Float[Tensor, "B 9 3 T T"]:
        """Return the processed tiles of each image, in reading order."""
        shift, count, device = self.config.channel_shift, len(batch), batch.device
        grid = layout(batch.side, self.config, margin=shift)
        places = draw_places(count, batch.side, grid, batch.generator, device)[:, :, None]
        grey = torch.rand(count, generator=batch.generator, device=device) < self.config.greyscale
        grey = grey.view(-1, 1, 1, 1)
        if shift:
            moved = torch.randint(-shift, shift + 1, (count, TILES, 3, 2), generator=batch.generator, device=device)
            places = places + torch.where(grey, 0, moved)
        tiles = tiles_at(batch.magnified(self.size / grid.side), batch.side, places, side=grid.side, size=self.size)
        if self.config.greyscale:
            luma = (tiles * tiles.new_tensor(LUMA).view(3, 1, 1)).sum(dim=2, keepdim=True)
            tiles = torch.where(grey[..., None], luma, tiles)
        if not self.config.normalise:
            return tiles
        mean, std = (tiles.new_tensor(values).view(3, 1, 1) for values in (self.encoder.mean, self.encoder.std))
        variance, centre = torch.var_mean(tiles, dim=(3, 4), keepdim=True, correction=0)
        return (tiles - centre) * (variance + 1e-6).rsqrt() * std + mean  # cancels the encoder's own normalisation

    def puzzles(self, batch: Batch) -> tuple[Float[Tensor, "B 9 3 T T"], Int[Tensor, "B"]]:
        """Return shuffled tiles and the index of the permutation of each image."""
        tiles = self.tiles(batch)
        which = torch.randint(len(self.orders), (len(tiles),), generator=batch.generator, device=batch.device)
        image = torch.arange(len(tiles), device=tiles.device)[:, None]
        return tiles[image, self.orders[which]], which

    def classify(self, shuffled: Float[Tensor, "B 9 3 T T"]) -> Float[Tensor, "B P"]:
        """Return the logits of the P permutations."""
        features = self.layer(self.encoder(shuffled.flatten(0, 1))[-1])
        return self.head(features.view(len(shuffled), -1))

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the cross-entropy over the permutations (section 3)."""
        shuffled, which = self.puzzles(batch)
        logits = self.classify(shuffled)
        self._accuracy = (logits.detach().argmax(dim=1) == which).float().mean()
        yield "task", F.cross_entropy(logits, which)

    def metrics(self) -> Mapping[str, float]:
        """Return the accuracy of the last step; chance is 1 / number of permutations."""
        return {"accuracy": float(self._accuracy)}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each image, its shuffled tiles, and the tiles in the predicted order."""
        size = batch.side
        shuffled, _ = self.puzzles(batch)
        inverse = self.orders[self.classify(shuffled).argmax(dim=1)].argsort(dim=1)
        solved = shuffled[torch.arange(len(shuffled), device=shuffled.device)[:, None], inverse]
        return {
            "picture": batch.images.float() / 255,
            "puzzle": sheet(shuffled, size),
            "put together": sheet(solved, size),
        }


@lru_cache(maxsize=8)
def permutation_set(count: int, tiles: int = TILES) -> Int[np.ndarray, "count tiles"]:
    """Return permutations with a large mean Hamming distance; position i of permutation p shows tile p[i].

    Greedy and deterministic: each permutation has the largest summed distance to all those chosen before it.

    Args:
        count: Number of permutations to choose.
        tiles: Length of a permutation.

    Raises:
        ValueError: If there are fewer than `count` permutations.

    Source: Algorithm 1.
    """
    every = np.array(
        list(itertools.permutations(range(tiles))), dtype=np.uint8
    ).T.copy()  # one row per position, which is fast to compare
    if count > every.shape[1]:
        raise ValueError(f"permutations is {count}; allowed is up to {every.shape[1]}, all orders of {tiles} tiles")
    total = np.zeros(every.shape[1], dtype=np.int32)
    nearest = np.full(every.shape[1], tiles, dtype=np.int32)
    chosen = [0]
    while len(chosen) < count:
        distance = np.zeros(every.shape[1], dtype=np.int32)
        for position in every:
            distance += position != position[chosen[-1]]
        total += distance
        nearest = np.minimum(nearest, distance)
        score = total * (tiles + 1) + nearest
        score[chosen] = -1
        chosen.append(int(score.argmax()))
    return every[:, chosen].T.copy()

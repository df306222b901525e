"""Jigsaw: predict the order of nine shuffled tiles (Noroozi and Favaro 2016).

Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles, ECCV 2016,
arXiv 1603.09246, section 3. Published (recalled): context-free network, VOC 2007 classification 67.6 and
detection 53.2 mAP, VOC 2012 segmentation 37.6 mIoU, 71 % of puzzles solved with 1000 permutations and 88 % with
100; as others measured it later, ImageNet linear conv1…conv5 18.2 28.8 34.0 33.9 27.1 % top-1.

Shortcuts:
    mean and deviation of tiles, which neighbours share: blocked, each channel of each tile is normalised;
    edges that go on from tile to tile: a random gap blocks what compares bordering lines of pixels, of textures
        finer than it; long lines and slow gradients span it, and are not blocked;
    chromatic aberration, which tells a tile's place: blocked in greyscale pictures, and made unreliable in colour
        ones by `channel_shift`; not blocked in colour ones by default, which are for pictures too small for it;
    interpolation: blocked, see `pretext.transforms.grids`;
    answers that few tiles give away: permutations lie as far apart as they can.

Deviations: the set of permutations starts with the identity, and among equally far ones the greedy choice is the
one whose nearest is the farthest, then the first (the paper draws the first, and says nothing of ties); a
tile's shifted channels stay inside its cell, which leaves it less room to move in; tiles are enlarged to half of
the encoder's input; batch normalisation before the last layer, no dropout. The defaults have 100
permutations, a wider gap (the published share is one pixel at 32 px), no shifts of channels and layers an eighth
as wide; `paper` has the published ones.
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
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import LUMA
from pretext.transforms.grids import TILES, Grid, cut_tiles, draw_places, layout, sheet, tile_layer, tile_size


@final
class Jigsaw(Task):
    """See the module."""

    @dataclass(frozen=True)
    class Config(Grid):
        """The puzzle, and what keeps it from being solved by other means than looking."""

        gap: float = 0.25
        """Mean gap as a share of a cell's side; published are tiles of 64 px in cells of 75, a share of 0.15."""
        permutations: int = 100
        """How many orders there are to choose from."""
        normalise: bool = True
        """Bring each channel of a tile to mean 0 and deviation 1."""
        greyscale: float = 0.3
        """Probability that a picture's colours are dropped."""
        channel_shift: int = 0
        """Largest shift of a channel of a tile, in pixels of the picture; only worth its room in large pictures."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 2 <= self.permutations <= 10000:
                raise ValueError(f"permutations is {self.permutations}; allowed is from 2 to 10000")
            if not 0 <= self.greyscale <= 1:
                raise ValueError(f"greyscale is {self.greyscale}; a probability is from 0 to 1")
            if not 0 <= self.channel_shift <= 100:
                raise ValueError(f"channel_shift is {self.channel_shift}; allowed is from 0 to 100 pixels")

    variants: ClassVar[Mapping[str, Any]] = {
        "paper": Config(
            span=0.87890625, gap=0.14666666666666667, tile=64, head_width=1.0, permutations=1000, channel_shift=2
        )
    }
    """`paper`: 64 px of cells of 75 on pictures of 256, 1000 permutations, layers of 512 and 4096."""
    variant_help: ClassVar[Mapping[str, str]] = {
        "paper": "1000 permutations, 64 px tiles, full-width head",
    }
    training_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"encoder": "alexnet?stem_stride=2", "image_size": 256}
    }

    def __init__(self, encoder: Encoder, config: Config) -> None:
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
        """Return the tiles of each picture in reading order, as they look in the puzzle."""
        images, shift = batch.images, self.config.channel_shift
        count, size, device = len(images), images.shape[-1], images.device
        where = layout(size, self.config, margin=shift)
        places = draw_places(count, size, where, batch.generator, device)[:, :, None]
        grey = torch.rand(count, generator=batch.generator, device=device) < self.config.greyscale
        grey = grey.view(-1, 1, 1, 1)
        if shift:
            moved = torch.randint(-shift, shift + 1, (count, TILES, 3, 2), generator=batch.generator, device=device)
            places = places + torch.where(grey, 0, moved)
        tiles = cut_tiles(images, places, side=where.side, size=self.size)
        if self.config.greyscale:
            luma = (tiles * tiles.new_tensor(LUMA).view(3, 1, 1)).sum(dim=2, keepdim=True)
            tiles = torch.where(grey[..., None], luma, tiles)
        if not self.config.normalise:
            return tiles
        mean, std = (tiles.new_tensor(values).view(3, 1, 1) for values in (self.encoder.mean, self.encoder.std))
        variance, centre = torch.var_mean(tiles, dim=(3, 4), keepdim=True, correction=0)
        return (tiles - centre) * (variance + 1e-6).rsqrt() * std + mean  # the encoder undoes `std` and `mean`

    def puzzles(self, batch: Batch) -> tuple[Float[Tensor, "B 9 3 T T"], Int[Tensor, "B"]]:
        """Return shuffled tiles, and which of the permutations shuffled them."""
        tiles = self.tiles(batch)
        which = torch.randint(len(self.orders), (len(tiles),), generator=batch.generator, device=batch.images.device)
        picture = torch.arange(len(tiles), device=tiles.device)[:, None]
        return tiles[picture, self.orders[which]], which

    def answer(self, shuffled: Float[Tensor, "B 9 3 T T"]) -> Float[Tensor, "B P"]:
        """Return the logits of the permutations."""
        features = self.layer(self.encoder(shuffled.flatten(0, 1))[-1])
        return self.head(features.view(len(shuffled), -1))

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the cross-entropy of the permutations (section 3)."""
        shuffled, which = self.puzzles(batch)
        logits = self.answer(shuffled)
        self._accuracy = (logits.detach().argmax(dim=1) == which).float().mean()
        yield "task", F.cross_entropy(logits, which)

    def metrics(self) -> Mapping[str, float]:
        """Return the share of puzzles solved at the last step; chance is one by the number of permutations."""
        return {"accuracy": float(self._accuracy)}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return the picture, its puzzle, and the puzzle as it is put together."""
        size = batch.images.shape[-1]
        shuffled, _ = self.puzzles(batch)
        back = self.orders[self.answer(shuffled).argmax(dim=1)].argsort(dim=1)
        solved = shuffled[torch.arange(len(shuffled), device=shuffled.device)[:, None], back]
        return {
            "picture": batch.images.float() / 255,
            "puzzle": sheet(shuffled, size),
            "put together": sheet(solved, size),
        }


@lru_cache(maxsize=8)
def permutation_set(count: int, tiles: int = TILES) -> Int[np.ndarray, "count tiles"]:
    """Return permutations of maximal mean Hamming distance, the same at every call: place i shows tile p[i].

    Each one taken is the farthest, in sum, from all that were taken before.

    Raises:
        ValueError: If there are fewer permutations than that.

    Source: Algorithm 1.
    """
    every = np.array(list(itertools.permutations(range(tiles))), dtype=np.uint8).T.copy()  # a row a place: fast
    if count > every.shape[1]:
        raise ValueError(f"there are {every.shape[1]} permutations of {tiles} tiles; {count} are asked for")
    total = np.zeros(every.shape[1], dtype=np.int32)
    nearest = np.full(every.shape[1], tiles, dtype=np.int32)
    chosen = [0]
    while len(chosen) < count:
        apart = np.zeros(every.shape[1], dtype=np.int32)
        for place in every:
            apart += place != place[chosen[-1]]
        total += apart
        nearest = np.minimum(nearest, apart)
        score = total * (tiles + 1) + nearest
        score[chosen] = -1
        chosen.append(int(score.argmax()))
    return every[:, chosen].T.copy()

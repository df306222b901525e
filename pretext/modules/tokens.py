"""A vision transformer read patch by patch, for the tasks that hide some patches from it.

Source: Dosovitskiy et al. 2021, arXiv 2010.11929 (tokens of patches); He et al. 2022, arXiv 2111.06377 (only the
    tokens of visible patches go through the encoder).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from pretext.encoders.base import Encoder
from pretext.encoders.timm import TimmEncoder

HEAD = 32
"""Channels of an attention head in `transformer`."""
FEWEST = 4
"""Patches that are hidden, and that are visible, at least."""
GIVE = "give --encoder timm:vit_tiny_patch16_224, or another plain vision transformer of timm"
FINER = "give another --image-size, or a transformer of other patches, timm:vit_tiny_patch16_224?patch_size=8 for one"


class PatchTokens:
    """The vision transformer inside an encoder, with its steps apart: patches, positions, blocks.

    It owns no weights. Attributes: `patch`, pixels along a patch; `grid`, patches along a picture; `count`, patches
    of a picture; `width`, a token's channels.
    """

    def __init__(self, encoder: Encoder) -> None:
        """Find it.

        Raises:
            ValueError: If this encoder has no tokens of patches, or patches that do not fit the picture.
        """
        if not has_tokens(encoder):
            raise ValueError(f"{encoder.spec} has no tokens of patches; {GIVE}")
        self._encoder = encoder
        embed = self._transformer.patch_embed
        self.patch, self.grid, self.width = embed.patch_size[0], embed.grid_size[0], self._transformer.embed_dim
        self.count = self.grid**2
        if self.patch * self.grid != encoder.input_size:
            raise ValueError(f"{encoder.input_size} px cannot be cut into patches of {self.patch} px; {FINER}")

    @property
    def _transformer(self) -> Any:
        return _inside(self._encoder)

    def embed(self, images: Shaped[Tensor, "B 3 S S"]) -> Float[Tensor, "B N D"]:
        """Return a token a patch, row by row, without its position; `images` as an encoder takes them."""
        tokens: Tensor = self._transformer.patch_embed(self._encoder.normalised(images))
        return tokens.flatten(1, 2) if tokens.ndim == 4 else tokens  # a map, where timm takes pictures of any size

    def encode(self, tokens: Float[Tensor, "B N D"], kept: Int[Tensor, "B K"] | None = None) -> Float[Tensor, "B K D"]:
        """Return tokens of patches after the last block: the encoder's deepest map, where all are kept.

        Args:
            tokens: From `embed`.
            kept: Patches that go through the blocks; the others are as if they were not there. None keeps all.
        """
        vit = self._transformer
        maps = tokens.reshape(-1, self.grid, self.grid, self.width) if vit.dynamic_img_size else tokens
        placed, prefix = vit._pos_embed(maps), vit.num_prefix_tokens  # the class token comes first
        if kept is not None:
            placed = torch.cat([placed[:, :prefix], taken(placed[:, prefix:], kept)], dim=1)
        return vit.blocks(vit.norm_pre(placed))[:, prefix:]


def has_tokens(encoder: Encoder) -> bool:
    """Return whether there is a plain vision transformer inside, which `PatchTokens` can read."""
    if not (isinstance(encoder, TimmEncoder) and hasattr(encoder.model, "model")):
        return False
    from timm.layers.patch_embed import PatchEmbed
    from timm.models.vision_transformer import VisionTransformer

    vit = _inside(encoder)
    # A stem of several convolutions would see what is hidden beside a patch.
    plain = isinstance(vit, VisionTransformer) and isinstance(vit.patch_embed, PatchEmbed)
    return plain and len(set(vit.patch_embed.patch_size)) == 1


def _inside(encoder: Encoder) -> Any:
    """Return what timm wraps for reading its maps."""
    return encoder.model.model  # type: ignore[union-attr, operator]


def patches_to_hide(count: int, ratio: float) -> int:
    """Return how many of `count` patches that share is.

    Raises:
        ValueError: If fewer than four are hidden or visible.
    """
    hidden = round(ratio * count)
    if min(hidden, count - hidden) < FEWEST:
        raise ValueError(
            f"of {count} patches {hidden} are hidden and {count - hidden} visible, and {FEWEST} of each are needed; "
            f"{FINER}"
        )
    return hidden


def taken(tokens: Float[Tensor, "B N D"], at: Int[Tensor, "B K"]) -> Float[Tensor, "B K D"]:
    """Return the tokens at some places, other ones in each picture."""
    return tokens.gather(1, at[..., None].expand(-1, -1, tokens.shape[2]))


def random_order(count: int, length: int, generator: torch.Generator) -> Int[Tensor, "B N"]:
    """Return a random permutation for each of `count` pictures."""
    return torch.rand(count, length, generator=generator, device=generator.device).argsort(dim=1)


def patchify(images: Float[Tensor, "B 3 S S"], patch: int) -> Float[Tensor, "B N P"]:
    """Return each patch's pixels as a vector: row, column, then channel."""
    B, C, S, _ = images.shape
    grid = S // patch
    cut = images.reshape(B, C, grid, patch, grid, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(B, grid**2, patch**2 * C)


def unpatchify(patches: Float[Tensor, "B N P"], patch: int) -> Float[Tensor, "B 3 S S"]:
    """Return the pictures that `patchify` cut."""
    B, N, _ = patches.shape
    grid = round(N**0.5)
    laid = patches.reshape(B, grid, grid, patch, patch, -1)
    return laid.permute(0, 5, 1, 3, 2, 4).reshape(B, -1, grid * patch, grid * patch)


def sincos_positions(width: int, grid: int) -> Float[Tensor, "N D"]:
    """Return fixed positions: a half of the channels tells the column, the other half the row.

    Each half has sines, then cosines, of wavelengths from 2π to 10000·2π.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5, in two dimensions as He et al. 2022 have them.
    """
    at = torch.arange(grid, dtype=torch.float64)
    angles = at[:, None] * 10_000 ** -(torch.arange(width // 4, dtype=torch.float64) * 4 / width)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # grid × width/2
    column, row = waves.expand(grid, -1, -1), waves[:, None].expand(-1, grid, -1)
    return torch.cat([column, row], dim=2).reshape(grid**2, -1).float()


def narrowed(width: int, share: float) -> int:
    """Return about that share of a width, in whole attention heads of `transformer`."""
    return max(1, round(width * share / HEAD)) * HEAD


def transformer(width: int, depth: int) -> nn.Sequential:
    """Return blocks (normalised first) and a last normalisation: a light decoder or predictor of tokens."""
    blocks: list[nn.Module] = [
        nn.TransformerEncoderLayer(
            width, width // HEAD, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        for _ in range(depth)
    ]
    return nn.Sequential(*blocks, nn.LayerNorm(width))

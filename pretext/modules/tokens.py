"""Patch tokens of a vision transformer, for the tasks that hide patches from it.

Source: Dosovitskiy et al. 2021, arXiv 2010.11929 (patch tokens); He et al. 2022, arXiv 2111.06377 (only the
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
"""Smallest number of hidden patches, and of visible ones."""
_GIVE_VIT = "give --encoder timm:vit_tiny_patch16_224, or another plain vision transformer of timm"
FINER = "give another --image-size, or another patch size, for example timm:vit_tiny_patch16_224?patch_size=8"
"""Advice at the end of errors about the number of patches."""


class PatchTokens:
    """Access to the vision transformer inside an encoder, in two steps: embed patches, then run the blocks.

    It owns no weights.

    Attributes:
        patch: Side of a patch in pixels.
        grid: Number of patches along a side of the image.
        count: Number of patches of an image.
        width: Channels of a token.
    """

    def __init__(self, encoder: Encoder) -> None:
        """Find the transformer.

        Raises:
            ValueError: If the encoder has no patch tokens, or its patches do not divide the image.
        """
        if not has_tokens(encoder):
            raise ValueError(f"{encoder.spec} has no patch tokens; {_GIVE_VIT}")
        self._encoder = encoder
        embed = self._transformer.patch_embed
        self.patch, self.grid, self.width = embed.patch_size[0], embed.grid_size[0], self._transformer.embed_dim
        self.count = self.grid**2
        if self.patch * self.grid != encoder.input_size:
            raise ValueError(f"{encoder.input_size} px cannot be divided into patches of {self.patch} px; {FINER}")

    @property
    def _transformer(self) -> Any:
        return _wrapped(self._encoder)

    def embed(self, images: Shaped[Tensor, "B 3 S S"]) -> Float[Tensor, "B N D"]:
        """Return one token per patch, row by row, without position embeddings; `images` as in `Encoder.forward`."""
        tokens: Tensor = self._transformer.patch_embed(self._encoder.normalised(images))
        return tokens.flatten(1, 2) if tokens.ndim == 4 else tokens  # timm returns a map if it accepts any image size

    def encode(self, tokens: Float[Tensor, "B N D"], kept: Int[Tensor, "B K"] | None = None) -> Float[Tensor, "B K D"]:
        """Return the patch tokens after the last block; with all patches, these form the encoder's deepest map.

        Args:
            tokens: Tokens from `embed`.
            kept: Indices of the patches that pass through the blocks; None is all. Other patches have no effect.
        """
        vit = self._transformer
        maps = tokens.reshape(-1, self.grid, self.grid, self.width) if vit.dynamic_img_size else tokens
        x, prefix = vit._pos_embed(maps), vit.num_prefix_tokens  # class and register tokens come first
        if kept is not None:
            x = torch.cat([x[:, :prefix], gather_tokens(x[:, prefix:], kept)], dim=1)
        return vit.blocks(vit.norm_pre(x))[:, prefix:]


def has_tokens(encoder: Encoder) -> bool:
    """Return whether the encoder wraps a plain vision transformer, as `PatchTokens` requires."""
    if not (isinstance(encoder, TimmEncoder) and hasattr(encoder.model, "model")):
        return False
    from timm.layers.patch_embed import PatchEmbed
    from timm.models.vision_transformer import VisionTransformer

    vit = _wrapped(encoder)
    # A stem of several convolutions would see hidden pixels next to a patch.
    plain = isinstance(vit, VisionTransformer) and isinstance(vit.patch_embed, PatchEmbed)
    return plain and len(set(vit.patch_embed.patch_size)) == 1


def _wrapped(encoder: Encoder) -> Any:
    """Return the model inside timm's feature extractor."""
    return encoder.model.model  # type: ignore[union-attr, operator]


def patches_to_hide(count: int, ratio: float) -> int:
    """Return the number of patches to hide.

    Args:
        count: Number of patches of an image.
        ratio: Mask ratio, from 0 to 1.

    Raises:
        ValueError: If fewer than four patches would be hidden or visible.
    """
    hidden = round(ratio * count)
    if min(hidden, count - hidden) < FEWEST:
        raise ValueError(
            f"{hidden} of {count} patches would be hidden and {count - hidden} visible; {FEWEST} or more of each are "
            f"needed; {FINER}"
        )
    return hidden


def gather_tokens(tokens: Float[Tensor, "B N D"], index: Int[Tensor, "B K"]) -> Float[Tensor, "B K D"]:
    """Return the tokens at the given indices of each image."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2]))


def random_order(count: int, length: int, generator: torch.Generator) -> Int[Tensor, "B N"]:
    """Return a random permutation of `length` indices for each of `count` images."""
    return torch.rand(count, length, generator=generator, device=generator.device).argsort(dim=1)


def patchify(images: Float[Tensor, "B 3 S S"], patch: int) -> Float[Tensor, "B N P"]:
    """Return the pixels of each patch as a vector, ordered by row, column and channel."""
    B, C, S, _ = images.shape
    grid = S // patch
    cut = images.reshape(B, C, grid, patch, grid, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(B, grid**2, patch**2 * C)


def unpatchify(patches: Float[Tensor, "B N P"], patch: int) -> Float[Tensor, "B 3 S S"]:
    """Undo `patchify`; return images."""
    B, N, _ = patches.shape
    grid = round(N**0.5)
    pixels = patches.reshape(B, grid, grid, patch, patch, -1)
    return pixels.permute(0, 5, 1, 3, 2, 4).reshape(B, -1, grid * patch, grid * patch)


def sincos_positions(width: int, grid: int) -> Float[Tensor, "N D"]:
    """Return fixed position embeddings: the first half of the channels encodes the column, the second the row.

    Each half consists of sines, then cosines, with wavelengths from 2π to 10000·2π.

    Args:
        width: D, channels; a multiple of 4.
        grid: Patches along a side; N is its square.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5, in two dimensions as He et al. 2022 have them.
    """
    positions = torch.arange(grid, dtype=torch.float64)
    angles = positions[:, None] * 10_000 ** -(torch.arange(width // 4, dtype=torch.float64) * 4 / width)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # grid × width/2
    column, row = waves.expand(grid, -1, -1), waves[:, None].expand(-1, grid, -1)
    return torch.cat([column, row], dim=2).reshape(grid**2, -1).float()


def scaled_width(width: int, factor: float) -> int:
    """Return about `factor` times a width, rounded to whole attention heads of `transformer`."""
    return max(1, round(width * factor / HEAD)) * HEAD


def transformer(width: int, depth: int) -> nn.Sequential:
    """Return pre-norm transformer blocks and a final layer normalisation: a light decoder or predictor of tokens."""
    blocks: list[nn.Module] = [
        nn.TransformerEncoderLayer(
            width, width // HEAD, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        for _ in range(depth)
    ]
    return nn.Sequential(*blocks, nn.LayerNorm(width))

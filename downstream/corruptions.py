"""Common corruptions of pictures, at severities 1 to 5 that go by the pictures' size.

Source: Hendrycks and Dietterich 2019, arXiv 1903.12261, section 4 (the kinds, and five severities of each).
Deviations: seven of the fifteen kinds: one blur of four, neither fog, frost nor snow, neither elastic changes nor
    large pixels. Formulas and constants are our own, since the published ones are for 224 px alone: at side S,
    noise and compression have √(S/224) times their strength at 224 px, and a blur reaches over a share of S,
    beside the half pixel that a pixel has anyway. Brightness is added to all channels rather than to the value of
    HSV. What comes out is rounded to 8 bits, as a file would be.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

SEVERITIES = (1, 2, 3, 4, 5)
FULL = 224
"""Side in pixels for which the strengths are given."""

Corruption = Callable[[Tensor, int, torch.Generator], Tensor]


def corrupted(
    images: UInt8[Tensor, "B 3 S S"], name: str, severity: int, generator: torch.Generator
) -> UInt8[Tensor, "B 3 S S"]:
    """Return pictures corrupted.

    Args:
        images: On any device; left as they are.
        name: One of `CORRUPTIONS`.
        severity: 1 to 5.
        generator: Is on the images' device; only the noises draw from it.
    """
    changed = CORRUPTIONS[name](images.float() / 255, severity, generator)
    return (changed.clamp(0, 1) * 255).round().to(torch.uint8)


def gaussian_noise(
    images: Float[Tensor, "B 3 S S"], severity: int, generator: torch.Generator
) -> Float[Tensor, "B 3 S S"]:
    """Add noise of standard deviation 0.08·severity·√(S/224)."""
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return images + _noise(images, severity) * noise


def shot_noise(images: Float[Tensor, "B 3 S S"], severity: int, generator: torch.Generator) -> Float[Tensor, "B 3 S S"]:
    """Count photons: Poisson's noise, which has the Gaussian one's deviation where a value is a half."""
    photons = 0.5 / _noise(images, severity) ** 2
    return torch.poisson(images * photons, generator=generator) / photons


def impulse_noise(
    images: Float[Tensor, "B 3 S S"], severity: int, generator: torch.Generator
) -> Float[Tensor, "B 3 S S"]:
    """Put 0 or 1, at even odds, for a share of 0.04·severity·√(S/224) of all values, each channel by itself."""
    share = 0.04 * severity * _relative(images)
    draws = torch.rand(images.shape, generator=generator, device=images.device)
    return torch.where(draws < share, (draws < share / 2).to(images), images)


def defocus_blur(
    images: Float[Tensor, "B 3 S S"], severity: int, generator: torch.Generator
) -> Float[Tensor, "B 3 S S"]:
    """Average over a disc of radius 0.5 + 0.01·severity·S pixels; beyond the border is what is on this side of it."""
    kernel = disc(0.5 + 0.01 * severity * images.shape[-1]).to(images)
    reach = len(kernel) // 2
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    return F.conv2d(padded, kernel.expand(3, 1, -1, -1), groups=3)


def brightness(images: Float[Tensor, "B 3 S S"], severity: int, generator: torch.Generator) -> Float[Tensor, "B 3 S S"]:
    """Add 0.1·severity."""
    return images + 0.1 * severity


def contrast(images: Float[Tensor, "B 3 S S"], severity: int, generator: torch.Generator) -> Float[Tensor, "B 3 S S"]:
    """Leave 0.6^severity of the distance to each channel's mean."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return mean + 0.6**severity * (images - mean)


def jpeg(images: Float[Tensor, "B 3 S S"], severity: int, generator: torch.Generator) -> Float[Tensor, "B 3 S S"]:
    """Compress with steps of 140·severity·√(S/224) percent of the standard's table; on the CPU, picture by picture."""
    quality = jpeg_quality(140 * severity * _relative(images))
    pictures = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    decoded = torch.from_numpy(np.stack([_through_jpeg(picture, quality) for picture in pictures]))
    return decoded.permute(0, 3, 1, 2).to(images) / 255


def jpeg_quality(percent: float) -> int:
    """Return the quality, 1 to 100, whose quantisation steps are nearest to `percent` of the standard's table.

    The library's own rule: 5000/quality percent up to a quality of 50, 200 - 2·quality above.
    """
    return min(100, max(1, round(5000 / percent if percent >= 100 else 100 - percent / 2)))


def disc(radius: float) -> Float[Tensor, "K K"]:
    """Return the weights, summing to 1, of averaging over a disc: how much of each pixel it covers.

    Args:
        radius: In pixels; below a half, the disc is within the middle pixel.
    """
    reach, parts = math.ceil(radius - 0.5) if radius > 0.5 else 0, 16
    fine = torch.arange((2 * reach + 1) * parts).add(0.5).div(parts) - (reach + 0.5)
    inside = (fine[:, None] ** 2 + fine**2 <= radius**2).float()
    covered = F.avg_pool2d(inside[None], parts)[0]
    return covered / covered.sum()


CORRUPTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (
        gaussian_noise,
        shot_noise,
        impulse_noise,
        defocus_blur,
        brightness,
        contrast,
        jpeg,
    )
}


def _through_jpeg(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _relative(images: Tensor) -> float:
    return math.sqrt(images.shape[-1] / FULL)


def _noise(images: Tensor, severity: int) -> float:
    return 0.08 * severity * _relative(images)

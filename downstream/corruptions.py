"""Common image corruptions at severities 1 to 5, scaled to the image size.

Source: Hendrycks and Dietterich 2019, arXiv 1903.12261, section 4 (the kinds, and five severities of each).
Deviations: seven of the fifteen kinds: one blur of four; no fog, frost, snow, elastic transform or pixelation.
    Formulas and constants are our own, since the published ones are for 224 px only. At side S, noise and compression
    have √(S/224) times their strength at 224 px, and the blur radius is half a pixel plus a share of S. Brightness is
    added to all channels instead of the value of HSV. The result is rounded to 8 bits, as in an image file.
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
REFERENCE_SIDE = 224
"""Side in pixels at which the strengths are defined."""

Corruption = Callable[[Tensor, int, torch.Generator], Tensor]


def corrupted(
    images: UInt8[Tensor, "B 3 S S"], name: str, severity: int, generator: torch.Generator
) -> UInt8[Tensor, "B 3 S S"]:
    """Return corrupted copies of images.

    Args:
        images: Images on any device.
        name: One of `CORRUPTIONS`.
        severity: 1 to 5.
        generator: A generator on the images' device; only the noises use it.
    """
    changed = CORRUPTIONS[name](images.float() / 255, severity, generator)
    return (changed.clamp(0, 1) * 255).round().to(torch.uint8)


def gaussian_noise(
    images: Float[Tensor, "B 3 S S"], severity: int, generator: torch.Generator
) -> Float[Tensor, "B 3 S S"]:
    """Add Gaussian noise of standard deviation 0.08·severity·√(S/224)."""
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return images + _noise_scale(images, severity) * noise


def shot_noise(images: Float[Tensor, "B 3 S S"], severity: int, generator: torch.Generator) -> Float[Tensor, "B 3 S S"]:
    """Add Poisson noise; at value 0.5 its standard deviation is that of `gaussian_noise`."""
    photons = 0.5 / _noise_scale(images, severity) ** 2
    return torch.poisson(images * photons, generator=generator) / photons


def impulse_noise(
    images: Float[Tensor, "B 3 S S"], severity: int, generator: torch.Generator
) -> Float[Tensor, "B 3 S S"]:
    """Replace a share of 0.04·severity·√(S/224) of all values by 0 or 1 with equal odds, per channel."""
    share = 0.04 * severity * _relative_strength(images)
    draws = torch.rand(images.shape, generator=generator, device=images.device)
    return torch.where(draws < share, (draws < share / 2).to(images), images)


def defocus_blur(
    images: Float[Tensor, "B 3 S S"], severity: int, generator: torch.Generator
) -> Float[Tensor, "B 3 S S"]:
    """Average over a disc of radius 0.5 + 0.01·severity·S pixels; the border is replicated."""
    kernel = disc(0.5 + 0.01 * severity * images.shape[-1]).to(images)
    reach = len(kernel) // 2
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    return F.conv2d(padded, kernel.expand(3, 1, -1, -1), groups=3)


def brightness(images: Float[Tensor, "B 3 S S"], severity: int, generator: torch.Generator) -> Float[Tensor, "B 3 S S"]:
    """Add 0.1·severity to all channels."""
    return images + 0.1 * severity


def contrast(images: Float[Tensor, "B 3 S S"], severity: int, generator: torch.Generator) -> Float[Tensor, "B 3 S S"]:
    """Scale the distance to each channel's mean by 0.6^severity."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return mean + 0.6**severity * (images - mean)


def jpeg(images: Float[Tensor, "B 3 S S"], severity: int, generator: torch.Generator) -> Float[Tensor, "B 3 S S"]:
    """Compress with quantisation steps of 140·severity·√(S/224) percent of the standard table, on the CPU."""
    quality = jpeg_quality(140 * severity * _relative_strength(images))
    arrays = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    decoded = torch.from_numpy(np.stack([_through_jpeg(image, quality) for image in arrays]))
    return decoded.permute(0, 3, 1, 2).to(images) / 255


def jpeg_quality(percent: float) -> int:
    """Return the quality, 1 to 100, whose quantisation steps are nearest to `percent` of the standard table.

    This inverts libjpeg's rule: 5000/quality percent up to a quality of 50, 200 - 2·quality above.
    """
    return min(100, max(1, round(5000 / percent if percent >= 100 else 100 - percent / 2)))


def disc(radius: float) -> Float[Tensor, "K K"]:
    """Return a normalised disc kernel: the share of each pixel that the disc covers, scaled to sum 1.

    Args:
        radius: Radius in pixels; at 0.5 or below the kernel has one pixel.
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


def _through_jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _relative_strength(images: Tensor) -> float:
    return math.sqrt(images.shape[-1] / REFERENCE_SIDE)


def _noise_scale(images: Tensor, severity: int) -> float:
    return 0.08 * severity * _relative_strength(images)

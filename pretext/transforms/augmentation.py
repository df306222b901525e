"""Random views of a batch of images, one per image, computed with a few batched matrix products.

Cropping, resizing, flipping and blurring are two small matrices per image; see `pretext.transforms.crops`.
Brightness, contrast, saturation, hue and greyscale together are one 3×3 matrix and an offset per image. All random
numbers come from the given generator.

Source: Chen et al. 2020, arXiv 2002.05709, appendix A (crop, flip, colour, blur) and B.9 (small images: half the
    colour strength, no blur); Grill et al. 2020, arXiv 2006.07733, appendix B (solarize).
Deviations: crop borders may lie between pixels of images that have the views' own side. The aspect ratio is drawn
    from those that fit the drawn area; the original draws again until one fits. If even the most elongated crop of the
    drawn area does not fit into a narrow picture, the area shrinks. Values are clipped once, at the end; without
    clipping in between, the order of the colour changes makes no difference. Hue is rotated in YIQ, not in HSV. The
    blur renormalises its weights at the border; the original pads with black.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from pretext.datasets.pictures import Pictures, equally_large
from pretext.system.ranges import check_range
from pretext.transforms.crops import blur_matrix, cut

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey value of a pixel (ITU-R BT.601)."""
TO_YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class Augmentation:
    """Settings of a random view; the defaults are SimCLR's for ImageNet. Probabilities are per image."""

    crop_min: float = 0.08
    """Smallest crop, as a fraction of the image area; use about 0.2 for small images."""
    crop_max: float = 1.0
    """Largest crop, as a fraction of the image area."""
    aspect: float = 4 / 3
    """Largest aspect ratio of a crop: width/height is log-uniform in [1/aspect, aspect]; 1 gives square crops."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: float = 0.8
    """Probability of colour jitter."""
    colour_strength: float = 1.0
    """Colour jitter strength s: brightness, contrast and saturation vary by ±0.8·s, hue by ±0.2·s turns. SimCLR uses
    0.5 on CIFAR-10."""
    greyscale: float = 0.2
    """Probability of converting to greyscale."""
    blur: float = 0.5
    """Probability of Gaussian blur, with a standard deviation of 0.1 to 2 px."""
    blur_from: int = 64
    """Smallest view side in pixels that is blurred; smaller views are never blurred."""
    solarize: float = 0.0
    """Probability of solarization (BYOL): inverting all values of 0.5 or more."""

    def __post_init__(self) -> None:
        check_range(self, "flip", "jitter", "greyscale", "blur", "solarize", least=0, most=1)
        check_range(self, "crop_max", above=0, most=1)
        if not 0 < self.crop_min <= self.crop_max:
            raise ValueError(f"crop_min is {self.crop_min}; allowed is above 0 and up to crop_max={self.crop_max}")
        check_range(self, "aspect", least=1, most=10)
        check_range(self, "colour_strength", least=0, most=2.5)
        check_range(self, "blur_from", least=1, most=1_000_000, unit="pixels")


@dataclass(frozen=True)
class CropAndFlip:
    """Settings of a task that sees whole images, or random crops of them."""

    crop_min: float = 1.0
    """Smallest share of a picture's area that a random crop covers; 1 takes whole images."""
    flip: float = 0.0
    """Probability of a horizontal flip."""

    def __post_init__(self) -> None:
        check_range(self, "crop_min", least=0.01, most=1)
        check_range(self, "flip", least=0, most=1)


def cropping(smallest: float, largest: float = 1.0, *, aspect: float = 4 / 3, flip: float = 0.5) -> Augmentation:
    """Return settings that crop and flip but leave colours unchanged.

    Args:
        smallest: See `Augmentation.crop_min`.
        largest: See `Augmentation.crop_max`.
        aspect: See `Augmentation.aspect`.
        flip: See `Augmentation.flip`.
    """
    return Augmentation(smallest, largest, aspect=aspect, flip=flip, jitter=0.0, greyscale=0.0, blur=0.0)


def augment(
    images: Pictures | Shaped[Tensor, "B 3 H W"],
    settings: Augmentation,
    generator: torch.Generator,
    *,
    size: int | None = None,
) -> Float[Tensor, "B 3 S S"]:
    """Return one random view of each image, in [0, 1].

    Each setting has its own random numbers: with one generator state, two settings that differ only in `blur` crop
    alike.

    Args:
        images: Pictures of any sizes, or a tensor, uint8 in [0, 255] or float in [0, 1]; not modified.
        settings: The random changes.
        generator: Random generator on the images' device.
        size: Side of the views in pixels; None is `Pictures.side`, or the width of a tensor.
    """
    pictures = images if isinstance(images, Pictures) else equally_large(images)
    height, width, device = pictures.height, pictures.width, pictures.device
    side = size or pictures.side
    draws = torch.rand(14, len(pictures), generator=generator, device=device)
    flipped, jittered, grey, blurred, solarized = draws[:5] < draws.new_tensor(
        [settings.flip, settings.jitter, settings.greyscale, settings.blur, settings.solarize]
    ).view(5, 1)
    left, top, crop_width, crop_height = crop_boxes(draws[5:9], settings, width / height)
    box = top * height, crop_height * height, left * width, crop_width * width
    sigma = torch.where(blurred, 0.1 + 1.9 * draws[9], 0.0)
    blurring = None
    if settings.blur > 0 and side >= settings.blur_from:
        blurring = blur_matrix(sigma, side, radius=max(1, side // 20))  # the kernel spans a tenth of the side
    views = cut(pictures, box, side, flipped, blurring)
    if (settings.jitter > 0 and settings.colour_strength > 0) or settings.greyscale > 0:
        amount = torch.where(jittered, settings.colour_strength, 0.0) * (2 * draws[10:14] - 1)
        lightness = (1 + 0.8 * amount[:3]).clamp(min=0)
        views = recolour(
            views,
            brightness=lightness[0],
            contrast=lightness[1],
            saturation=lightness[2],
            hue=0.2 * amount[3],
            grey=grey,
        )
    views = views.clamp_(0, 1)
    if settings.solarize > 0:
        views = torch.where(solarized.view(-1, 1, 1, 1) & (views >= 0.5), 1 - views, views)
    return views


def crop_boxes(
    draws: Float[Tensor, "4 B"], settings: Augmentation, elongation: Float[Tensor, "B"] | float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return left, top, width and height of each crop, as fractions of the image sides.

    Args:
        draws: Uniform numbers in [0, 1), for area, aspect ratio, horizontal and vertical position.
        settings: The ranges of area and aspect ratio.
        elongation: Width of each image divided by its height.
    """
    area = settings.crop_min + (settings.crop_max - settings.crop_min) * draws[0]
    most = math.log(settings.aspect)
    shape = torch.as_tensor(elongation, dtype=draws.dtype, device=draws.device).log()
    area = torch.minimum(area, (most - shape.abs()).clamp(max=0).exp())  # a larger box of no allowed shape would fit
    # the logarithm of the aspect ratio in a square image; a box of this area exceeds it outside of ±log(area)
    low, high = torch.maximum(area.log(), -most - shape), torch.minimum(-area.log(), most - shape)
    aspect = ((low + high) / 2 + (2 * draws[1] - 1) * (high - low) / 2).exp()
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    return draws[2] * (1 - width), draws[3] * (1 - height), width, height


def recolour(
    images: Float[Tensor, "B 3 H W"],
    *,
    brightness: Float[Tensor, "B"],
    contrast: Float[Tensor, "B"],
    saturation: Float[Tensor, "B"],
    hue: Float[Tensor, "B"],
    grey: Bool[Tensor, "B"],
) -> Float[Tensor, "B 3 H W"]:
    """Change the colours of each image, without clipping.

    Args:
        images: Images in [0, 1].
        brightness: Factor on all values.
        contrast: Factor on the difference from the image's mean grey.
        saturation: Factor on the difference from the pixel's own grey.
        hue: Rotation in the IQ plane in turns, -0.5 to 0.5.
        grey: Convert to greyscale where true.
    """
    B, C, H, W = images.shape
    luma = images.new_tensor(LUMA)
    to_yiq = images.new_tensor(TO_YIQ)
    cos, sin = torch.cos(2 * math.pi * hue), torch.sin(2 * math.pi * hue)
    chroma = torch.where(grey, 0.0, saturation)
    with torch.autocast(images.device.type, enabled=False):
        mean_grey = images.flatten(2).mean(dim=2) @ luma
        rotation = torch.zeros(B, 3, 3, device=images.device)
        rotation[:, 0, 0] = 1
        rotation[:, 1, 1] = rotation[:, 2, 2] = chroma * cos
        rotation[:, 1, 2], rotation[:, 2, 1] = -chroma * sin, chroma * sin
        matrix = (brightness * contrast).view(B, 1, 1) * (torch.linalg.inv(to_yiq) @ rotation @ to_yiq)
        offset = ((1 - contrast) * brightness * mean_grey).view(B, 1, 1)
        return torch.baddbmm(offset, matrix, images.reshape(B, C, H * W)).view(B, C, H, W)

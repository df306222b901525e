"""Random views of a batch of images, one per image, computed with a few batched matrix products.

Cropping, resizing, flipping and blurring are linear and separable. A view is therefore `rows · image · columnsᵀ`,
with two small matrices per image. Brightness, contrast, saturation, hue and greyscale together are one 3×3 matrix
and an offset per image. No code loops over images, and all random numbers come from the given generator.

Source: Chen et al. 2020, arXiv 2002.05709, appendix A (crop, flip, colour, blur) and B.9 (small images: half the
    colour strength, no blur); Grill et al. 2020, arXiv 2006.07733, appendix B (solarize).
Deviations: crop borders may lie between pixels. The aspect ratio is drawn from those that fit the drawn area; the
    original draws again until one fits. Values are clipped once, at the end; without clipping in between, the order
    of the colour changes makes no difference. Hue is rotated in YIQ, not in HSV. The blur renormalises its weights
    at the border; the original pads with black.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey value of a pixel (ITU-R BT.601)."""
TO_YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
CHUNK_VALUES = 1_000_000
"""Values that a CPU resamples at once. Larger chunks exceed its cache and take 1.5 times as long at 96 px."""


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
        for name in ("flip", "jitter", "greyscale", "blur", "solarize"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed is a probability from 0 to 1")
        if not 0 < self.crop_max <= 1:
            raise ValueError(f"crop_max is {self.crop_max}; allowed is above 0 and up to 1")
        if not 0 < self.crop_min <= self.crop_max:
            raise ValueError(f"crop_min is {self.crop_min}; allowed is above 0 and up to crop_max={self.crop_max}")
        if not 1 <= self.aspect <= 10:
            raise ValueError(f"aspect is {self.aspect}; allowed is from 1 to 10")
        if not 0 <= self.colour_strength <= 2.5:
            raise ValueError(f"colour_strength is {self.colour_strength}; allowed is from 0 to 2.5")
        if not 1 <= self.blur_from <= 1_000_000:
            raise ValueError(f"blur_from is {self.blur_from}; allowed is from 1 to 1000000 pixels")


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
    images: Shaped[Tensor, "B 3 H W"],
    settings: Augmentation,
    generator: torch.Generator,
    *,
    size: int | None = None,
) -> Float[Tensor, "B 3 S S"]:
    """Return one random view of each image, in [0, 1].

    Each setting has its own random numbers: with one generator state, two settings that differ only in `blur` crop
    alike.

    Args:
        images: uint8 in [0, 255] or float in [0, 1]; not modified.
        settings: The random changes.
        generator: Random generator on the images' device.
        size: Side of the views in pixels; None is the images' width.
    """
    height, width = images.shape[2:]
    side = size or width
    draws = torch.rand(14, len(images), generator=generator, device=images.device)
    flipped, jittered, grey, blurred, solarized = draws[:5] < draws.new_tensor(
        [settings.flip, settings.jitter, settings.greyscale, settings.blur, settings.solarize]
    ).view(5, 1)
    left, top, crop_width, crop_height = crop_boxes(draws[5:9], settings)
    rows = crop_matrix(top * height, crop_height * height, height, side)
    columns = crop_matrix(left * width, crop_width * width, width, side, flipped)
    if settings.blur > 0 and side >= settings.blur_from:
        sigma = torch.where(blurred, 0.1 + 1.9 * draws[9], 0.0)
        blurring = blur_matrix(sigma, side, radius=max(1, side // 20))  # the kernel spans a tenth of the side
        with torch.autocast(images.device.type, enabled=False):
            rows, columns = torch.bmm(blurring, rows), torch.bmm(blurring, columns)
    views = resample(images, rows, columns)
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


def crop_boxes(draws: Float[Tensor, "4 B"], settings: Augmentation) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return left, top, width and height of each crop, as fractions of the image sides.

    Args:
        draws: Uniform numbers in [0, 1), for area, aspect ratio, horizontal and vertical position.
        settings: The ranges of area and aspect ratio.
    """
    area = settings.crop_min + (settings.crop_max - settings.crop_min) * draws[0]
    widest = (-area.log()).clamp(max=math.log(settings.aspect))  # a wider box of this area exceeds the image
    aspect = ((2 * draws[1] - 1) * widest).exp()
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    return draws[2] * (1 - width), draws[3] * (1 - height), width, height


def crop_matrix(
    start: Float[Tensor, "B"],
    length: Float[Tensor, "B"],
    inputs: int,
    outputs: int,
    flipped: Bool[Tensor, "B"] | None = None,
    *,
    antialias: bool = True,
) -> Float[Tensor, "B S N"]:
    """Return the matrices that crop an interval of `inputs` pixels and resize it to `outputs` pixels.

    Args:
        start: Start of the interval, in pixels from the border.
        length: Length of the interval in pixels, raised to 1 if smaller.
        inputs: N, pixels of the image along this axis.
        outputs: S, pixels of the view along this axis.
        flipped: Mirror the view where true.
        antialias: When shrinking, average all image pixels under a view pixel, as torchvision's `resize` does.
    """
    start, length = start.view(-1, 1, 1), length.clamp(min=1).view(-1, 1, 1)
    start = torch.minimum(start, inputs - length)
    position = torch.arange(outputs, device=start.device).view(1, -1, 1) + 0.5
    if flipped is not None:
        position = torch.where(flipped.view(-1, 1, 1), outputs - position, position)
    pixels = torch.arange(inputs, device=start.device) + 0.5
    support = (length / outputs).clamp(min=1) if antialias else 1.0
    weights = (1 - (pixels - (start + position * length / outputs)).abs() / support).clamp(min=0)
    # Exclude pixels outside of the crop. Without the margin, rounding would drop pixels just inside.
    inside = (pixels > start - 1e-3) & (pixels < start + length + 1e-3)
    weights = weights * inside
    return weights / weights.sum(dim=2, keepdim=True)


def blur_matrix(sigma: Float[Tensor, "B"], size: int, *, radius: int) -> Float[Tensor, "B S S"]:
    """Return the matrices of a Gaussian blur along one axis; the identity where sigma is 0.

    Args:
        sigma: Standard deviation in pixels.
        size: S, pixels along the axis.
        radius: Largest distance in pixels with a weight above 0.
    """
    index = torch.arange(size, device=sigma.device)
    distance = torch.arange(radius + 2, device=sigma.device) / sigma.clamp(min=1e-3).view(-1, 1)
    kernel = (-0.5 * distance**2).exp()  # by distance; the last entry serves all distances above the radius
    kernel[:, -1] = 0
    kernel[kernel < 1e-7] = 0  # denormal numbers are slow
    weights = kernel[:, (index.view(-1, 1) - index).abs().clamp(max=kernel.shape[1] - 1)]
    return weights / weights.sum(dim=2, keepdim=True)


def resample(
    images: Shaped[Tensor, "B 3 H W"], rows: Float[Tensor, "B S H"], columns: Float[Tensor, "B S W"]
) -> Float[Tensor, "B 3 S S"]:
    """Return `rows · image · columnsᵀ` of each channel, as float; uint8 images are scaled to [0, 1]."""
    if images.dtype == torch.uint8:
        rows = rows / 255
    B, C, H, W = images.shape
    chunk = B if images.is_cuda else max(1, CHUNK_VALUES // (C * H * W))
    parts = zip(*(torch.split(x, chunk) for x in (images, rows, columns)), strict=True)
    views = []
    with torch.autocast(images.device.type, enabled=False):  # half precision would round pixel values
        for image, row, column in parts:
            resized = torch.bmm(image.float().reshape(-1, C * H, W), column.transpose(1, 2))  # B×CH×S
            views.append(torch.matmul(row.unsqueeze(1), resized.view(-1, C, H, column.shape[1])))
    return torch.cat(views)


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

"""Random views: each picture of a batch gets its own, all of them in a handful of batched products.

Cropping, resizing, flipping and blurring are linear and separable, so that a view is `rows · picture ·
columnsᵀ` with two small matrices a picture. Brightness, contrast, saturation, hue and greyscale together are
one 3×3 matrix and an offset a picture. Nothing loops over pictures, and all that is random comes from the
generator it is given.

Source: Chen et al. 2020, arXiv 2002.05709, appendix A (crop, flip, colour, blur) and B.9 (small pictures:
    half the colour strength, no blur); Grill et al. 2020, arXiv 2006.07733, appendix B (solarize).
Deviations: crops start and end between pixels; the aspect is drawn from what fits the drawn area, where the
    original draws again until one fits; values are clipped once, at the end, and up to that the order of
    the colour changes makes no difference; hue turns in YIQ, not in HSV; the blur's weights are those of the
    pixels there are, where the original looks at black ones beyond the border.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a pixel's grey (ITU-R BT.601)."""
TO_YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
CACHED = 1_000_000
"""Values that a CPU resamples at a time: more than fits its cache costs half as much again at 96 px."""


@dataclass(frozen=True)
class Augmentation:
    """What a view may differ in; the defaults are SimCLR's for ImageNet. Probabilities are per picture."""

    crop_min: float = 0.08
    """Smallest share of the picture's area that a crop shows; small pictures want more, 0.2 say."""
    crop_max: float = 1.0
    """Largest share."""
    aspect: float = 4 / 3
    """A crop's width over its height lies between 1/aspect and aspect, log-uniformly."""
    flip: float = 0.5
    """Probability of mirroring left and right."""
    jitter: float = 0.8
    """Probability of changing the colours."""
    colour_strength: float = 1.0
    """s: brightness, contrast, saturation change by up to ±0.8·s, hue by ±0.2·s turns; CIFAR has 0.5."""
    greyscale: float = 0.2
    """Probability of dropping the colours."""
    blur: float = 0.5
    """Probability of a Gaussian blur, of standard deviation 0.1 to 2 px."""
    blur_from: int = 64
    """Side in pixels below which views are never blurred."""
    solarize: float = 0.0
    """Probability of inverting all values from a half on (BYOL)."""

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "greyscale", "blur", "solarize"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a probability is from 0 to 1")
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
    """Return views that are cropped and mirrored, their colours as they are; arguments as the fields."""
    return Augmentation(smallest, largest, aspect=aspect, flip=flip, jitter=0.0, greyscale=0.0, blur=0.0)


def augment(
    images: Shaped[Tensor, "B 3 H W"],
    settings: Augmentation,
    generator: torch.Generator,
    *,
    size: int | None = None,
) -> Float[Tensor, "B 3 S S"]:
    """Return one random view of each picture, in [0, 1].

    A setting's draws do not depend on the others: two settings that differ in `blur` crop alike.

    Args:
        images: uint8 in [0, 255], or float in [0, 1]; left as they are.
        settings: What may change.
        generator: Is on the images' device.
        size: Side of the views; that of the pictures where it is None.
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
        blurring = blur_matrix(sigma, side, radius=max(1, side // 20))  # a kernel of a tenth of the side
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
    """Return left, top, width and height of each crop as shares of the picture's sides.

    Args:
        draws: Uniform in [0, 1): area, aspect, horizontal and vertical place.
        settings: The range of areas and aspects.
    """
    area = settings.crop_min + (settings.crop_max - settings.crop_min) * draws[0]
    reach = (-area.log()).clamp(max=math.log(settings.aspect))  # a flatter box of this area would not fit
    aspect = ((2 * draws[1] - 1) * reach).exp()
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
    """Return the matrices that cut an interval out of `inputs` pixels and stretch it over `outputs`.

    Args:
        start: Where the interval starts, in pixels from the border.
        length: Its length in pixels; at least one is taken.
        inputs: N, pixels of the picture along this axis.
        outputs: S, pixels of the view.
        flipped: Where true, the view runs backwards.
        antialias: Average over all pixels that fall on one of the view when it shrinks, as `resize` does.
    """
    start, length = start.view(-1, 1, 1), length.clamp(min=1).view(-1, 1, 1)
    start = torch.minimum(start, inputs - length)
    place = torch.arange(outputs, device=start.device).view(1, -1, 1) + 0.5
    if flipped is not None:
        place = torch.where(flipped.view(-1, 1, 1), outputs - place, place)
    pixels = torch.arange(inputs, device=start.device) + 0.5
    reach = (length / outputs).clamp(min=1) if antialias else 1.0
    weights = (1 - (pixels - (start + place * length / outputs)).abs() / reach).clamp(min=0)
    # Nothing from outside of the crop; without a margin, rounding would drop a pixel that is just inside.
    inside = (pixels > start - 1e-3) & (pixels < start + length + 1e-3)
    weights = weights * inside
    return weights / weights.sum(dim=2, keepdim=True)


def blur_matrix(sigma: Float[Tensor, "B"], size: int, *, radius: int) -> Float[Tensor, "B S S"]:
    """Return the matrices that blur `size` pixels by a Gaussian; the identity where sigma is 0.

    Args:
        sigma: Standard deviation in pixels.
        size: S.
        radius: Pixels farther away than this have no weight.
    """
    at = torch.arange(size, device=sigma.device)
    apart = torch.arange(radius + 2, device=sigma.device) / sigma.clamp(min=1e-3).view(-1, 1)
    kernel = (-0.5 * apart**2).exp()  # by distance; the last one stands for all that is too far
    kernel[:, -1] = 0
    kernel[kernel < 1e-7] = 0  # denormal numbers are slow
    weights = kernel[:, (at.view(-1, 1) - at).abs().clamp(max=kernel.shape[1] - 1)]
    return weights / weights.sum(dim=2, keepdim=True)


def resample(
    images: Shaped[Tensor, "B 3 H W"], rows: Float[Tensor, "B S H"], columns: Float[Tensor, "B S W"]
) -> Float[Tensor, "B 3 S S"]:
    """Return `rows · picture · columnsᵀ` of each channel, as float; uint8 is brought to [0, 1]."""
    if images.dtype == torch.uint8:
        rows = rows / 255
    B, C, H, W = images.shape
    at_once = B if images.is_cuda else max(1, CACHED // (C * H * W))
    parts = zip(*(torch.split(x, at_once) for x in (images, rows, columns)), strict=True)
    views = []
    with torch.autocast(images.device.type, enabled=False):  # half precision costs values their last bits
        for some, up, across in parts:
            narrowed = torch.bmm(some.float().reshape(-1, C * H, W), across.transpose(1, 2))
            views.append(torch.matmul(up.unsqueeze(1), narrowed.view(-1, C, H, across.shape[1])))
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
    """Change each picture's colours, and do not clip.

    Args:
        images: In [0, 1].
        brightness: Factor of all values.
        contrast: Factor of the distance to the picture's mean grey.
        saturation: Factor of the distance to the pixel's own grey.
        hue: Turns of the colour circle in YIQ, -0.5 to 0.5.
        grey: Where true, all three channels become the grey.
    """
    B, C, H, W = images.shape
    luma = images.new_tensor(LUMA)
    to_yiq = images.new_tensor(TO_YIQ)
    cos, sin = torch.cos(2 * math.pi * hue), torch.sin(2 * math.pi * hue)
    chroma = torch.where(grey, 0.0, saturation)
    with torch.autocast(images.device.type, enabled=False):
        mean_grey = images.flatten(2).mean(dim=2) @ luma
        turn = torch.zeros(B, 3, 3, device=images.device)
        turn[:, 0, 0] = 1
        turn[:, 1, 1] = turn[:, 2, 2] = chroma * cos
        turn[:, 1, 2], turn[:, 2, 1] = -chroma * sin, chroma * sin
        matrix = (brightness * contrast).view(B, 1, 1) * (torch.linalg.inv(to_yiq) @ turn @ to_yiq)
        offset = ((1 - contrast) * brightness * mean_grey).view(B, 1, 1)
        return torch.baddbmm(offset, matrix, images.reshape(B, C, H * W)).view(B, C, H, W)

"""Inpainting error of a decoder: L1, L2, PSNR and SSIM inside the hole, its sharpness, and the seam around it.

The first four compare the filled pixels with the hidden ones, in [0, 1], for each image; a score is the mean over the
images. They favour a blurred mean of all plausible fills over one sharp guess. An adversarial loss therefore
scores worse, although its fills look better. Sharpness and seam show that difference: the steps between neighbouring
pixels inside the hole, and across its border, relative to those of the hidden pixels. The truth has 1 in both.

Source: Pathak et al. 2016, table 1: mean L1, mean L2 and PSNR in the central square of half the side.
SSIM: Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity".
Deviation: the paper does not say how it averages PSNR; here it is the mean of the PSNR of each image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.packed import at_size
from pretext.encoders.base import evaluating
from pretext.inpainting.baselines import BASELINES
from pretext.judging import Score
from pretext.system.errors import UserError
from pretext.tasks.base import Inpainter
from pretext.transforms.masks import MEAN_COLOUR, MaskKind, draw_holes

Fill = Callable[[Tensor, Tensor], Tensor]
"""A function of uint8 images B×3×S×S and holes B×1×S×S that returns images in [0, 1]."""

BATCH_SIZE = 64
MIN_SIDE = 11
"""Width in pixels of the window of SSIM; smaller images are refused."""
MIN_MSE = 1 / (12 * 255**2)
"""Variance of rounding to 8 bits. The MSE is clamped to it, so that the PSNR of a perfect fill is finite: 58.9 dB."""
UNITS = {"L1": "%", "L2": "%", "PSNR": "dB", "SSIM": "", "sharpness": "", "seam": ""}
HIGHER_IS_BETTER = ("PSNR", "SSIM", "sharpness")
"""Sharpness is better up to 1; no fill of a decoder is above."""
LEAST_STEP = 1e-6
"""Mean step of the truth below which it counts as this, so that the ratio is finite."""
HEADLINE = "PSNR"


class HoledPictures(NamedTuple):
    """Images and their holes; every method that is compared fills the same ones."""

    images: UInt8[Tensor, "N 3 S S"]
    holes: Bool[Tensor, "N 1 S S"]

    def shown(self) -> UInt8[Tensor, "N 3 S S"]:
        """Return the images with their holes painted in `MEAN_COLOUR`, as networks see them."""
        colour = torch.tensor(MEAN_COLOUR).mul(255).round().to(torch.uint8).view(1, 3, 1, 1)
        return torch.where(self.holes, colour, self.images)


def inpainting_scores(
    task: Inpainter,
    data: ImageDataset,
    *,
    image_size: int,
    test_images: int = 500,
    seed: int = 0,
    hole: MaskKind = "central",
) -> list[Score]:
    """Measure how well a task fills holes in images of the test split.

    Args:
        task: Task to measure. It runs in evaluation mode, is not changed, and never sees the hidden pixels.
        data: Any split of a data set; its test split is used.
        image_size: Side in pixels of the images that the task sees.
        test_images: Maximum number of images, drawn by the seed.
        seed: Seed of the choice of images and holes.
        hole: Shape of the holes; the central square has half the side.

    Returns:
        L1 (mean absolute error) and L2 (mean squared error) in % of the pixel range, PSNR in dB, SSIM, sharpness and
        seam. Each is the mean over the images, with the values of the single images. PSNR is the headline. Chance is
        the better of the baselines without training.

    Raises:
        UserError: If the images are too small, or none can be decoded.
    """
    pictures = drawn_pictures(data, image_size=image_size, test_images=test_images, seed=seed, hole=hole)
    plain = [hole_errors(filled, pictures) for filled in baseline_fills(pictures).values()]
    return [
        dataclasses.replace(
            score,
            chance=(max if score.higher_is_better else min)(float(errors[score.metric].mean()) for errors in plain),
        )
        for score in scores_of(filled_by(task, pictures), pictures)
    ]


def drawn_pictures(
    data: ImageDataset, *, image_size: int, test_images: int, seed: int, hole: MaskKind, split: str = "test"
) -> HoledPictures:
    """Draw images and their holes.

    Args:
        data: See `inpainting_scores`.
        image_size: Side in pixels.
        test_images: Maximum number of images.
        seed: Seed of the choice of images and holes.
        hole: Shape of the holes.
        split: Split to draw from: test for scores, another one to choose a method or to take fills from.

    Raises:
        UserError: If the images are too small, or none can be decoded.
    """
    if image_size < MIN_SIDE:
        raise UserError(f"image size is {image_size}; SSIM needs images of at least {MIN_SIDE} pixels a side")
    if test_images < 1:
        raise UserError(f"test_images is {test_images}; allowed is 1 or more")
    sized = at_size(data.split(split), image_size, bad_images="skip", fit="crop")
    drawn: list[Tensor] = []
    for index in np.random.default_rng(seed).permutation(len(sized)):
        try:
            drawn.append(sized[int(index)][0])
        except BadImage:  # only in data too large to be packed; the next image takes its place
            continue
        if len(drawn) == test_images:
            break
    if not drawn:
        raise UserError(f"{data.spec}: cannot decode any image of its {split} split; check the files")
    images = torch.stack(drawn)
    holes = draw_holes(hole, len(images), image_size, torch.Generator().manual_seed(seed))
    return HoledPictures(images, holes)


def filled_by(task: Inpainter, pictures: HoledPictures) -> Float[Tensor, "N 3 S S"]:
    """Return the images in [0, 1] with their holes filled by a task; outside the holes they are the originals."""
    device = next(task.parameters()).device

    def fill(images: Tensor, holes: Tensor) -> Tensor:
        return task.inpaint(images.to(device), holes.to(device)).float().cpu()

    with evaluating(task), torch.inference_mode():
        return _filled(fill, pictures)


def baseline_fills(pictures: HoledPictures) -> dict[str, Float[Tensor, "N 3 S S"]]:
    """Return the images in [0, 1] as each baseline fills them, by its name."""
    return {name: _filled(fill, pictures) for name, fill in BASELINES.items()}


def _filled(fill: Fill, pictures: HoledPictures) -> Float[Tensor, "N 3 S S"]:
    """Fill the holes batch by batch; outside the holes keep the original instead of the output of `fill`."""
    filled = []
    for images, shown, holes in zip(
        *(torch.split(tensor, BATCH_SIZE) for tensor in (pictures.images, pictures.shown(), pictures.holes)),
        strict=True,
    ):
        filled.append(torch.where(holes, fill(shown, holes).clamp(0, 1), images.float() / 255))
    return torch.cat(filled)


def scores_of(filled: Float[Tensor, "N 3 S S"], pictures: HoledPictures) -> list[Score]:
    """Return all scores of filled images in [0, 1]; see `inpainting_scores`."""
    return [
        Score(
            metric=metric,
            value=float(items.mean()),
            unit=UNITS[metric],
            higher_is_better=metric in HIGHER_IS_BETTER,
            chance=None,
            n=len(items),
            headline=metric == HEADLINE,
            items=items,
        )
        for metric, items in hole_errors(filled, pictures).items()
    ]


def hole_errors(filled: Float[Tensor, "N 3 S S"], pictures: HoledPictures) -> Mapping[str, NDArray[np.float64]]:
    """Return each image's L1 (%), L2 (%), PSNR (dB), SSIM, sharpness and seam, over its hole's pixels and channels.

    Sharpness is the mean absolute difference of horizontal and vertical neighbours inside the hole, seam that of
    neighbours on the two sides of its border. Both are divided by the truth's mean over all images, so that images
    with flat holes do not dominate. An image whose hole has no such neighbours counts as the truth.

    The SSIM map is computed on the whole filled image, per channel, with a Gaussian window (σ = 1.5, 11 pixels
    wide), and averaged over the hole. Along the border of the hole the windows see both sides.
    """
    truth = pictures.images.double() / 255
    holes = pictures.holes
    difference = filled.double() - truth
    count = 3 * holes.sum(dim=(1, 2, 3)).double()
    l1 = (difference.abs() * holes).sum(dim=(1, 2, 3)) / count
    l2 = (difference.square() * holes).sum(dim=(1, 2, 3)) / count
    psnr = -10 * l2.clamp(min=MIN_MSE).log10()
    ssim = np.array(list(_ssim(filled.double().numpy(), truth.numpy(), holes[:, 0].numpy())))
    errors = {"L1": 100 * l1.numpy(), "L2": 100 * l2.numpy(), "PSNR": psnr.numpy(), "SSIM": ssim}
    for name, across in (("sharpness", False), ("seam", True)):
        mine, true = (_mean_steps(pixels, holes, across=across) for pixels in (filled.double(), truth))
        errors[name] = torch.where(mine.isnan(), 1.0, mine / true.nanmean().clamp(min=LEAST_STEP)).numpy()
    return errors


def _mean_steps(
    pixels: Float[Tensor, "N 3 S S"], holes: Bool[Tensor, "N 1 S S"], *, across: bool
) -> Float[Tensor, "N"]:
    """Return each image's mean absolute difference of neighbours inside its hole, or across its border."""
    total, count = torch.zeros(2, len(pixels), dtype=pixels.dtype)
    for axis in (2, 3):
        length = pixels.shape[axis] - 1
        one, other = holes.narrow(axis, 0, length), holes.narrow(axis, 1, length)
        counted = one ^ other if across else one & other
        total += (pixels.diff(dim=axis).abs() * counted).sum(dim=(1, 2, 3))
        count += 3 * counted.sum(dim=(1, 2, 3))
    return total / count


def _ssim(filled: NDArray[np.float64], truth: NDArray[np.float64], holes: NDArray[np.bool_]) -> Iterator[float]:
    """Yield the SSIM inside each image's hole."""
    from skimage.metrics import structural_similarity

    for one, other, hole in zip(filled, truth, holes, strict=True):
        _, similarity = structural_similarity(  # type: ignore[no-untyped-call]
            one,
            other,
            data_range=1.0,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        yield float(similarity[:, hole].mean())

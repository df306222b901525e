"""What a decoder is worth: L1, L2, PSNR and SSIM inside the hole, beside what needs no training.

All four compare the filled pixels with the hidden ones, in [0, 1], picture by picture; a score is the mean
over the pictures. They reward the mean of all that could be there, which is blurred, over one sharp guess:
what an adversarial loss gains is for the eye, from a sample sheet; these numbers say what it costs.

Source: Pathak et al. 2016, table 1: mean L1, mean L2 and PSNR in the central square of half the side.
SSIM: Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity".
Deviation: the paper does not say how it averages PSNR; here it is the mean of the pictures' own.
"""

from __future__ import annotations

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
"""From uint8 pictures B×3×S×S and holes B×1×S×S to pictures in [0, 1]."""

BATCH = 64
SMALLEST = 11
"""Side in pixels below which SSIM's window does not fit the picture."""
LEAST_MSE = 1 / (12 * 255**2)
"""The error of rounding to 8 bits: PSNR counts none as smaller, so that a perfect fill has one (58.9 dB)."""
UNITS = {"L1": "%", "L2": "%", "PSNR": "dB", "SSIM": ""}
HEADLINE = "PSNR"


class HoledPictures(NamedTuple):
    """Test pictures and what is hidden of them: the same for all that are compared."""

    images: UInt8[Tensor, "N 3 S S"]
    holes: Bool[Tensor, "N 1 S S"]

    def shown(self) -> UInt8[Tensor, "N 3 S S"]:
        """Return the pictures with the mean colour in their holes."""
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
    """Judge how well a task fills holes of pictures of the test split.

    Args:
        task: Is run in evaluation mode and left as it was. It is never shown what a hole hides.
        data: Any split; test is reached through it.
        image_size: Side in pixels at which the task sees pictures.
        test_images: At most so many, drawn by the seed.
        seed: Draws the pictures and the holes.
        hole: Which holes; the central square is half the side.

    Returns:
        L1 (mean absolute error) and L2 (mean squared error) in % of a pixel's range, PSNR in dB, SSIM; each
        the mean over pictures, with the pictures' own values. PSNR is the headline.

    Raises:
        UserError: If the pictures are too small, or none can be decoded.
    """
    pictures = drawn_pictures(data, image_size=image_size, test_images=test_images, seed=seed, hole=hole)
    return scores_of(filled_by(task, pictures), pictures)


def baseline_scores(
    data: ImageDataset,
    *,
    image_size: int,
    test_images: int = 500,
    seed: int = 0,
    hole: MaskKind = "central",
) -> dict[str, list[Score]]:
    """Return the scores of the fills that need no training, by name; arguments as for `inpainting_scores`."""
    pictures = drawn_pictures(data, image_size=image_size, test_images=test_images, seed=seed, hole=hole)
    return {name: scores_of(filled, pictures) for name, filled in baseline_fills(pictures).items()}


def drawn_pictures(
    data: ImageDataset, *, image_size: int, test_images: int, seed: int, hole: MaskKind, split: str = "test"
) -> HoledPictures:
    """Return the pictures that are judged, and their holes; arguments as for `inpainting_scores`.

    Those of another `split` are what fills are taken from, or chosen by.
    """
    if image_size < SMALLEST:
        raise UserError(f"image size {image_size}: SSIM needs pictures of at least {SMALLEST} pixels a side")
    if test_images < 1:
        raise UserError(f"{test_images} test pictures: give at least 1")
    part = at_size(data.split(split), image_size, bad_images="skip")
    found: list[Tensor] = []
    for index in np.random.default_rng(seed).permutation(len(part)):
        try:
            found.append(part[int(index)][0])
        except BadImage:  # of a set too large to be packed; the next picture takes its place
            continue
        if len(found) == test_images:
            break
    if not found:
        raise UserError(f"{data.spec}: no picture of its {split} split can be decoded")
    images = torch.stack(found)
    holes = draw_holes(hole, len(images), image_size, torch.Generator().manual_seed(seed))
    return HoledPictures(images, holes)


def filled_by(task: Inpainter, pictures: HoledPictures) -> Float[Tensor, "N 3 S S"]:
    """Return the pictures as a task fills them, in [0, 1]; outside of the holes they are the originals."""
    device = next(task.parameters()).device

    def fill(images: Tensor, holes: Tensor) -> Tensor:
        return task.inpaint(images.to(device), holes.to(device)).float().cpu()

    with evaluating(task), torch.inference_mode():
        return filled(fill, pictures)


def baseline_fills(pictures: HoledPictures) -> dict[str, Float[Tensor, "N 3 S S"]]:
    """Return the pictures as each baseline fills them, by its name."""
    return {name: filled(fill, pictures) for name, fill in BASELINES.items()}


def filled(fill: Fill, pictures: HoledPictures) -> Float[Tensor, "N 3 S S"]:
    """Return the pictures with their holes filled, batch by batch; what `fill` does elsewhere is not kept."""
    parts = []
    for images, shown, holes in zip(
        *(torch.split(each, BATCH) for each in (pictures.images, pictures.shown(), pictures.holes)),
        strict=True,
    ):
        parts.append(torch.where(holes, fill(shown, holes).clamp(0, 1), images.float() / 255))
    return torch.cat(parts)


def scores_of(filled: Float[Tensor, "N 3 S S"], pictures: HoledPictures) -> list[Score]:
    """Return the four scores of filled pictures."""
    return [
        Score(
            metric=metric,
            value=float(items.mean()),
            unit=UNITS[metric],
            higher_is_better=metric in ("PSNR", "SSIM"),
            chance=None,
            n=len(items),
            headline=metric == HEADLINE,
            items=items,
        )
        for metric, items in hole_errors(filled, pictures).items()
    ]


def hole_errors(filled: Float[Tensor, "N 3 S S"], pictures: HoledPictures) -> Mapping[str, NDArray[np.float64]]:
    """Return each picture's L1 (%), L2 (%), PSNR (dB) and SSIM, over the pixels and channels in its hole.

    SSIM is that of the whole filled picture (Gaussian window of σ = 1.5, 11 pixels wide, each channel by
    itself), its map averaged over the hole: along the seam the windows see both sides of it.
    """
    truth = pictures.images.double() / 255
    holes = pictures.holes
    difference = filled.double() - truth
    count = 3 * holes.sum(dim=(1, 2, 3)).double()
    l1 = (difference.abs() * holes).sum(dim=(1, 2, 3)) / count
    l2 = (difference.square() * holes).sum(dim=(1, 2, 3)) / count
    psnr = -10 * l2.clamp(min=LEAST_MSE).log10()
    ssim = np.array(list(_ssim(filled.double().numpy(), truth.numpy(), holes[:, 0].numpy())))
    return {"L1": 100 * l1.numpy(), "L2": 100 * l2.numpy(), "PSNR": psnr.numpy(), "SSIM": ssim}


def _ssim(filled: NDArray[np.float64], truth: NDArray[np.float64], holes: NDArray[np.bool_]) -> Iterator[float]:
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

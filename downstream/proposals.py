"""Object proposals for Fast R-CNN: from selective search, or read from a file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from downstream.picture_files import name_of
from pretext.datasets.base import BadImage, ImageDataset
from pretext.datasets.decoding import decode_draft
from pretext.datasets.files import FileDataset
from pretext.datasets.fitting import padded_place
from pretext.datasets.packed import PackedDataset, ResizedDataset
from pretext.datasets.view import source_of
from pretext.system.errors import UserError
from pretext.system.progress import counted

SELECTIVE_SEARCH = "selective_search"

Boxes = Float[NDArray[np.float32], "M 4"]


def proposals_for(
    source: str, data: ImageDataset, indices: NDArray[np.int64], *, most: int, seed: int
) -> dict[int, Float[Tensor, "M 4"]]:
    """Return proposals for some images of a resized data set, XYXY in its pixels, by index.

    Args:
        source: `selective_search`, or an .npz file; see `read_proposals`.
        data: A data set returned by `at_size`.
        indices: The images; those that cannot be decoded are left out.
        most: Maximum number of boxes per image: the first in the file, or the best ranked by selective search.
        seed: Seed of the ranking of selective search.

    Raises:
        UserError: If the file cannot be used with these images.
    """
    if source != SELECTIVE_SEARCH:
        boxes = read_proposals(Path(source), data, indices)
        return {index: torch.from_numpy(boxes_of[:most]) for index, boxes_of in boxes.items()}
    found = {}
    for index in counted(indices.tolist(), SELECTIVE_SEARCH, len(indices), unit="img"):
        try:
            image = data[index][0]
        except BadImage:
            continue
        boxes_of = selective_search(image.permute(1, 2, 0).numpy(), np.random.default_rng([seed, index]))
        found[index] = torch.from_numpy(boxes_of[:most])
    return found


def read_proposals(file: Path, data: ImageDataset, indices: NDArray[np.int64]) -> dict[int, Boxes]:
    """Read the proposals of some images from a file, and scale them to the pixels of the resized data set.

    The file is an `.npz` archive without pickled objects, as `np.savez` writes it. It has one array M×4 per image: XYXY
    in pixels of the image file, best first. The key is the image's path below the data set's folder (for VOC,
    `JPEGImages/000005.jpg`). Boxes must lie within the image. An image without proposals has an array 0×4.

    Args:
        file: Path of the archive.
        data: A data set returned by `at_size`.
        indices: The images; those that cannot be decoded are left out.

    Raises:
        UserError: If the file cannot be read, lacks an image or has an invalid box, or if the data set has no image
            files.
    """
    if not isinstance(data, PackedDataset | ResizedDataset):
        raise TypeError(f"{type(data).__name__} is not resized; pass the result of at_size")
    if isinstance(data, PackedDataset) and data.skipped:
        raise UserError(
            f"{file}: {len(data.skipped)} of {len(data.base)} images cannot be decoded, the first of them "
            f"{data.skipped[0]}; remove them from the data set, or use proposals={SELECTIVE_SEARCH}"
        )
    boxes: dict[int, Boxes] = {}
    try:
        with file.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UserError(f"{file}: one array; expected an .npz file with one array per image")
            for index, picture, name in _named(file, data.base, indices):
                if name not in archive:
                    raise UserError(
                        f"{file}: no boxes for {name}; "
                        f"its {len(archive.files)} images begin with {', '.join(archive.files[:2]) or 'nothing'}"
                    )
                try:
                    height, width = decode_draft(picture, 1)[1]
                except BadImage:
                    continue
                top, left, inner_height, inner_width = (
                    padded_place(height, width, data.size) if data.fit == "pad" else (0, 0, data.size, data.size)
                )
                scale, moved = [inner_width / width, inner_height / height] * 2, [left, top] * 2
                given = _checked(archive[name], f"{file}: {name}", width, height)
                boxes[index] = (given * scale + moved).astype(np.float32)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{file}: not an .npz file of plain arrays: {error}") from None
    return boxes


def _named(file: Path, data: ImageDataset, indices: NDArray[np.int64]) -> Iterator[tuple[int, str | BinaryIO, str]]:
    """Yield the index, the file and the key in the archive of each image."""
    for index in indices.tolist():
        source, row = source_of(data, index)
        if not isinstance(source, FileDataset):
            raise UserError(
                f"{file}: {source.spec or type(source).__name__} has no image files that proposals could name; "
                f"use proposals={SELECTIVE_SEARCH}"
            )
        yield index, source.file(row), name_of(source, row)


def _checked(boxes: NDArray[np.generic], where: str, width: int, height: int) -> Float[NDArray[np.float64], "M 4"]:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "iuf":
        shape = "×".join(map(str, boxes.shape)) or "one value"
        raise UserError(f"{where}: {shape} of {boxes.dtype}; expected M×4 numbers, XYXY in pixels")
    values = boxes.astype(np.float64)
    wrong = ~(np.isfinite(values).all(axis=1) & (values[:, 2:] > values[:, :2]).all(axis=1))
    # tolerate one pixel, for coordinates that start at 1
    wrong |= ~((values >= -1) & (values <= [width + 1, height + 1] * 2)).all(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{where}: box {row} is {values[row].tolist()} in an image of {width}×{height}; "
            "expected left < right and top < bottom, within the image"
        )
    return values.clip(0, [width, height] * 2)


COLOUR_BINS, TEXTURE_BINS, DIRECTIONS = 25, 10, 8
GRANULARITIES = (50.0, 100.0)
"""Felzenszwalb and Huttenlocher's k; larger values give larger initial regions."""
SMALLEST_REGION = 0.002
"""Minimum area of an initial region, as a share of the image; smaller ones are merged."""


def selective_search(image: UInt8[NDArray[np.uint8], "H W 3"], rng: np.random.Generator) -> Boxes:
    """Return boxes that may contain an object, most likely first.

    The regions of a fine initial segmentation are merged, always the two most similar, until one is left. The box of
    every region on the way is a proposal. This runs eight times: two colour spaces, two granularities, two similarity
    measures.

    Args:
        image: RGB.
        rng: Randomises the ranking of the hierarchy levels.

    Returns:
        Distinct boxes, XYXY in pixels.

    Source: Uijlings et al. 2013, "Selective Search for Object Recognition": sections 3 and 4, its "fast" set of
    strategies (HSV and Lab; k of 50 and 100; colour + texture + size + fill, and texture + size + fill), the
    segmentation of Felzenszwalb and Huttenlocher 2004, and the ranking of section 4.3.
    Deviations: the minimum area of an initial region is a share of the image, so that small images have several
    regions; derivatives are clipped at 0, since the opposite direction has the negative part; texture histograms span
    the image's own range of derivatives.
    """
    from skimage.color import rgb2hsv, rgb2lab
    from skimage.segmentation import felzenszwalb

    height, width = image.shape[:2]
    ranks: dict[tuple[float, ...], float] = {}
    for colours in (rgb2hsv(image), (rgb2lab(image) + np.array([0, 128, 128])) / [100, 255, 255]):
        for k in GRANULARITIES:
            segments = felzenszwalb(
                colours,
                scale=k,
                sigma=0.8,
                min_size=max(1, round(SMALLEST_REGION * height * width)),
                channel_axis=-1,
            )
            regions = _Regions.of(colours, segments)
            for with_colour in (True, False):
                boxes = regions.merge(with_colour=with_colour)
                # the last box is the whole image; before randomisation it ranks first
                drawn = rng.random(len(boxes)) * np.arange(len(boxes), 0, -1)
                for box, rank in zip(map(tuple, boxes.tolist()), drawn.tolist(), strict=True):
                    ranks[box] = min(rank, ranks.get(box, rank))
    return np.array(sorted(ranks, key=ranks.__getitem__), dtype=np.float32).reshape(-1, 4)


class _Regions:
    """The regions of a segmentation: sizes, boxes, histograms, and pairs of neighbours."""

    def __init__(
        self,
        sizes: NDArray[np.float64],
        boxes: NDArray[np.float64],
        histograms: NDArray[np.float64],
        colour_bins: int,
        pairs: NDArray[np.int64],
    ) -> None:
        """Hold R regions: pixel counts R, XYXY R×4, colour and texture histograms R×D, adjacent pairs P×2."""
        self.sizes, self.boxes, self.histograms = sizes, boxes, histograms
        self.colour_bins, self.pairs = colour_bins, pairs

    @classmethod
    def of(cls, colours: NDArray[np.float64], segments: NDArray[np.int64]) -> _Regions:
        """Measure the regions of a segmentation of an image H×W×3 with values in [0, 1]."""
        height, width, channels = colours.shape
        which = segments.ravel()
        sizes = np.bincount(which).astype(np.float64)
        y, x = np.divmod(np.arange(height * width), width)
        boxes = np.empty((len(sizes), 4))
        order = np.argsort(which, kind="stable")
        starts = np.concatenate([[0], sizes.cumsum()[:-1]]).astype(np.int64)
        boxes[:, 0], boxes[:, 1] = (np.minimum.reduceat(axis[order], starts) for axis in (x, y))
        boxes[:, 2], boxes[:, 3] = (np.maximum.reduceat(axis[order], starts) + 1 for axis in (x, y))
        colour = _histograms(colours.reshape(-1, channels), which, COLOUR_BINS, 0.0, 1.0)
        derivatives = _derivatives(colours).reshape(height * width, -1)
        texture = _histograms(derivatives, which, TEXTURE_BINS, float(derivatives.min()), float(derivatives.max()))
        touching = np.concatenate(
            [
                np.stack([segments[:, :-1].ravel(), segments[:, 1:].ravel()], axis=1),
                np.stack([segments[:-1].ravel(), segments[1:].ravel()], axis=1),
            ]
        )
        touching.sort(axis=1)
        pairs = np.unique(touching[touching[:, 0] != touching[:, 1]], axis=0)
        return cls(sizes, boxes, np.concatenate([colour, texture], axis=1), colour.shape[1], pairs)

    def merge(self, *, with_colour: bool) -> NDArray[np.float64]:
        """Merge the two most similar regions until one is left; return all boxes, merged ones last."""
        first, total = len(self.sizes), 2 * len(self.sizes) - 1
        area = self.sizes.sum()
        start = 0 if with_colour else self.colour_bins
        sizes, boxes = np.zeros(total), np.zeros((total, 4))
        histograms = np.zeros((total, self.histograms.shape[1] - start))
        sizes[:first], boxes[:first], histograms[:first] = self.sizes, self.boxes, self.histograms[:, start:]

        def similarity(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
            around = _union(boxes[one], boxes[other])
            sides = around[:, 2:] - around[:, :2]
            both = sizes[one] + sizes[other]
            fill = 1 - (sides.prod(axis=1) - both) / area
            return np.minimum(histograms[one], histograms[other]).sum(axis=1) + (1 - both / area) + fill

        pairs, similarities = self.pairs, similarity(self.pairs[:, 0], self.pairs[:, 1])
        for new in range(first, total):
            a, b = pairs[similarities.argmax()]
            sizes[new] = sizes[a] + sizes[b]
            boxes[new] = _union(boxes[a][None], boxes[b][None])[0]
            histograms[new] = (sizes[a] * histograms[a] + sizes[b] * histograms[b]) / sizes[new]
            gone = ((pairs == a) | (pairs == b)).any(axis=1)
            neighbours = np.unique(pairs[gone])
            neighbours = neighbours[(neighbours != a) & (neighbours != b)]
            added = np.stack([neighbours, np.full_like(neighbours, new)], axis=1)
            similarities = np.concatenate([similarities[~gone], similarity(added[:, 0], added[:, 1])])
            pairs = np.concatenate([pairs[~gone], added])
        return boxes


def _union(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the smallest boxes around pairs of boxes."""
    return np.concatenate([np.minimum(one[:, :2], other[:, :2]), np.maximum(one[:, 2:], other[:, 2:])], axis=1)


def _histograms(
    values: NDArray[np.float64], which: NDArray[np.int64], bins: int, low: float, high: float
) -> NDArray[np.float64]:
    """Return each region's normalised histograms of C values per pixel, `bins` bins each: R×(C·bins)."""
    columns = values.shape[1]
    spread = (values - low) / max(high - low, 1e-12)
    place = np.minimum((spread * bins).astype(np.int64), bins - 1) + bins * np.arange(columns)
    regions = int(which.max()) + 1
    flat = which[:, None] * (columns * bins) + place
    counts = np.bincount(flat.ravel(), minlength=regions * columns * bins).reshape(regions, -1)
    return counts / counts.sum(axis=1, keepdims=True)


def _derivatives(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Gaussian derivatives (σ = 1) of each channel in eight directions, clipped at 0: H×W×(3·8)."""
    from scipy.ndimage import gaussian_filter

    down, right = (gaussian_filter(colours, sigma=(1, 1, 0), order=order) for order in ((1, 0, 0), (0, 1, 0)))
    angles = np.arange(DIRECTIONS) * (2 * np.pi / DIRECTIONS)
    # steerable: each direction is a weighted sum of the two
    return np.concatenate([(np.cos(t) * right + np.sin(t) * down).clip(min=0) for t in angles], axis=2)

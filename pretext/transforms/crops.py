"""Cut rectangles out of pictures and resize them; blur.

Cropping, resizing, mirroring and blurring are linear and separable: a view is `rows · image · columnsᵀ`, with two
small matrices per image, for a whole batch at once. On a CPU, views of pictures larger than the views are cut one by
one, because the matrices would be mostly zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter

import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from pretext.datasets.pictures import Pictures

CHUNK_VALUES = 1_000_000
"""Values that a CPU resamples at once. Larger chunks exceed its cache and take 1.5 times as long at 96 px."""
CANVAS_VALUES = 2**28
"""Values of the pictures of several sizes that are cut by matrices at once, all as large as the largest of them: a
gigabyte as float."""
BAND = 32
"""Lines of a view that are blurred by one product."""


def squares(pictures: Pictures) -> UInt8[Tensor, "B 3 S S"]:
    """Return the centre of each picture at the views' side: its shorter side resized, its longer side cut."""
    if pictures.are_squares:
        return pictures.pixels
    height, width = pictures.height, pictures.width
    length = torch.minimum(height, width).float()
    box = (height - length) / 2, length, (width - length) / 2, length
    return (255 * cut(pictures, box, pictures.side)).round().to(torch.uint8)


def cut(
    pictures: Pictures,
    box: tuple[Float[Tensor, "B"], Float[Tensor, "B"], Float[Tensor, "B"], Float[Tensor, "B"]],
    side: int,
    flipped: Bool[Tensor, "B"] | None = None,
    blurring: Float[Tensor, "B S S"] | None = None,
) -> Float[Tensor, "B 3 S S"]:
    """Return a rectangle of each picture, resized to `side`, mirrored where `flipped`, and blurred.

    Args:
        pictures: The pictures.
        box: Top, height, left and width of each rectangle in pixels; whole pixels unless pictures are `are_squares`.
        side: S, side of the views in pixels.
        flipped: Mirror the view where true.
        blurring: Matrices of `blur_matrix`.
    """
    if pictures.are_squares:
        return _cut_at_once(pictures, box, side, flipped, blurring)
    top, tall, left, wide = box
    top, tall, left, wide = top.round(), tall.round().clamp(min=1), left.round(), wide.round().clamp(min=1)
    top, left = torch.minimum(top, pictures.height - tall), torch.minimum(left, pictures.width - wide)
    if pictures.device.type == "cpu":
        boxes = torch.stack([top, tall, left, wide], dim=1).long()
        return _cut_one_by_one(pictures, boxes, side, flipped, blurring)
    views = []
    for part in parts_of(pictures):
        its_box = top[part], tall[part], left[part], wide[part]
        given = (None if tensor is None else tensor[part] for tensor in (flipped, blurring))
        views.append(_cut_at_once(pictures.rows(itemgetter(part)), its_box, side, *given))
    return torch.cat(views)


def parts_of(pictures: Pictures) -> Iterator[slice]:
    """Yield slices of the batch, each of as many pictures as fit `CANVAS_VALUES`, and of one at least."""
    if pictures.places is None:
        yield slice(len(pictures))
        return
    first, highest, widest = 0, 0, 0
    for row, (_, height, width) in enumerate(pictures.places.tolist()):
        highest, widest = max(highest, height), max(widest, width)
        if row > first and 3 * (row + 1 - first) * highest * widest > CANVAS_VALUES:
            yield slice(first, row)
            first, highest, widest = row, height, width
    yield slice(first, len(pictures))


def _cut_at_once(
    pictures: Pictures,
    box: tuple[Float[Tensor, "B"], Float[Tensor, "B"], Float[Tensor, "B"], Float[Tensor, "B"]],
    side: int,
    flipped: Bool[Tensor, "B"] | None,
    blurring: Float[Tensor, "B S S"] | None,
) -> Float[Tensor, "B 3 S S"]:
    """Return what `cut` does, by the matrices of the whole batch."""
    top, tall, left, wide = box
    pixels = pictures.side_by_side()
    rows = crop_matrix(top, tall, pixels.shape[2], side, within=pictures.height)
    columns = crop_matrix(left, wide, pixels.shape[3], side, flipped, within=pictures.width)
    if blurring is not None:
        with torch.autocast(pixels.device.type, enabled=False):
            rows, columns = torch.bmm(blurring, rows), torch.bmm(blurring, columns)
    return resample(pixels, rows, columns)


def _cut_one_by_one(
    pictures: Pictures,
    boxes: Int[Tensor, "B 4"],
    side: int,
    flipped: Bool[Tensor, "B"] | None,
    blurring: Float[Tensor, "B S S"] | None,
) -> Float[Tensor, "B 3 S S"]:
    """Return what `cut` does; values of uint8 pictures are rounded to whole ones before the blur."""
    views = torch.empty(len(pictures), 3, side, side)
    mirrored = [False] * len(views) if flipped is None else flipped.tolist()
    for view, picture, (top, tall, left, wide), mirror in zip(views, pictures, boxes.tolist(), mirrored, strict=True):
        part = picture[None, :, top : top + tall, left : left + wide]
        resized = interpolate(part, size=(side, side), mode="bilinear", antialias=True)[0]
        view.copy_(resized.flip(2) if mirror else resized)
        if pictures.pixels.dtype == torch.uint8:
            view.div_(255)
    if blurring is not None:
        blurred = (torch.diagonal(blurring, dim1=1, dim2=2) < 1).any(dim=1)  # the others are identities
        views[blurred] = _blur(views[blurred], blurring[blurred])
    return views


def _blur(images: Float[Tensor, "B 3 S S"], blurring: Float[Tensor, "B S S"]) -> Float[Tensor, "B 3 S S"]:
    """Return `blurring · image · blurringᵀ`, without the products by zeros far from the diagonal."""
    side = images.shape[-1]
    reach = int((blurring[:, 0] > 0).sum(dim=1).max()) - 1 if len(images) else 0
    bands = [
        (slice(start, start + BAND), slice(max(0, start - reach), start + BAND + reach))
        for start in range(0, side, BAND)
    ]
    rows, columns = blurring.unsqueeze(1), blurring.transpose(1, 2).unsqueeze(1)
    down = torch.cat([torch.matmul(rows[:, :, at, near], images[:, :, near]) for at, near in bands], dim=2)
    return torch.cat([torch.matmul(down[..., near], columns[:, :, near, at]) for at, near in bands], dim=3)


def crop_matrix(
    start: Float[Tensor, "B"],
    length: Float[Tensor, "B"],
    inputs: int,
    outputs: int,
    flipped: Bool[Tensor, "B"] | None = None,
    *,
    within: Int[Tensor, "B"] | None = None,
    antialias: bool = True,
) -> Float[Tensor, "B S N"]:
    """Return the matrices that crop an interval of `inputs` pixels and resize it to `outputs` pixels.

    Args:
        start: Start of the interval, in pixels from the border.
        length: Length of the interval in pixels, raised to 1 if smaller.
        inputs: N, pixels of the image along this axis.
        outputs: S, pixels of the view along this axis.
        flipped: Mirror the view where true.
        within: Pixels of each image along this axis, if that is smaller than N.
        antialias: When shrinking, average all image pixels under a view pixel, as torchvision's `resize` does.
    """
    start, length = start.view(-1, 1, 1), length.clamp(min=1).view(-1, 1, 1)
    start = torch.minimum(start, (inputs if within is None else within.view(-1, 1, 1)) - length)
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
            values = image.to(torch.float32, memory_format=torch.contiguous_format)
            resized = torch.bmm(values.view(-1, C * H, W), column.transpose(1, 2))  # B×CH×S
            views.append(torch.matmul(row.unsqueeze(1), resized.view(-1, C, H, column.shape[1])))
    return torch.cat(views)

"""Images for the page: first-layer filters; and opening the data set that images come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.report.content import Run
from benchmarks.report.images import as_image, image_html

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from pretext.datasets.base import ImageDataset

FILTERS = 64
"""Most filters that are shown of a first layer."""
FILTERS_WIDTH = 288
"""Width in pixels that the grid of filters is enlarged to, by an integer factor."""


def open_data(run: Run, on: str) -> ImageDataset:
    """Open one of the run's data sets by its label, with pictures of any size.

    Raises:
        UserError: If the data set can no longer be opened.
    """
    from pretext.datasets import open_dataset

    return open_dataset(run.sets[on])


def filters(run: Run) -> dict[str, str]:
    """Return the first layer's filters by row, each stretched to the full range of intensity."""
    from pretext.encoders import load_encoder

    found = {}
    for row, folder in run.first_encoders().items():
        weights = _first_layer(load_encoder(folder / "encoder.safetensors"))
        if weights is not None:
            shown = weights[:FILTERS]
            all_of = "" if len(shown) == len(weights) else f" of {len(weights)}"
            alt = f"{len(shown)}{all_of} filters of the first layer of {run.title(row)}"
            found[row] = image_html(_filter_grid(shown), alt, lossless=True)
    return found


def _first_layer(encoder: Any) -> Tensor | None:
    """Return the weights F×3×K×K of the first convolution with three input channels."""
    from torch import nn

    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            return module.weight.detach().float().cpu()
    return None


def _filter_grid(shown: Tensor, columns: int = 8) -> Image:
    """Return filters as a grid of K×K tiles with a grey line between them, enlarged by an integer factor."""
    import torch

    low, high = shown.amin(dim=(1, 2, 3), keepdim=True), shown.amax(dim=(1, 2, 3), keepdim=True)
    shown = (shown - low) / (high - low).clamp(min=1e-12)
    side = shown.shape[-1] + 1
    lines = -(-len(shown) // columns)
    grid = torch.full((3, lines * side - 1, columns * side - 1), 0.5)
    for place, tile in enumerate(shown):
        y, x = place // columns * side, place % columns * side
        grid[:, y : y + side - 1, x : x + side - 1] = tile
    times = max(1, FILTERS_WIDTH // grid.shape[2])
    return as_image(grid.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2))

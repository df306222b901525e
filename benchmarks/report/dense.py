"""Images for the page: dense features as colours, by principal components."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from jaxtyping import Float

from benchmarks.report.content import Run
from benchmarks.report.images import as_image, image_html
from benchmarks.report.tables import breakable

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from pretext.datasets.base import ImageDataset

COLOURED = 6
"""Test images that are shown."""
COLOURED_SIDE = 96
"""Side in pixels that feature maps are enlarged to."""
LIGHTNESS, RED, YELLOW = (20, 90), 40, 50
"""Ranges along the axes of CIELAB; wider ranges leave the sRGB gamut for most colours."""
FINE = 12
"""Smallest side of a feature map in cells; with 8, mostly padding artefacts are visible."""


def feature_table(run: Run, data: ImageDataset) -> str:
    """Return test images, and each encoder's features of them as colours; empty without encoders."""
    import torch
    import torch.nn.functional as F

    from pretext.encoders import load_encoder
    from pretext.encoders.base import evaluating
    from pretext.inpainting.measuring import drawn_pictures
    from pretext.system.device import device_of

    size = run.plan["image_size"]
    images = drawn_pictures(data, image_size=size, test_images=COLOURED, seed=0, hole="central").images
    lines = [_picture_line("image", "", [as_image(image.float() / 255) for image in images], "Test image {}")]
    for row, folder in run.first_encoders().items():
        encoder = load_encoder(folder / "encoder.safetensors").to(device_of("auto"))
        with evaluating(encoder), torch.inference_mode():
            maps = [one.float().cpu() for one in encoder(images.to(device_of("auto")))]
        number = fine_stage([min(one.shape[2:]) for one in maps])
        components, explained = principal_components(maps[number])
        shown = as_colours(F.interpolate(components, size=(COLOURED_SIDE, COLOURED_SIDE), mode="bilinear"))
        stage = encoder.stages[number].name
        alt = f"Test image {{}}: features of {run.title(row)} at {stage} as colours"
        lines.append(_picture_line(run.title(row), f"{stage}, {explained:.0%}", [as_image(one) for one in shown], alt))
    if len(lines) == 1:
        return ""
    return (
        '<div class="scroll fills dense" tabindex="0" role="region" aria-label="Dense features as colours">'
        f"<table><tbody>{''.join(lines)}</tbody></table></div>"
    )


def fine_stage(sides: Sequence[int]) -> int:
    """Return the index of the stage to show: the deepest with a map side of at least `FINE`, else the finest."""
    enough = min(FINE, max(sides))
    return max(place for place, side in enumerate(sides) if side >= enough)


def principal_components(maps: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B 3 H W"], float]:
    """Return the first three principal components of all cells' features, each in [0, 1].

    One analysis covers all maps. The sign of a component is chosen so that its largest loading is positive; its
    values are clipped at the 1st and 99th percentile. Missing components are 0.5 everywhere.

    Returns:
        The components, and the fraction of the variance that the three explain.
    """
    import torch

    cells = maps.permute(0, 2, 3, 1).flatten(0, 2).double()
    cells = cells - cells.mean(dim=0)
    _, singular_values, directions = torch.linalg.svd(cells, full_matrices=False)
    directions = directions[:3]
    largest = directions.abs().argmax(dim=1, keepdim=True)
    directions = directions * directions.gather(1, largest).sign()
    projected = cells @ directions.T
    low, high = (torch.quantile(projected, q, dim=0) for q in (0.01, 0.99))
    flat = high - low <= 1e-9 * singular_values[0].clamp(min=1e-30)
    scaled = torch.where(flat, 0.5, (projected - low) / (high - low).masked_fill(flat, 1.0)).clamp(0, 1)
    scaled = torch.nn.functional.pad(scaled, (0, 3 - scaled.shape[1]), value=0.5)
    variance = singular_values.square()
    explained = float(variance[:3].sum() / variance.sum()) if variance.sum() > 0 else 1.0
    return scaled.view(len(maps), *maps.shape[2:], 3).permute(0, 3, 1, 2).float(), explained


def as_colours(components: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Return three components in [0, 1] as colours in sRGB: dark to light, blue to yellow, green to red (CIELAB).

    Readers with a red or green colour deficiency can see the first two components, and those with a blue deficiency
    the first and the third. With components as red, green and blue, the first would be hardly visible to protanopes.
    """
    import torch
    from skimage.color import lab2rgb

    first, second, third = components.clamp(0, 1).double().unbind(dim=1)
    low, high = LIGHTNESS
    lab = torch.stack([low + (high - low) * first, RED * (2 * third - 1), YELLOW * (2 * second - 1)], dim=-1)
    colours = torch.from_numpy(lab2rgb(lab.numpy()))  # type: ignore[no-untyped-call]
    return colours.clamp(0, 1).permute(0, 3, 1, 2).float()


def _picture_line(name: str, below: str, pictures: Sequence[Image], alt: str) -> str:
    cells = "".join(f"<td>{image_html(one, alt.format(at))}</td>" for at, one in enumerate(pictures, start=1))
    small = f"<small>{escape(below)}</small>" if below else ""
    return f'<tr><th scope="row">{breakable(name)}{small}</th>{cells}</tr>'

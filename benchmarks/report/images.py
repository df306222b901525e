"""Images as HTML with the content embedded in the page."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

from jaxtyping import Float

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


def as_image(picture: Float[Tensor, "3 H W"]) -> Image:
    """Convert an image in [0, 1]; values outside are clipped."""
    from PIL import Image

    return Image.fromarray(picture.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy())


def image_html(image: Image, alt: str, *, lossless: bool = False, quality: int = 85) -> str:
    """Return an `img` element with a data URL: PNG if lossless or at most 64 px, else WebP."""
    file = io.BytesIO()
    if lossless or max(image.size) <= 64:
        image.save(file, format="PNG", optimize=True)
        kind = "png"
    else:
        image.save(file, format="WEBP", quality=quality)  # half the size of JPEG
        kind = "webp"
    content = base64.b64encode(file.getvalue()).decode()
    return (
        f'<img src="data:image/{kind};base64,{content}" alt="{escape(alt)}" '
        f'width="{image.width}" height="{image.height}">'
    )


def sheet_html(sheet: Image, alt: str) -> str:
    """Return a wide image in a container that scrolls."""
    return (
        f'<div class="scroll sheet" tabindex="0" role="region" aria-label="{escape(alt)}">'
        f"{image_html(sheet, alt, quality=80)}</div>"
    )

"""Uploaded pictures: decode them outside of the event loop, and keep the last few in memory."""

from __future__ import annotations

import asyncio
import io
import secrets
import warnings
from collections import OrderedDict

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from pretext.datasets.base import BadImage
from pretext.datasets.decoding import decode
from retrieval.demo.guard import RequestError

MAX_BYTES = 20_000_000
MAX_PIXELS = 40_000_000
MAX_UPLOADS, MAX_KEPT_BYTES = 8, 6 * MAX_PIXELS
"""Uploads kept in memory, and their decoded size together: two of the largest ones. The oldest is dropped."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""Formats of uploads, by Pillow's names: those whose header states the size of the picture that is decoded.

An ICO file states a size other than its picture's, EPS runs a program, and TIFF has internal tiles of any size.
"""
TOO_LARGE = f"this file is larger than {MAX_BYTES // 10**6} MB; choose a smaller file"
_TOO_MANY_PIXELS = f"this picture has more than {MAX_PIXELS // 10**6} million pixels; choose a smaller one"
_UNREADABLE = "this file is not a readable picture; choose a JPEG, PNG, WebP, GIF or BMP file"


class Uploads:
    """The last uploads, by name."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[str, UInt8[Tensor, "3 H W"]] = OrderedDict()
        self._decoding = asyncio.Semaphore(1)  # a large picture takes seconds and hundreds of megabytes

    async def add(self, content: bytes) -> str:
        """Decode an uploaded file in a thread, one at a time, and return the picture's new name.

        Raises:
            RequestError: If it is not a picture, or too large.
        """
        async with self._decoding:
            picture = await asyncio.to_thread(decode_upload, content)
        name = secrets.token_urlsafe(12)
        self._pictures[name] = picture
        while len(self._pictures) > MAX_UPLOADS or sum(map(Tensor.numel, self._pictures.values())) > MAX_KEPT_BYTES:
            self._pictures.popitem(last=False)
        return name

    def get(self, name: object) -> UInt8[Tensor, "3 H W"]:
        """Return an uploaded picture.

        Raises:
            RequestError: If there is none of this name, or it was dropped.
        """
        found = self._pictures.get(name) if isinstance(name, str) else None
        if found is None:
            raise RequestError("this upload has expired; upload the picture again")
        return found


def decode_upload(content: bytes) -> UInt8[Tensor, "3 H W"]:
    """Return the picture in an uploaded file; its declared size is checked before it is decoded.

    Raises:
        RequestError: If it is not a picture, or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures, which are refused here
            with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
                pixels = opened.width * opened.height
    except Image.DecompressionBombError:
        raise RequestError(_TOO_MANY_PIXELS) from None
    except Exception:  # Pillow's plug-ins raise errors of every kind on a broken file
        raise RequestError(_UNREADABLE) from None
    if pixels > MAX_PIXELS:
        raise RequestError(_TOO_MANY_PIXELS)
    try:
        return decode(io.BytesIO(content), formats=FORMATS)
    except BadImage:
        raise RequestError(_UNREADABLE) from None

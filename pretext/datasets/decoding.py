"""Decode image files of any mode to 8-bit RGB, upright.

Conversions to 8-bit RGB: transparent pixels are composited on white. 16-bit values are divided by 257; but
if a greyscale picture uses 8, 10 or 12 of its 16 bits, which would be nearly black, the brightest value of that many
bits is white. 32-bit greyscale has no agreed white, so it is stretched from its darkest to its brightest pixel. An
animation gives its first frame.
"""

from __future__ import annotations

import errno
import functools
import io
import stat
import warnings
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from pretext.datasets.base import BadImage
from pretext.system.errors import UserError

_OF_THE_FILE = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EACCES,
    errno.EPERM,
    errno.EINVAL,  # a broken file makes its reader seek to a place that no file has
    errno.ENXIO,
    errno.EOVERFLOW,
}
"""Errors of the operating system that a file gives each time. All others (EIO, EMFILE, ENOMEM, ESTALE, …) may pass."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the lower-case suffixes (`.jpg`, …) of the picture formats that Pillow reads."""
    Image.init()
    return frozenset(
        suffix
        for suffix, name in Image.registered_extensions().items()
        # Pillow also registers EPS, video and scientific containers
        if name in Image.OPEN and Image.MIME.get(name, "").startswith("image/")
    )


def decode(path: str | Path | BinaryIO, *, formats: tuple[str, ...] | None = None) -> UInt8[Tensor, "3 H W"]:
    """Return the picture in a file, in RGB with its EXIF orientation applied; in memory pixel by pixel.

    Args:
        path: The file.
        formats: Formats to try, by Pillow's names; None tries all.

    Raises:
        BadImage: If it cannot be decoded.
        UserError: If it cannot be read at the moment; see `passing_fault`.
    """
    return decode_draft(path, None, formats=formats)[0]


def decode_draft(
    path: str | Path | BinaryIO, at_least: int | None, *, formats: tuple[str, ...] | None = None
) -> tuple[UInt8[Tensor, "3 H W"], tuple[int, int]]:
    """Return a picture, decoded at reduced size where possible, and its full height and width.

    Args:
        path: The file.
        at_least: Decode a JPEG at 1/2, 1/4 or 1/8 of its size, which is several times faster, if both sides keep
            at least this many pixels. None decodes at full size.
        formats: See `decode`.

    Raises:
        BadImage: If it cannot be decoded.
        UserError: If it cannot be read at the moment; see `passing_fault`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of doubtful metadata; only the pixels matter
            check_regular(path)
            with Image.open(path, formats=formats) as image:
                return _upright(image, at_least)
    except Exception as error:  # Pillow's plug-ins raise errors of every kind on a broken file
        raise _fault(path, error) from None


def from_pillow(image: Image.Image) -> UInt8[Tensor, "3 H W"]:
    """Return an opened picture of Pillow's as `decode` returns that of a file.

    Raises:
        BadImage: If it cannot be decoded.
        UserError: If it cannot be read at the moment; see `passing_fault`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as above
            return _upright(image, None)[0]
    except Exception as error:  # as above
        raise _fault(getattr(image, "filename", "") or "the PIL picture", error) from None


class Header(NamedTuple):
    """What a picture's file says of itself."""

    width: int
    """Width of the upright picture in pixels."""
    height: int
    """Height of the upright picture in pixels."""
    mode: str
    """File format and colour mode, by Pillow's names: `JPEG RGB`."""
    is_turned: bool
    """Whether EXIF turns or mirrors the stored picture."""


def read_header(path: str | Path | BinaryIO) -> Header:
    """Return what the file of a picture that can be decoded says of itself.

    Raises:
        BadImage: If it is not a picture after all.
        UserError: If it cannot be read at the moment; see `passing_fault`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as above
            with Image.open(path) as image:
                orientation = _orientation(image)
                width, height = image.size if orientation < 5 else image.size[::-1]
                return Header(width, height, f"{image.format} {image.mode}", orientation in _TURNS)
    except Exception as error:  # as above
        raise _fault(path, error) from None


def uses_few_bits(path: str | Path | BinaryIO) -> bool:
    """Whether a file is a 16-bit greyscale picture of 12 bits or fewer; one that cannot be decoded is not."""
    try:
        check_regular(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as above
            with Image.open(path) as image:
                return _has_16_bits(image.mode, image.format) and _bits_used(np.asarray(image)) < 16
    except Exception:  # of every kind, as above; decoding the picture reports it
        return False


def decode_mask(path: str | Path) -> UInt8[NDArray[np.uint8], "H W"]:
    """Return the class indices stored in a palette or greyscale picture.

    Raises:
        BadImage: If it cannot be decoded, is a colour picture, or holds values outside 0 to 255.
        UserError: If it cannot be read at the moment; see `passing_fault`.
    """
    try:
        check_regular(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as above
            with Image.open(path) as image:
                mode, values = image.mode, np.array(image)
    except Exception as error:  # as above
        raise _fault(path, error) from None
    if values.ndim != 2 or mode == "F":
        raise BadImage(f"{path}: a mask is a palette or greyscale picture of class indices, not {mode}")
    if values.max(initial=0) > 255 or values.min(initial=0) < 0:
        raise BadImage(f"{path}: a mask's indices run from 0 to 255; this one reaches {values.max()}")
    return values.astype(np.uint8)


def check_regular(path: str | Path | BinaryIO) -> None:
    """Raise an `OSError` for a named pipe, a device or a socket: reading it may never end."""
    if isinstance(path, str | Path):
        mode = Path(path).stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OSError(errno.EINVAL, "not a regular file")


def passing_fault(error: Exception) -> str | None:
    """Return the reason if an error comes from the machine's state and not from the picture; else None.

    Such an error may be gone at the next attempt: too little memory, too many open files, a disk or a network that
    fails. A picture must not be counted as broken for it.
    """
    # torch reports too little memory as a RuntimeError
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in str(error)):
        return "not enough memory"
    if isinstance(error, OSError) and error.errno is not None and error.errno not in _OF_THE_FILE:
        return error.strerror or str(error)
    return None


def _upright(image: Image.Image, at_least: int | None) -> tuple[Tensor, tuple[int, int]]:
    width, height = image.size
    drafted = at_least is not None and image.draft(None, (at_least, at_least)) is not None  # type: ignore[arg-type]
    image.load()
    orientation = _orientation(image)
    pixels = image.transpose(_TURNS[orientation]) if orientation in _TURNS else image
    array = _to_rgb(pixels, image.format)
    if not drafted:
        height, width = array.shape[:2]
    elif orientation >= 5:
        height, width = width, height
    # the array is of bytes that nothing else refers to, though NumPy calls them read-only
    return torch.from_numpy(array).permute(2, 0, 1), (height, width)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:  # broken metadata, valid pixels; Pillow raises SyntaxError, struct.error, …
        if passing_fault(error) is not None:
            raise
        return 1


def _to_rgb(image: Image.Image, file_format: str | None) -> NDArray[np.uint8]:
    """Return the pixels in 8-bit RGB, H×W×3; see the module for the conversions."""
    if _has_16_bits(image.mode, file_format):
        values = np.asarray(image)
        return _grey(values * (255 / (2**bits - 1)) if (bits := _bits_used(values)) < 16 else values / 257.0)
    if image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float64)
        known = values[np.isfinite(values)]
        low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
        return _grey((values - low) * (255 / (high - low) if high > low else 0))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image)
        image = page
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _has_16_bits(mode: str, file_format: str | None) -> bool:
    return mode.startswith("I;16") or (mode == "I" and file_format == "PNG")


def _bits_used(values: NDArray[Any]) -> int:
    """Return 8, 10 or 12 if the values fit that many bits, else 16."""
    highest = int(values.max(initial=0))
    return next((bits for bits in (8, 10, 12) if highest < 2**bits), 16)


def _grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.repeat(np.rint(values).astype(np.uint8)[..., None], 3, axis=2)


def _fault(path: str | Path | BinaryIO, error: Exception) -> Exception:
    """Return the error to raise for a file whose decoding raised `error`."""
    passing = passing_fault(error)
    if passing is not None:
        return UserError(f"{path}: {passing}; the picture itself may be sound, run the same command again")
    return BadImage(f"{path}: {_reason(path, error)}")


def _reason(path: str | Path | BinaryIO, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(path, io.BytesIO):
        if not path.getbuffer().nbytes:
            return "empty file"
    elif isinstance(path, str | Path) and Path(path).is_file() and Path(path).stat().st_size == 0:
        return "empty file"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that Pillow can read"
    return " ".join(str(error).split()) or type(error).__name__

"""Any indexed collection of pictures in Python: a torch data set, torchvision's, a list, a table of Hugging Face's.

An item is a picture, or a picture and its target: a tuple, or a dict such as `{"image": …, "label": …}`. A picture is
a PIL picture, an array H×W, H×W×3 or H×W×1, a tensor 3×H×W or 1×H×W, or the path of a file. Arrays and tensors are
uint8, or floats in [0, 1]. A target that is a whole number or a text is the picture's class; others are not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from pretext.datasets.base import BadImage, ImageDataset, Target
from pretext.datasets.decoding import decode, from_pillow, passing_fault
from pretext.datasets.fingerprints import digest
from pretext.system.errors import UserError
from pretext.system.progress import counted

PICTURE_KEYS = ("image", "img", "picture")
LABEL_KEYS = ("label", "labels", "class", "target")


@final
class ItemDataset(ImageDataset):
    """Pictures that code of the user's own returns by index. All are read once when the data set is made.

    Attributes:
        hashes: A hash of the pixels of each picture; empty for one that cannot be decoded.
        stated: The class of each picture as the collection states it; None if it has none.
    """

    def __init__(self, spec: str, collection: Any) -> None:
        """Read every item once, for the fingerprint and the classes.

        Args:
            spec: What messages call the data set.
            collection: An object with `__getitem__` and `__len__`.

        Raises:
            UserError: If an item is no picture, the collection fails, or it gives another picture each time.
        """
        self.spec, self._collection = spec, collection
        self.hashes: list[bytes] = []
        self.stated: list[str | int | None] = []
        for index in counted(range(len(collection)), f"read {spec}", len(collection), unit="img"):
            try:
                image, stated = self._item(index)
                self.hashes.append(bytes.fromhex(_digest(image)))
            except BadImage:
                self.hashes.append(b"")
                stated = None
            self.stated.append(stated)
        known = next((each for each in self.stated if each is not None), None)
        # a picture that cannot be decoded reaches nobody, so that its class does not matter
        self.stated = [each if seen else known for each, seen in zip(self.stated, self.hashes, strict=True)]
        first = next((index for index, each in enumerate(self.hashes) if each), None)
        if first is not None and _digest(self._item(first)[0]) != self.hashes[first].hex():
            raise UserError(
                f"{spec}: item {first} is another picture each time; remove the random transforms, tasks augment "
                "the pictures by themselves"
            )

    def __len__(self) -> int:
        return len(self.hashes)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Target]:
        """Return picture and target; see `ImageDataset`."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        image, _ = self._item(index)
        return image, {} if self.label is None else {"label": self.label[index].clone()}

    @property
    def fingerprint(self) -> str:
        """A hash of all pixels, labels and class names."""
        label = b"" if self.label is None else self.label.numpy().tobytes()
        return digest(*self.hashes, label, *self.classes)

    def _item(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], str | int | None]:
        """Return the picture and the class of an item.

        Raises:
            BadImage: If its file cannot be decoded.
            UserError: If it is no picture, or the collection raises another error.
        """
        where = f"{self.spec}, item {index}"
        try:
            item = self._collection[index]
            picture, target = _parts(item)
            return _picture(where, picture), _class(target)
        except (UserError, BadImage):
            raise
        except Exception as error:  # the user's own code may raise anything
            if isinstance(error, UnidentifiedImageError):  # its words are Python's name of an open file
                raise BadImage(f"{where}: not a picture that Pillow can read") from None
            words = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, OSError | SyntaxError) and passing_fault(error) is None:  # Pillow's, on a broken file
                raise BadImage(f"{where}: {words}") from None
            raise UserError(f"{where}: the data set fails with {type(error).__name__}: {words}") from error


def _digest(image: UInt8[Tensor, "3 H W"]) -> str:
    return digest(str(tuple(image.shape)), image.numpy().tobytes())


def _parts(item: Any) -> tuple[Any, Any]:
    """Return the picture and the target of an item."""
    if isinstance(item, Mapping):
        picture = next((item[key] for key in PICTURE_KEYS if key in item), None)
        return picture, next((item[key] for key in LABEL_KEYS if key in item), None)
    if isinstance(item, Sequence) and not isinstance(item, str) and item:
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _class(target: Any) -> str | int | None:
    """Return a target that is a class; else None."""
    if isinstance(target, Tensor | np.ndarray | np.generic) and len(np.ravel(target)) == 1:
        target = target.item()
    return target if isinstance(target, str | int) and not isinstance(target, bool) else None


def _picture(where: str, picture: Any) -> UInt8[Tensor, "3 H W"]:
    """Return a picture as a tensor.

    Raises:
        BadImage: If its file cannot be decoded.
        UserError: If it is of another type, shape or range.
    """
    if isinstance(picture, str | Path):
        return decode(picture)
    if isinstance(picture, Image.Image):
        return from_pillow(picture)
    if isinstance(picture, Tensor):
        array = picture.detach().cpu()
        array = array.float() if array.dtype == torch.bfloat16 else array
        values = array.numpy()
        if values.ndim == 3 and values.shape[0] in (1, 3):
            values = values.transpose(1, 2, 0)
    elif isinstance(picture, np.ndarray):
        values = picture
        if values.ndim == 3 and values.shape[2] not in (1, 3) and values.shape[0] in (1, 3):
            values = values.transpose(1, 2, 0)
    else:
        raise UserError(
            f"{where}: holds {type(picture).__name__}; expected a PIL picture, an array, a tensor or the path of a file"
        )
    return _from_array(where, values)


def _from_array(where: str, values: NDArray[Any]) -> UInt8[Tensor, "3 H W"]:
    """Return the picture in an array H×W, H×W×1 or H×W×3."""
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] not in (1, 3) or not values.size:
        shape = "×".join(map(str, values.shape))
        raise UserError(f"{where}: an array {shape}; expected H×W, H×W×3 or 3×H×W")
    if np.issubdtype(values.dtype, np.floating):
        low, high = float(values.min()), float(values.max())
        if not 0 <= low <= high <= 1:
            raise UserError(
                f"{where}: floats from {low:.3g} to {high:.3g}; expected 0 to 1: give pictures before normalisation"
            )
        values = np.rint(values * 255).astype(np.uint8)
    elif values.dtype != np.uint8:
        raise UserError(f"{where}: an array of {values.dtype}; expected uint8, or floats from 0 to 1")
    rgb = np.broadcast_to(values.transpose(2, 0, 1), (3, *values.shape[:2]))
    return torch.from_numpy(np.array(rgb, order="C"))

"""Where an index comes from and how its folder is laid out: all that is needed to ask it a question."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from pretext.datasets.packed import BadImages
from pretext.encoders.base import Encoder
from pretext.encoders.files import encoder_digest
from pretext.system.errors import UserError
from pretext.transforms.masks import MEAN_COLOUR
from retrieval.regions import Regions

FORMAT = 2
VECTORS, TABLE, PICTURES, MANIFEST = "index.faiss", "patches.npy", "pictures.npy", "manifest.json"


@dataclasses.dataclass(frozen=True)
class Transform:
    """What happens to a region's pixels before an encoder's first layer."""

    input_size: int
    """Side in pixels to which it is brought."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Normalisation of pixels in [0, 1]."""
    fill: tuple[float, ...]
    """Colour of a hole and of what lies beyond a picture, in [0, 1]."""

    @classmethod
    def of(cls, encoder: Encoder) -> Transform:
        """Return an encoder's."""
        return cls(encoder.input_size, tuple(encoder.mean), tuple(encoder.std), tuple(MEAN_COLOUR))


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What an index was made of and how."""

    encoder: str
    """The encoder file, or `timm:NAME`."""
    encoder_sha256: str
    """Of its architecture and weights; see `encoder_digest`."""
    stage: str
    transform: Transform
    data: str
    """The data set's spec."""
    split: str
    data_fingerprint: str
    """Of the split at `picture_size`."""
    picture_size: int
    """Side in pixels at which the pictures were read."""
    bad_images: BadImages
    regions: Regions
    classes: tuple[str, ...]
    factory: str
    """FAISS's own description of the kind of index, with its whitening."""
    faiss_version: str


def check_encoder(manifest: Manifest, encoder: Encoder) -> None:
    """Raise a `UserError` unless it is the encoder that the index was made with."""
    if _digest_of(encoder) != manifest.encoder_sha256 or Transform.of(encoder) != manifest.transform:
        raise UserError(
            f"the index was made with the encoder {manifest.encoder}, and this is another or has changed; "
            "give that one, or make the index again with this one"
        )


_digests: WeakKeyDictionary[Encoder, tuple[tuple[Any, ...], str]] = WeakKeyDictionary()


def _digest_of(encoder: Encoder) -> str:
    """Return `encoder_digest`; of an encoder that nothing was written to since the last time, without reading it."""
    tensors = list(encoder.state_dict().values())
    if any(value.is_inference() for value in tensors):  # PyTorch does not count what is written to these
        return encoder_digest(encoder)
    state = (encoder.spec, encoder.input_size, *((value.data_ptr(), value._version) for value in tensors))
    if encoder not in _digests or _digests[encoder][0] != state:
        _digests[encoder] = (state, encoder_digest(encoder))
    return _digests[encoder][1]


def read_manifest(folder: Path) -> tuple[Manifest, dict[str, str]]:
    """Return the manifest of an index, and the checksums of its files.

    Raises:
        UserError: If the folder is missing, or its manifest is none, of another format, or makes no sense.
    """
    content = _content(folder)
    return _manifest_of(content, folder), content["sha256"]


def _content(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        what = "is no index: it has no manifest.json" if folder.is_dir() else "does not exist"
        raise UserError(f"{folder} {what}; make one with python -m retrieval index")
    try:
        content = json.loads(path.read_text())
    except ValueError:  # UnicodeDecodeError is one too
        raise UserError(f"{path} is no JSON, or is cut short; make the index again") from None
    if not isinstance(content, dict) or "format" not in content or not isinstance(content.get("sha256"), dict):
        raise UserError(f"{path} is no manifest of an index; make the index again")
    if content["format"] != FORMAT:
        raise UserError(f"{path}: format {content['format']}, and this version reads {FORMAT}; make the index again")
    return content


def _manifest_of(content: dict[str, Any], folder: Path) -> Manifest:
    try:
        fields = {field.name: content[field.name] for field in dataclasses.fields(Manifest)}
        regions = Regions(**{**content["regions"], "scales": tuple(content["regions"]["scales"])})
        seen = content["transform"]
        transform = Transform(seen["input_size"], tuple(seen["mean"]), tuple(seen["std"]), tuple(seen["fill"]))
        classes = tuple(content["classes"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / MANIFEST} cannot be read ({error}); make the index again") from None
    manifest = Manifest(**{**fields, "regions": regions, "transform": transform, "classes": classes})
    for name in ("encoder", "encoder_sha256", "stage", "data", "split", "data_fingerprint", "factory", "faiss_version"):
        if not isinstance(getattr(manifest, name), str):
            raise UserError(f"{folder / MANIFEST}: {name} is no text; make the index again")
    if (
        not isinstance(manifest.picture_size, int)
        or manifest.bad_images not in ("skip", "stop")
        or not all(isinstance(name, str) for name in classes)
    ):
        raise UserError(f"{folder / MANIFEST}: picture_size, bad_images or classes make no sense; make the index again")
    return manifest

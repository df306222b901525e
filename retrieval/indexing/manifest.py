"""What an index was made from and how: the content of its manifest, needed to encode queries the same way."""

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
    """Preprocessing of a region's pixels before the encoder's first layer."""

    input_size: int
    """Side in pixels to which a region is resized."""
    mean: tuple[float, ...]
    """Channel means for normalisation, in [0, 1]."""
    std: tuple[float, ...]
    """Channel standard deviations for normalisation."""
    fill: tuple[float, ...]
    """Colour of a hole and of the area outside the picture, in [0, 1]."""

    @classmethod
    def of(cls, encoder: Encoder) -> Transform:
        """Return the preprocessing of an encoder."""
        return cls(encoder.input_size, tuple(encoder.mean), tuple(encoder.std), tuple(MEAN_COLOUR))


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What an index was made from and how."""

    encoder: str
    """The encoder file, or `timm:NAME`."""
    encoder_sha256: str
    """Hash of its architecture and weights; see `encoder_digest`."""
    stage: str
    """Encoder stage that was read."""
    transform: Transform
    data: str
    """The data set's spec."""
    split: str
    """Name of the indexed split, or `all`."""
    data_fingerprint: str
    """Fingerprint of the split at `picture_size`."""
    picture_size: int
    """Side in pixels at which the pictures were read."""
    bad_images: BadImages
    """What was done with pictures that cannot be decoded."""
    regions: Regions
    classes: tuple[str, ...]
    factory: str
    """FAISS index-factory string, including the whitening."""
    faiss_version: str


def check_encoder(manifest: Manifest, encoder: Encoder) -> None:
    """Raise a `UserError` unless the index was made with this encoder."""
    if _digest_of(encoder) != manifest.encoder_sha256 or Transform.of(encoder) != manifest.transform:
        raise UserError(
            f"the index was made with the encoder {manifest.encoder}; this one is another, or its weights changed; "
            "give the first one, or make the index again"
        )


_digests: WeakKeyDictionary[Encoder, tuple[tuple[Any, ...], str]] = WeakKeyDictionary()


def _digest_of(encoder: Encoder) -> str:
    """Return `encoder_digest`, cached while no tensor of the encoder is written to."""
    # not state_dict(): it takes three times as long as reading the dictionaries that it is made from
    held = [values for module in encoder.modules() for values in (module._parameters, module._buffers)]
    tensors = [value for values in held for value in values.values() if value is not None]
    try:
        versions = [(value.data_ptr(), value._version) for value in tensors]
    except RuntimeError:  # an inference tensor has no version counter
        return encoder_digest(encoder)
    state = (encoder.spec, encoder.input_size, *versions)
    if encoder not in _digests or _digests[encoder][0] != state:
        _digests[encoder] = (state, encoder_digest(encoder))
    return _digests[encoder][1]


def read_manifest(folder: Path) -> tuple[Manifest, dict[str, str]]:
    """Return the manifest of an index, and the checksums of its files.

    Raises:
        UserError: If the folder is missing, or its manifest is missing, damaged or of another format.
    """
    content = _content(folder)
    return _manifest_of(content, folder), content["sha256"]


def _content(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        what = "is not an index: it has no manifest.json" if folder.is_dir() else "does not exist"
        raise UserError(f"{folder} {what}; make one with python -m retrieval index")
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError):  # includes UnicodeDecodeError
        raise UserError(f"{path} is not JSON, or is truncated; make the index again") from None
    if not isinstance(content, dict) or "format" not in content or not isinstance(content.get("sha256"), dict):
        raise UserError(f"{path} is not the manifest of an index; make the index again")
    if content["format"] != FORMAT:
        raise UserError(f"{path}: format {content['format']}, but this version reads {FORMAT}; make the index again")
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
            raise UserError(f"{folder / MANIFEST}: {name} is not text; make the index again")
    if (
        not isinstance(manifest.picture_size, int)
        or manifest.bad_images not in ("skip", "stop")
        or not all(isinstance(name, str) for name in classes)
    ):
        raise UserError(f"{folder / MANIFEST}: picture_size, bad_images or classes is invalid; make the index again")
    return manifest

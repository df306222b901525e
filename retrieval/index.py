"""A searchable folder of vectors: a FAISS index, the table of what its vectors are of, and a manifest.

    index.faiss     the vectors, by inner product (they have length 1, so that it is the cosine)
    patches.npy     one row of `retrieval.regions.PATCH` a vector
    manifest.json   encoder, data, regions, versions, and a checksum of the other two

The folder is written beside and renamed, so that it is whole or absent. FAISS trusts the files that it reads,
so one is only given to it once its checksum has been found to be the manifest's.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from pretext.checkpoint import file_sha256
from pretext.datasets.base import ImageDataset
from pretext.datasets.packed import BadImages
from pretext.encoders.base import Encoder
from pretext.encoders.files import encoder_digest
from pretext.errors import UserError
from retrieval.patches import describe_regions, stage_named
from retrieval.regions import PATCH, Regions

FORMAT = 1
EXACT_UP_TO = 200_000
"""Vectors that are compared one by one; more are put into inverted lists."""
VECTORS, TABLE, MANIFEST = "index.faiss", "patches.npy", "manifest.json"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Where an index comes from: all that is needed to ask it a question."""

    encoder: str
    """The encoder file, or `timm:NAME`."""
    encoder_sha256: str
    """Of its architecture and weights; see `encoder_digest`."""
    stage: str
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
    """FAISS's own description of the kind of index."""
    faiss_version: str


@dataclasses.dataclass(frozen=True)
class PatchIndex:
    """Vectors of regions, and the way from a vector to its nearest ones."""

    manifest: Manifest
    table: NDArray[Any]
    """Rows of `PATCH`, in the order of the vectors."""
    vectors: Any
    """A `faiss.Index`."""

    def search(
        self,
        queries: Float32[np.ndarray, "Q D"],
        k: int,
        *,
        encoder: Encoder,
        without_image: int | None = None,
    ) -> tuple[Float32[np.ndarray, "Q K"], Int64[np.ndarray, "Q K"]]:
        """Return the cosines of the nearest regions, best first, and their rows in the table.

        Fewer than k come back where the index, or the lists of it that are looked at, hold no more.

        Args:
            queries: Vectors of length 1.
            k: Neighbours a query, at least 1.
            encoder: What made the queries.
            without_image: A picture whose regions are not wanted: the query's own.

        Raises:
            UserError: If the index was made with another encoder, or k is below 1.
        """
        check_encoder(self.manifest, encoder)
        if k < 1:
            raise UserError(f"k is {k}; ask for at least 1 neighbour")
        own = 0 if without_image is None else int((self.table["image"] == without_image).sum())
        cosines, rows = self.vectors.search(np.ascontiguousarray(queries), min(k + own, len(self.table)))
        wanted = rows >= 0  # an inexact index fills what it did not find with -1
        if without_image is not None:
            wanted &= self.table["image"][rows] != without_image
        count = min(k, int(wanted.sum(axis=1).min(initial=k)))
        kept = np.argsort(~wanted, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(cosines, kept, axis=1), np.take_along_axis(rows, kept, axis=1)

    def save(self, folder: str | Path, *, overwrite: bool) -> None:
        """Write the index as a folder, whole or not at all.

        Raises:
            UserError: If the folder is there and not to be replaced, or is no index.
        """
        import faiss

        folder = Path(folder)
        check_target(folder, overwrite=overwrite)
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        beside.mkdir()
        try:
            try:
                faiss.write_index(self.vectors, str(beside / VECTORS))
            except RuntimeError as error:  # its own words for a full disk
                left = shutil.disk_usage(beside).free
                raise OSError(
                    errno.EIO, f"FAISS cannot write the index, {left:,} bytes are free", str(folder)
                ) from error
            np.save(beside / TABLE, self.table, allow_pickle=False)
            content = {
                "format": FORMAT,
                "patches": len(self.table),
                "dimensions": self.vectors.d,
                **dataclasses.asdict(self.manifest),
                "sha256": {name: file_sha256(beside / name) for name in (VECTORS, TABLE)},
            }
            (beside / MANIFEST).write_text(json.dumps(content, indent=2) + "\n")
            _replace(beside, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    @classmethod
    def open(cls, folder: str | Path) -> PatchIndex:
        """Read an index.

        Raises:
            UserError: If the folder is missing, is no index, or does not match its manifest.
        """
        import faiss

        folder = Path(folder)
        content = _read_manifest(folder)
        for name in (VECTORS, TABLE):
            if not (folder / name).is_file():
                raise UserError(f"{folder}: {name} is missing; make the index again")
            if file_sha256(folder / name) != content["sha256"].get(name):
                raise UserError(f"{folder}: {name} is not what its manifest says (cut short or changed); make it again")
        table = np.load(folder / TABLE, allow_pickle=False)
        vectors = faiss.read_index(str(folder / VECTORS))
        if table.dtype != PATCH or len(table) != vectors.ntotal:
            raise UserError(f"{folder}: its table and its vectors do not belong together; make the index again")
        return cls(_manifest_of(content, folder), table, vectors)


def build_index(
    encoder: Encoder,
    data: ImageDataset,
    regions: Regions,
    *,
    encoder_source: str,
    split: str,
    picture_size: int,
    stage: str | None,
    factory: str | None,
    bad_images: BadImages,
) -> PatchIndex:
    """Encode all regions of a split and make them searchable.

    Args:
        encoder: Is left as it was.
        data: The split, its pictures at `picture_size`.
        regions: Which regions, and what is read from them.
        encoder_source: What `load_encoder` takes, for the manifest.
        split: The split's name, for the manifest.
        picture_size: Side in pixels, for the manifest.
        stage: Which to read; the deepest where None.
        factory: A FAISS index-factory string; where None `Flat`, which is exact, up to `EXACT_UP_TO` vectors,
            and beyond that inverted lists, `IVFn,Flat` with n = 4·√N, of which a sixteenth is searched.
        bad_images: What to do about pictures that cannot be decoded.

    Raises:
        UserError: If there are no regions, no such stage, or FAISS cannot make that kind of index of them.
    """
    import faiss

    stage = stage_named(encoder, stage)
    features, table = describe_regions(encoder, data, regions, stage=stage, bad_images=bad_images)
    factory = factory or default_factory(len(features))
    manifest = Manifest(
        encoder=encoder_source,
        encoder_sha256=encoder_digest(encoder),
        stage=stage,
        data=data.spec,
        split=split,
        data_fingerprint=data.fingerprint,
        picture_size=picture_size,
        bad_images=bad_images,
        regions=regions,
        classes=data.classes,
        factory=factory,
        faiss_version=faiss.__version__,
    )
    return PatchIndex(manifest, table, make_vectors(features, factory))


def default_factory(count: int) -> str:
    """Return the kind of index for so many vectors."""
    return "Flat" if count <= EXACT_UP_TO else f"IVF{round(4 * count**0.5)},Flat"


def make_vectors(features: Float32[np.ndarray, "N D"], factory: str) -> Any:
    """Return a `faiss.Index` by inner product that holds the vectors.

    Raises:
        UserError: If FAISS does not know the kind, or cannot make it of these vectors.
    """
    import faiss

    try:
        vectors = faiss.index_factory(features.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        vectors.train(features)
        vectors.add(features)
    except (RuntimeError, AssertionError) as error:
        # FAISS puts its own file and line before its reason, and "Error: " between a check and its words.
        reason = re.split(r"Error: |\.(?:cpp|h):\d+: ", str(error))[-1].strip() or "FAISS gave no reason"
        raise UserError(f"--factory {factory}: {reason} ({features.shape[0]} vectors of {features.shape[1]})") from None
    if isinstance(vectors, faiss.IndexIVF):
        vectors.nprobe = max(1, vectors.nlist // 16)
    return vectors


def check_encoder(manifest: Manifest, encoder: Encoder) -> None:
    """Raise a `UserError` unless it is the encoder that the index was made with."""
    if encoder_digest(encoder) != manifest.encoder_sha256:
        raise UserError(
            f"the index was made with the encoder {manifest.encoder}, and this is another or has changed; "
            "give that one, or make the index again with this one"
        )


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Raise a `UserError` unless there is nothing, an empty folder, or an index that may be replaced."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; give --out a folder of its own")
    if not (folder / MANIFEST).is_file():
        if any(folder.iterdir()):
            raise UserError(f"{folder} holds something other than an index; give --out a folder of its own")
    elif not overwrite:
        raise UserError(f"{folder} holds an index already; --overwrite replaces it")


def _replace(beside: Path, folder: Path) -> None:
    if not folder.exists():
        beside.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        what = "is no index: it has no manifest.json" if folder.is_dir() else "does not exist"
        raise UserError(f"{folder} {what}; make one with python -m retrieval index")
    try:
        content = json.loads(path.read_text())
    except ValueError:  # UnicodeDecodeError is one too
        raise UserError(f"{path} is no JSON, or is cut short; make the index again") from None
    expected = {"format", "sha256", *(field.name for field in dataclasses.fields(Manifest))}
    if not isinstance(content, dict) or not expected <= content.keys():
        raise UserError(f"{path} is no manifest of an index; make the index again")
    if content["format"] != FORMAT:
        raise UserError(f"{path}: format {content['format']}, and this version reads {FORMAT}; make the index again")
    return content


def _manifest_of(content: dict[str, Any], folder: Path) -> Manifest:
    fields = {field.name: content[field.name] for field in dataclasses.fields(Manifest)}
    try:
        regions = Regions(**{**content["regions"], "scales": tuple(content["regions"]["scales"])})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / MANIFEST}: regions cannot be read ({error}); make it again") from None
    return Manifest(**{**fields, "regions": regions, "classes": tuple(content["classes"])})

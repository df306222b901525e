"""A searchable folder of vectors: a FAISS index, the table of what its vectors are of, and a manifest.

    index.faiss     the vectors, by inner product (they have length 1, so that it is the cosine)
    patches.npy     one row of `retrieval.regions.PATCH` a vector; read from the disk where it is needed
    pictures.npy    what each picture is known by, so that an index can grow with its data set
    manifest.json   encoder, data, regions, versions, and a checksum of the other three

While one is made, OUT.blocks beside it holds the vectors that are done (`retrieval.blocks`); the finished folder is
then put in its place at once, so that it is whole or absent. FAISS trusts the files that it reads, so one is only
given to it once its checksum has been found to be the manifest's.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from pretext.checkpoint import file_sha256
from pretext.datasets.base import ImageDataset
from pretext.datasets.packed import BadImages
from pretext.encoders.base import Encoder
from pretext.encoders.files import encoder_digest
from pretext.errors import UserError
from pretext.masks import MEAN_COLOUR
from retrieval.blocks import (
    DIGEST,
    FINISHED,
    Block,
    Known,
    begin,
    blocks_in,
    drawn_vectors,
    encode_blocks,
    held,
    put_in_place,
    undo_half_a_move,
)
from retrieval.factory import (
    add_vectors,
    default_factory,
    empty_vectors,
    make_vectors,
    only_these,
    read_vectors,
    search_all_lists,
    use_faiss,
    with_whitening,
)
from retrieval.patches import check_regions, no_regions, stage_named
from retrieval.regions import PATCH, Regions

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
    """Where an index comes from: all that is needed to ask it a question."""

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
        label: int | None = None,
    ) -> tuple[Float32[np.ndarray, "Q K"], Int64[np.ndarray, "Q K"]]:
        """Return the cosines of the nearest regions, best first, and their rows in the table.

        Fewer than k come back where the index, or the lists of it that are looked at, hold no more.

        Args:
            queries: Vectors of length 1.
            k: Neighbours a query, at least 1.
            encoder: What made the queries.
            without_image: A picture whose regions are not wanted: the query's own.
            label: The class of the regions that are wanted; any where None.

        Raises:
            UserError: If the index was made with another encoder, k is below 1, or regions are to be left out and this
                kind of index cannot.
        """
        check_encoder(self.manifest, encoder)
        if k < 1:
            raise UserError(f"k is {k}; ask for at least 1 neighbour")
        wanted = np.ones(len(self.table), bool)
        if without_image is not None:
            wanted &= self.table["image"] != without_image
        if label is not None:
            wanted &= self.table["label"] == label
        use_faiss()
        most = min(k, int(wanted.sum()))
        queries = np.ascontiguousarray(queries)
        if wanted.all():
            cosines, rows = self.vectors.search(queries, max(most, 1))
        else:
            cosines, rows = self._search_some(queries, max(most, 1), wanted)
        # an inexact index ends with -1 where its lists hold no more
        count = min(most, int((rows >= 0).sum(axis=1).min(initial=most)))
        return cosines[:, :count], rows[:, :count]

    def _search_some(
        self, queries: Float32[np.ndarray, "Q D"], k: int, wanted: Bool[np.ndarray, " N"]
    ) -> tuple[Float32[np.ndarray, "Q K"], Int64[np.ndarray, "Q K"]]:
        """Search some rows alone: by an approximate index through as many as it sees of all, and then through all."""
        share = max(float(wanted.mean()), 1 / len(wanted))
        try:
            cosines, rows = self.vectors.search(queries, k, params=only_these(self.vectors, wanted, effort=1 / share))
            if (rows < 0).any():
                cosines, rows = search_all_lists(self.vectors, queries, k, wanted)
        except RuntimeError:
            kind = self.manifest.factory
            raise UserError(f"an index of kind {kind} cannot leave regions out; make one of another kind") from None
        return cosines, rows

    @classmethod
    def open(cls, folder: str | Path) -> PatchIndex:
        """Read an index; the patch table stays on the disk.

        Raises:
            UserError: If the folder is missing, is no index, or does not match its manifest.
        """
        folder = Path(folder)
        content = _read_manifest(folder)
        manifest = _manifest_of(content, folder)
        for name in (VECTORS, TABLE, PICTURES):
            if not (folder / name).is_file():
                raise UserError(f"{folder}: {name} is missing; make the index again")
            if file_sha256(folder / name) != content["sha256"].get(name):
                raise UserError(f"{folder}: {name} is not what its manifest says (cut short or changed); make it again")
        table = np.load(folder / TABLE, mmap_mode="r", allow_pickle=False)
        vectors = read_vectors(folder / VECTORS)
        if table.dtype != PATCH or len(table) != vectors.ntotal:
            raise UserError(f"{folder}: its table and its vectors do not belong together; make the index again")
        return cls(manifest, table, vectors)


def build_index(
    encoder: Encoder,
    data: ImageDataset,
    regions: Regions,
    out: str | Path,
    *,
    encoder_source: str,
    split: str,
    picture_size: int,
    stage: str | None,
    factory: str | None,
    bad_images: BadImages,
    pca: int | None = None,
    overwrite: bool = False,
    add: bool = False,
) -> PatchIndex:
    """Encode all regions of a split and write them as a folder that can be searched.

    Vectors are kept on disk, block by block, until the index is whole: memory does not grow with the pictures, and
    the same call goes on where one that was killed has stopped, to the same bytes.

    Args:
        encoder: Is left as it was.
        data: The split, its pictures at `picture_size`.
        regions: Which regions, and what is read from them.
        out: Folder to write.
        encoder_source: What `load_encoder` takes, for the manifest.
        split: The split's name, for the manifest.
        picture_size: Side in pixels, for the manifest.
        stage: Which to read; the deepest where None.
        factory: A FAISS index-factory string; where None `default_factory` of the number of vectors.
        bad_images: What to do about pictures that cannot be decoded.
        pca: Numbers a vector after PCA whitening, which is fitted to a sample, kept in the index and applied to
            queries; vectors have length 1 again after it. None leaves them as they are.
        overwrite: Replace an index that is there, and blocks of another that was begun.
        add: Take into an index that is there the pictures that the data set has gained; if there is none, make it.
            What was fitted to the first pictures stays.

    Raises:
        UserError: If there are no regions, no such stage, FAISS cannot make that kind of index of them, or pictures
            are to be added to an index that was made otherwise or holds pictures that the data set lacks.
    """
    out = Path(out)
    working = out.with_name(f"{out.name}.blocks")
    check_regions(data, regions)
    stage = stage_named(encoder, stage)
    dimensions = regions.cells**2 * next(each.channels for each in encoder.stages if each.name == stage)
    if pca is not None and not 1 <= pca <= dimensions:
        raise UserError(f"--pca {pca}: vectors of stage {stage} have {dimensions} numbers; give 1 to {dimensions}")
    empty_vectors(dimensions, with_whitening(factory or "Flat", pca))  # whether FAISS knows it, before any work
    manifest = Manifest(
        encoder=encoder_source,
        encoder_sha256=encoder_digest(encoder),
        stage=stage,
        transform=Transform.of(encoder),
        data=data.spec,
        split=split,
        data_fingerprint=data.fingerprint,
        picture_size=picture_size,
        bad_images=bad_images,
        regions=regions,
        classes=data.classes,
        factory=with_whitening(factory or "", pca),
        faiss_version=use_faiss().__version__,
    )
    with held(working):
        undo_half_a_move(working, out)
        check_target(out, overwrite=overwrite, add=add)
        base = PatchIndex.open(out) if add and (out / MANIFEST).is_file() else None
        pictures = np.empty((0, DIGEST), np.uint8)
        if base is not None:
            pictures = np.load(out / PICTURES, allow_pickle=False)
            _check_growth(base.manifest, manifest, out, whole_factory=factory is not None)
        known = Known(pictures)
        if known.left > len(data):
            raise _lost(data, known.left - len(data), len(pictures), out)
        # What was begun for an index that is there, of other pictures, is a loss of time alone
        begin(working, _asked(manifest, out if base else None), overwrite=overwrite or base is not None)
        encode_blocks(working, encoder, data, regions, stage=stage, bad_images=bad_images, known=known)
        if known.left:
            shutil.rmtree(working)
            raise _lost(data, known.left, len(pictures), out)
        count = sum(len(block.rows) for block in blocks_in(working))
        if base is not None:
            vectors, kind, old_rows = base.vectors, base.manifest.factory, base.table
            add_vectors(vectors, _shown(working, count))
        elif count:
            kind, old_rows = with_whitening(factory or default_factory(count), pca), None
            vectors = make_vectors(
                dimensions,
                kind,
                count,
                lambda wanted: drawn_vectors(working, count, wanted),
                _shown(working, count),
            )
        else:
            shutil.rmtree(working)
            raise no_regions(data, regions)
        manifest = dataclasses.replace(manifest, factory=kind)
        _write(working, manifest, vectors, old_rows, len(pictures), len(data))
        put_in_place(working, out)
    return PatchIndex(manifest, np.load(out / TABLE, mmap_mode="r", allow_pickle=False), vectors)


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


def check_target(folder: Path, *, overwrite: bool, add: bool = False) -> None:
    """Raise a `UserError` unless there is nothing, an empty folder, or an index that may be replaced or grow."""
    if overwrite and add:
        raise UserError("--overwrite and --add: give one of them")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; give --out a folder of its own")
    if not (folder / MANIFEST).is_file():
        if any(folder.iterdir()):
            raise UserError(f"{folder} holds something other than an index; give --out a folder of its own")
    elif not overwrite and not add:
        raise UserError(f"{folder} holds an index already; --add takes in new pictures, --overwrite replaces it")


def _asked(manifest: Manifest, base: Path | None) -> dict[str, Any]:
    """Return all that decides what blocks hold, as JSON would give it back."""
    found = dataclasses.asdict(manifest)
    for name in (
        "encoder",
        "data",
        "split",
        "classes",
        "factory",
        "faiss_version",
    ):  # where from, and what becomes of it
        del found[name]
    found["index that is added to"] = base and file_sha256(base / MANIFEST)
    return json.loads(json.dumps(found))


def _check_growth(old: Manifest, new: Manifest, out: Path, *, whole_factory: bool) -> None:
    """Raise a `UserError` where vectors, or classes, of another kind would come into an index."""
    fields = ("encoder_sha256", "stage", "transform", "split", "picture_size", "regions")
    other = [name.removesuffix("_sha256") for name in fields if getattr(old, name) != getattr(new, name)]
    if new.factory != old.factory and (whole_factory or not old.factory.startswith(new.factory)):
        other.append("factory")
    if new.classes[: len(old.classes)] != old.classes:
        other.append("classes")
    if other:
        raise UserError(
            f"{out} was made with another {' and '.join(other)}; add with the same, or --overwrite makes it again"
        )


def _shown(working: Path, count: int) -> Iterator[Float32[np.ndarray, "N D"]]:
    """Yield the blocks' vectors, and show how far that is."""
    from tqdm import tqdm

    with tqdm(None, "into the index", count, delay=2, disable=None, leave=False, unit="vector") as bar:
        for block in blocks_in(working):
            if len(block.rows):
                yield block.vectors
                bar.update(len(block.rows))


def _lost(data: ImageDataset, missing: int, of: int, out: Path) -> UserError:
    return UserError(
        f"{data.spec} lacks {missing:,} of the {of:,} pictures in {out}, or shows them otherwise; "
        "an index only grows: --overwrite makes it again"
    )


def _write(
    working: Path, manifest: Manifest, vectors: Any, old: NDArray[Any] | None, old_pictures: int, pictures: int
) -> None:
    """Write the files of an index: what an old one holds, its pictures renumbered, and then what the blocks add."""
    folder = working / FINISHED
    folder.mkdir()
    try:
        use_faiss().write_index(vectors, str(folder / VECTORS))
    except RuntimeError as error:  # its own words for a full disk
        left = shutil.disk_usage(folder).free
        raise OSError(errno.EIO, f"FAISS cannot write the index, {left:,} bytes are free", str(folder)) from error
    _write_tables(folder, vectors.ntotal, blocks_in(working), old, old_pictures, pictures)
    content = {
        "format": FORMAT,
        "patches": vectors.ntotal,
        "pictures": pictures,
        "dimensions": vectors.d,
        **dataclasses.asdict(manifest),
        "sha256": {name: file_sha256(folder / name) for name in (VECTORS, TABLE, PICTURES)},
    }
    (folder / MANIFEST).write_text(json.dumps(content, indent=2) + "\n")


def _write_tables(
    folder: Path, rows: int, blocks: Iterator[Block], old: NDArray[Any] | None, old_pictures: int, pictures: int
) -> None:
    table = open_memmap(folder / TABLE, "w+", PATCH, (rows,))
    known_by = open_memmap(folder / PICTURES, "w+", np.dtype(np.uint8), (pictures, DIGEST))
    moved: Int32[np.ndarray, " P"] = np.full(old_pictures, -1, np.int32)
    at = 0 if old is None else len(old)
    for block in blocks:
        table[at : at + len(block.rows)] = block.rows
        known_by[block.start : block.start + len(block.pictures)] = block.pictures
        met = np.flatnonzero(block.known >= 0)
        moved[block.known[met]] = block.start + met
        at += len(block.rows)
    if old is not None:
        table[: len(old)] = old
        table["image"][: len(old)] = moved[old["image"]]
    table.flush()
    known_by.flush()


def _read_manifest(folder: Path) -> dict[str, Any]:
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

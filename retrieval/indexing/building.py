"""An index is made of a split's regions, goes on where it was killed, and grows with its data set."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from pretext.datasets.base import ImageDataset
from pretext.datasets.packed import BadImages
from pretext.encoders.base import Encoder
from pretext.encoders.files import encoder_digest
from pretext.system.checkpoint import file_sha256
from pretext.system.errors import UserError
from retrieval.indexing.blocks import (
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
from retrieval.indexing.factory import (
    add_vectors,
    default_factory,
    empty_vectors,
    make_vectors,
    use_faiss,
    with_whitening,
)
from retrieval.indexing.index import PatchIndex
from retrieval.indexing.manifest import FORMAT, MANIFEST, PICTURES, TABLE, VECTORS, Manifest, Transform
from retrieval.patches import check_regions, no_regions, stage_named
from retrieval.regions import PATCH, Regions


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
    for name in ("encoder", "data", "split", "classes", "factory", "faiss_version"):  # where from, what becomes of it
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

"""Build an index from a split's regions: resume an interrupted build, and add pictures to an existing index.

Order of a build (`build_index`): check the settings, lock OUT.blocks, encode the missing blocks, make the FAISS index,
write its folder inside OUT.blocks, move it to OUT.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float32, Int32
from numpy.lib.format import dtype_to_descr, write_array_header_1_0
from numpy.typing import NDArray

from pretext.datasets.base import ImageDataset
from pretext.datasets.packed import BadImages
from pretext.embedding.encoding import stage_named
from pretext.encoders.base import Encoder
from pretext.encoders.files import encoder_digest
from pretext.system.checkpoint import file_sha256
from pretext.system.errors import UserError
from pretext.system.progress import progress_bar, working
from retrieval.indexing.blocks import (
    DIGEST,
    FINISHED,
    ROWS,
    Block,
    KnownPictures,
    discard,
    encode_blocks,
    locked,
    move_into_place,
    read_blocks,
    recover_interrupted_move,
    sample_vectors,
    start_blocks,
    working_folder,
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
from retrieval.patches import check_regions, no_regions_error
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
    """Encode all regions of a split and write them as a searchable folder.

    Vectors go to disk block by block, so memory does not grow with the number of pictures. The same call continues an
    interrupted build and gives the same bytes.

    Args:
        encoder: Its state is restored.
        data: The split, with pictures at `picture_size`.
        regions: Which regions to encode, and how to pool their maps.
        out: Folder to write.
        encoder_source: Argument of `load_encoder`; goes into the manifest.
        split: Name of the split; goes into the manifest.
        picture_size: Side in pixels; goes into the manifest.
        stage: Encoder stage to read; None reads the deepest.
        factory: FAISS index-factory string; None chooses `default_factory` by the number of vectors.
        bad_images: What to do with pictures that cannot be decoded.
        pca: Dimensions after PCA whitening; None disables it. The PCA is fitted to a sample, stored in the index and
            applied to queries. Whitened vectors are normalised to length 1 again.
        overwrite: Replace an existing index, and blocks of a build with other settings.
        add: Add the data set's new pictures to an existing index; build it if there is none. The PCA and the lists
            that were fitted to the first pictures stay.

    Raises:
        UserError: If there are no regions, the stage does not exist, or FAISS cannot make this index type from these
            vectors; or if `add` meets an index with other settings or with pictures that the data set lacks.
    """
    out = Path(out)
    blocks = working_folder(out)
    check_regions(data, regions)
    stage = stage_named(encoder, stage)
    dimensions = regions.cells**2 * next(each.channels for each in encoder.stages if each.name == stage)
    if pca is not None and not 1 <= pca <= dimensions:
        raise UserError(f"--pca {pca}: vectors of stage {stage} have {dimensions} dimensions; give 1 to {dimensions}")
    empty_vectors(dimensions, with_whitening(factory or "Flat", pca))  # fail early on an unknown index type
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
    with locked(blocks):
        recover_interrupted_move(blocks, out)
        check_target(out, overwrite=overwrite, add=add)
        base = PatchIndex.open(out) if add and (out / MANIFEST).is_file() else None
        pictures = np.empty((0, DIGEST), np.uint8)
        if base is not None:
            pictures = np.load(out / PICTURES, allow_pickle=False)
            _check_can_grow(base.manifest, manifest, out, whole_factory=factory is not None)
        known = KnownPictures(pictures)
        if known.unmatched > len(data):
            raise _missing_pictures_error(data, known.unmatched - len(data), len(pictures), out)
        # Blocks of an interrupted --add may be overwritten: only computing time is lost
        settings = _block_settings(manifest, out if base else None)
        start_blocks(blocks, settings, overwrite=overwrite or base is not None)
        encode_blocks(blocks, encoder, data, regions, stage=stage, bad_images=bad_images, known=known)
        if known.unmatched:
            discard(blocks)
            raise _missing_pictures_error(data, known.unmatched, len(pictures), out)
        count = sum(len(block.rows) for block in read_blocks(blocks))
        if base is not None:
            vectors, kind, old_rows = base.vectors, base.manifest.factory, base.table
            add_vectors(vectors, _vectors_with_progress(blocks, count))
        elif count:
            kind, old_rows = with_whitening(factory or default_factory(count), pca), None
            with working("fit the index"):
                vectors = make_vectors(
                    dimensions,
                    kind,
                    count,
                    lambda wanted: sample_vectors(blocks, count, wanted),
                    _vectors_with_progress(blocks, count),
                )
        else:
            discard(blocks)
            raise no_regions_error(data, regions)
        manifest = dataclasses.replace(manifest, factory=kind)
        with _naming(blocks), working(f"write {out}"):
            _write(blocks, manifest, vectors, old_rows, len(pictures), len(data))
        move_into_place(blocks, out)
    return PatchIndex(manifest, np.load(out / TABLE, mmap_mode="r", allow_pickle=False), vectors)


def check_target(folder: Path, *, overwrite: bool, add: bool = False) -> None:
    """Raise a `UserError` if an index may not be written to `folder`.

    Allowed are a missing or empty folder, and with `overwrite` or `add` an existing index.
    """
    if overwrite and add:
        raise UserError("--overwrite and --add: give one of them")
    if folder.name in ("", ".."):
        raise UserError(f"{folder}: an index cannot replace the folder that holds it; give --out a name, such as index")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; give another --out")
    if not (folder / MANIFEST).is_file():
        if any(folder.iterdir()):
            raise UserError(f"{folder} holds files other than an index; give another --out")
    elif not overwrite and not add:
        raise UserError(f"{folder} already holds an index; --add adds new pictures, --overwrite replaces it")


def _block_settings(manifest: Manifest, base: Path | None) -> dict[str, Any]:
    """Return everything that determines the content of blocks, in JSON types."""
    found = dataclasses.asdict(manifest)
    for name in ("encoder", "data", "split", "classes", "factory", "faiss_version"):  # do not change the vectors
        del found[name]
    found["index that is added to"] = base and file_sha256(base / MANIFEST)
    return json.loads(json.dumps(found))


def _check_can_grow(old: Manifest, new: Manifest, out: Path, *, whole_factory: bool) -> None:
    """Raise a `UserError` if new vectors or classes would differ in kind from those of the index."""
    fields = ("encoder_sha256", "stage", "transform", "split", "picture_size", "regions")
    other = [name.removesuffix("_sha256") for name in fields if getattr(old, name) != getattr(new, name)]
    if new.factory != old.factory and (whole_factory or not old.factory.startswith(new.factory)):
        other.append("factory")
    if new.classes[: len(old.classes)] != old.classes:
        other.append("classes")
    if other:
        raise UserError(
            f"{out} was made with another {' and '.join(other)}; repeat its settings, or replace it with --overwrite"
        )


def _vectors_with_progress(working: Path, count: int) -> Iterator[Float32[np.ndarray, "N D"]]:
    """Yield the blocks' vectors, and show a progress bar."""
    with progress_bar("add to the index", count, unit="vector") as bar:
        for block in read_blocks(working):
            if len(block.rows):
                yield block.vectors
                bar.update(len(block.rows))


def _missing_pictures_error(data: ImageDataset, missing: int, total: int, out: Path) -> UserError:
    return UserError(
        f"{data.spec} lacks {missing:,} of the {total:,} pictures in {out}, or their pixels or annotations changed; "
        "an index can only grow: make it again with --overwrite"
    )


def _write(
    working: Path, manifest: Manifest, vectors: Any, old: NDArray[Any] | None, old_pictures: int, pictures: int
) -> None:
    """Write the files of an index: the old rows with their pictures renumbered, then the rows of the blocks."""
    folder = working / FINISHED
    folder.mkdir()
    with (folder / VECTORS).open("wb") as file:
        # FAISS's own file does not report a disk that is full when it is closed
        writer = use_faiss().PyCallbackIOWriter(file.write)
        use_faiss().write_index(vectors, writer)
    _write_tables(folder, vectors.ntotal, read_blocks(working), old, old_pictures, pictures)
    content = {
        "format": FORMAT,
        "patches": vectors.ntotal,
        "pictures": pictures,
        "dimensions": vectors.d,
        **dataclasses.asdict(manifest),
        "sha256": {name: file_sha256(folder / name) for name in (VECTORS, TABLE, PICTURES)},
    }
    (folder / MANIFEST).write_text(json.dumps(content, indent=2) + "\n")


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Name a folder in file system errors that name no file, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), error.filename or str(folder)) from error


def _write_tables(
    folder: Path, rows: int, blocks: Iterator[Block], old: NDArray[Any] | None, old_pictures: int, pictures: int
) -> None:
    """Write the patch table and the pictures' hashes.

    The files are written in the ordinary way, because a full disk kills the process that writes to a memory map.
    """
    new_numbers: Int32[np.ndarray, " P"] = np.full(old_pictures, -1, np.int32)
    kept = np.empty(0, PATCH) if old is None else old
    with (folder / TABLE).open("wb") as table, (folder / PICTURES).open("wb") as hashes:
        _write_header(table, PATCH, (rows,))
        _write_header(hashes, np.dtype(np.uint8), (pictures, DIGEST))
        start = table.tell()
        table.seek(start + len(kept) * PATCH.itemsize)  # the old rows follow when the new numbers are known
        for block in blocks:
            table.write(block.rows.tobytes())
            hashes.write(block.pictures.tobytes())
            matched = np.flatnonzero(block.known >= 0)
            new_numbers[block.known[matched]] = block.start + matched
        table.seek(start)
        for first in range(0, len(kept), ROWS):
            some = np.array(kept[first : first + ROWS])
            some["image"] = new_numbers[some["image"]]
            table.write(some.tobytes())


def _write_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    write_array_header_1_0(file, {"descr": dtype_to_descr(dtype), "fortran_order": False, "shape": shape})

"""An opened index: FAISS vectors, the patch table of their regions, and a manifest.

    index.faiss     the vectors, with inner-product metric (they have length 1, so it equals the cosine)
    patches.npy     one row of `retrieval.regions.PATCH` per vector; memory-mapped
    pictures.npy    one hash per picture, so that an index can grow with its data set
    manifest.json   encoder, data, regions, versions, and checksums of the other three files

During a build (`retrieval.indexing.building`) the folder OUT.blocks holds the finished vectors. The finished index is
moved to its place in one step, so it is complete or absent. FAISS does not validate the files it reads; a file is
passed to it only after its checksum matches the manifest.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy.typing import NDArray

from pretext.encoders.base import Encoder
from pretext.system.checkpoint import file_sha256
from pretext.system.errors import UserError
from retrieval.indexing.factory import read_vectors, row_filter, search_all_lists, use_faiss
from retrieval.indexing.manifest import PICTURES, TABLE, VECTORS, Manifest, check_encoder, read_manifest
from retrieval.regions import PATCH


@dataclasses.dataclass(frozen=True)
class PatchIndex:
    """Vectors of regions, searchable by cosine similarity."""

    manifest: Manifest
    table: NDArray[Any]
    """Rows of `PATCH`, in the order of the vectors."""
    vectors: Any
    """The opened `faiss.Index`."""

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

        Fewer than k are returned if the index, or the lists that are probed, hold fewer.

        Args:
            queries: Vectors of length 1.
            k: Neighbours per query, at least 1.
            encoder: The encoder that made the queries.
            without_image: Exclude the regions of this picture, usually the query's own.
            label: Search regions of this class only; None searches all.

        Raises:
            UserError: If the index was made with another encoder, k is below 1, or this index type cannot exclude
                regions.
        """
        check_encoder(self.manifest, encoder)
        if k < 1:
            raise UserError(f"k is {k}; give 1 or more")
        wanted = self._wanted(without_image, label)
        use_faiss()
        limit = min(k, len(self.table) if wanted is None else int(wanted.sum()))
        queries = np.ascontiguousarray(queries)
        if wanted is None:
            cosines, rows = self.vectors.search(queries, max(limit, 1))
        else:
            cosines, rows = self._search_subset(queries, max(limit, 1), wanted)
        # an approximate index pads with -1 when its lists hold fewer
        padded = (rows[:, -1] < 0).any()
        count = min(limit, int((rows >= 0).sum(axis=1).min())) if padded else limit
        return cosines[:, :count], rows[:, :count]

    def _wanted(self, without_image: int | None, label: int | None) -> Bool[np.ndarray, " N"] | None:
        """Return which rows to search; None searches all."""
        if without_image is None and label is None:
            return None
        wanted = np.ones(len(self.table), bool)
        if without_image is not None:
            wanted &= self.table["image"] != without_image
        if label is not None:
            wanted &= self.table["label"] == label
        return None if wanted.all() else wanted

    def _search_subset(
        self, queries: Float32[np.ndarray, "Q D"], k: int, wanted: Bool[np.ndarray, " N"]
    ) -> tuple[Float32[np.ndarray, "Q K"], Int64[np.ndarray, "Q K"]]:
        """Search only the wanted rows.

        An approximate index first probes as many wanted rows as it would probe of all rows. If it finds fewer than k,
        all lists are searched.
        """
        share = max(float(wanted.mean()), 1 / len(wanted))
        try:
            cosines, rows = self.vectors.search(queries, k, params=row_filter(self.vectors, wanted, effort=1 / share))
            if (rows < 0).any():
                cosines, rows = search_all_lists(self.vectors, queries, k, wanted)
        except RuntimeError:
            kind = self.manifest.factory
            raise UserError(f"index type {kind} cannot exclude regions; make it with another --factory") from None
        return cosines, rows

    @classmethod
    def open(cls, folder: str | Path) -> PatchIndex:
        """Open an index; the patch table is memory-mapped.

        If another process replaces it meanwhile, the new one is opened.

        Raises:
            UserError: If the folder is missing, is not an index, or does not match its manifest.
        """
        folder = Path(folder)
        while True:
            before = _identity(folder)
            try:
                index = cls._read(folder)
            except (OSError, UserError):
                if _identity(folder) == before:
                    raise
            else:
                if _identity(folder) == before:
                    return index

    @classmethod
    def _read(cls, folder: Path) -> PatchIndex:
        manifest, checksums = read_manifest(folder)
        for name in (VECTORS, TABLE, PICTURES):
            if not (folder / name).is_file():
                raise UserError(f"{folder}: {name} is missing; make the index again")
            if file_sha256(folder / name) != checksums.get(name):
                raise UserError(f"{folder}: {name} is truncated or changed (checksum mismatch); make the index again")
        table = np.load(folder / TABLE, mmap_mode="r", allow_pickle=False)
        vectors = read_vectors(folder / VECTORS)
        if table.dtype != PATCH or len(table) != vectors.ntotal:
            raise UserError(f"{folder}: its table and its vectors do not match; make the index again")
        return cls(manifest, table, vectors)


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from another one that takes its place; None if there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino

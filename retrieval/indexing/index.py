"""A searchable folder of vectors: a FAISS index, the table of what its vectors are of, and a manifest.

    index.faiss     the vectors, by inner product (they have length 1, so that it is the cosine)
    patches.npy     one row of `retrieval.regions.PATCH` a vector; read from the disk where it is needed
    pictures.npy    what each picture is known by, so that an index can grow with its data set
    manifest.json   encoder, data, regions, versions, and a checksum of the other three

While one is made (`retrieval.indexing.building`), OUT.blocks beside it holds the vectors that are done
(`retrieval.indexing.blocks`);
the finished folder is then put in its place at once, so that it is whole or absent. FAISS trusts the files that it
reads, so one is only given to it once its checksum has been found to be the manifest's.
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
from retrieval.indexing.factory import only_these, read_vectors, search_all_lists, use_faiss
from retrieval.indexing.manifest import PICTURES, TABLE, VECTORS, Manifest, check_encoder, read_manifest
from retrieval.regions import PATCH


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
        manifest, checksums = read_manifest(folder)
        for name in (VECTORS, TABLE, PICTURES):
            if not (folder / name).is_file():
                raise UserError(f"{folder}: {name} is missing; make the index again")
            if file_sha256(folder / name) != checksums.get(name):
                raise UserError(f"{folder}: {name} is not what its manifest says (cut short or changed); make it again")
        table = np.load(folder / TABLE, mmap_mode="r", allow_pickle=False)
        vectors = read_vectors(folder / VECTORS)
        if table.dtype != PATCH or len(table) != vectors.ntotal:
            raise UserError(f"{folder}: its table and its vectors do not belong together; make the index again")
        return cls(manifest, table, vectors)

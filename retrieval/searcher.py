"""An index together with its encoder and its pictures: search with a picture, a box or a hole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from pretext.datasets import open_dataset
from pretext.datasets.base import ImageDataset
from pretext.datasets.fitting import resize
from pretext.datasets.packed import at_size
from pretext.datasets.splitting import split_or_all
from pretext.encoders import load_encoder
from pretext.encoders.base import Encoder
from pretext.system.device import device_of
from pretext.system.errors import UserError, did_you_mean
from retrieval.indexing.blocks import recover
from retrieval.indexing.index import PatchIndex
from retrieval.indexing.manifest import check_encoder
from retrieval.patches import describe_each, with_hole
from retrieval.regions import WHOLE, Box


@dataclass(frozen=True)
class Searchable:
    """An opened index, its data and its encoder."""

    index: PatchIndex
    data: ImageDataset
    """The indexed split, at the index's picture size."""
    encoder: Encoder
    """The encoder that made the index."""

    @classmethod
    def open(
        cls, folder: Path, *, encoder: str | None = None, data: str | None = None, device: str = "auto"
    ) -> Searchable:
        """Open an index, its data set and its encoder.

        Args:
            folder: The index.
            encoder: The encoder's new path, if its file has moved.
            data: The data set's new spec, if it has moved.
            device: Device of the encoder.

        Raises:
            UserError: If a file is missing, or the data set or the encoder has changed.
        """
        recover(Path(folder))
        index = PatchIndex.open(folder)
        manifest = index.manifest
        spec = data or manifest.data
        split = split_or_all(open_dataset(spec), manifest.split)
        pictures = at_size(split, manifest.picture_size, bad_images=manifest.bad_images)
        if pictures.fingerprint != manifest.data_fingerprint:
            raise UserError(
                f"{spec}: its split {manifest.split} differs from the indexed one; "
                "add new pictures with index --add, or make the index again"
            )
        loaded = load_encoder(encoder or manifest.encoder).to(device_of(device))
        check_encoder(manifest, loaded)
        return cls(index, pictures, loaded)

    @property
    def takes_boxes(self) -> bool:
        """Whether a query can be a box of a picture."""
        return self.index.manifest.regions.mode != "contexts"

    @property
    def takes_holes(self) -> bool:
        """Whether a query can be the surroundings of a hole."""
        return self.index.manifest.regions.mode in ("contexts", "images")

    def search(
        self,
        picture: UInt8[Tensor, "3 _ _"],
        box: Box = WHOLE,
        k: int = 10,
        *,
        hidden: bool = False,
        without_image: int | None = None,
        label: str | None = None,
    ) -> tuple[Float32[np.ndarray, " K"], Int64[np.ndarray, " K"]]:
        """Return the cosines of the nearest regions, best first, and their rows in the patch table.

        Args:
            picture: Query picture; of another size than the index's, it is resized, as those of the index were.
            box: Query region, as shares of the picture.
            k: Number of neighbours.
            hidden: Search with the surroundings of the box and hide its pixels. In an index of contexts the window
                around the box is used, in an index of images the whole picture.
            without_image: Exclude the regions of this picture, usually the query's own.
            label: Return regions of this class only; None returns any.

        Raises:
            UserError: If no region has that class, or the index does not support holes.
        """
        cosines, rows = self.search_many([picture], [box], k, hidden=hidden, without_image=without_image, label=label)
        return cosines[0], rows[0]

    def search_many(
        self,
        pictures: Sequence[UInt8[Tensor, "3 _ _"]],
        boxes: Sequence[Box],
        k: int = 10,
        *,
        hidden: bool = False,
        without_image: int | None = None,
        label: str | None = None,
    ) -> tuple[Float32[np.ndarray, "Q K"], Int64[np.ndarray, "Q K"]]:
        """Search with several pictures at once. See `search`.

        An approximate index may find fewer neighbours for one query than for another; all queries then return the
        smallest number.

        Args:
            pictures: Query pictures, at least one; see `search`.
            boxes: One box per picture.
            k: Number of neighbours per query.
            hidden: Hide all boxes.
            without_image: Excluded for all queries.
            label: Required for all queries.
        """
        manifest = self.index.manifest
        class_number = None if label is None else self._class_number(label)
        regions = manifest.regions
        side = manifest.picture_size
        pictures = [
            picture if picture.shape[1:] == (side, side) else resize(picture, {}, side)[0] for picture in pictures
        ]
        if hidden and not self.takes_holes:
            raise UserError(f"this index holds {regions.mode}; a hole needs an index of contexts or images")
        if hidden and regions.mode == "images":  # as whole pictures, like those of the index
            pictures = [with_hole(picture, box) for picture, box in zip(pictures, boxes, strict=True)]
            boxes = [WHOLE] * len(pictures)
        vectors = describe_each(self.encoder, pictures, boxes, regions, stage=manifest.stage)
        return self.index.search(vectors, k, encoder=self.encoder, without_image=without_image, label=class_number)

    def _class_number(self, name: str) -> int:
        classes = self.index.manifest.classes
        labels = np.unique(self.index.table["label"])
        known = [classes[label] for label in labels[labels >= 0]]
        if not known:
            mode = self.index.manifest.regions.mode
            needed = "class labels" if mode == "images" else "boxes or masks, or an index of --mode images"
            raise UserError(f"no region of the index has a class; for {mode}, --label needs data with {needed}")
        if name not in known:
            raise UserError(f"no region of the index has class {name!r}; {did_you_mean(name, known)}")
        return classes.index(name)

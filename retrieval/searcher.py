"""An index with the encoder that made it and the pictures that it was made of: what a question needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from pretext.datasets import open_dataset
from pretext.datasets.base import ImageDataset
from pretext.datasets.packed import at_size
from pretext.datasets.splitting import split_or_all
from pretext.encoders import load_encoder
from pretext.encoders.base import Encoder
from pretext.system.device import device_of
from pretext.system.errors import UserError, did_you_mean
from retrieval.indexing.index import PatchIndex
from retrieval.indexing.manifest import check_encoder
from retrieval.patches import describe_each, with_hole
from retrieval.regions import WHOLE, Box


@dataclass(frozen=True)
class Searchable:
    """An opened index."""

    index: PatchIndex
    data: ImageDataset
    """The split that was indexed, at the index's size."""
    encoder: Encoder

    @classmethod
    def open(
        cls, folder: Path, *, encoder: str | None = None, data: str | None = None, device: str = "auto"
    ) -> Searchable:
        """Open an index, and what it was made with and of.

        Args:
            folder: The index.
            encoder: The encoder that made it, where its file has moved since.
            data: The data set's spec, where it has moved since.
            device: What the encoder runs on.

        Raises:
            UserError: If anything is missing or has changed since.
        """
        index = PatchIndex.open(folder)
        manifest = index.manifest
        spec = data or manifest.data
        split = split_or_all(open_dataset(spec), manifest.split)
        pictures = at_size(split, manifest.picture_size, bad_images=manifest.bad_images)
        if pictures.fingerprint != manifest.data_fingerprint:
            raise UserError(
                f"{spec}: its split {manifest.split} is not the data that was indexed; "
                "index --add takes in what is new, or make the index again"
            )
        loaded = load_encoder(encoder or manifest.encoder).to(device_of(device))
        check_encoder(manifest, loaded)
        return cls(index, pictures, loaded)

    @property
    def takes_boxes(self) -> bool:
        """Whether a part of a picture can be asked with."""
        return self.index.manifest.regions.mode != "contexts"

    @property
    def takes_holes(self) -> bool:
        """Whether the surroundings of a hidden part can be asked with."""
        return self.index.manifest.regions.mode in ("contexts", "images")

    def ask(
        self,
        picture: UInt8[Tensor, "3 S S"],
        box: Box = WHOLE,
        k: int = 10,
        *,
        hidden: bool = False,
        without_image: int | None = None,
        label: str | None = None,
    ) -> tuple[Float32[np.ndarray, " K"], Int64[np.ndarray, " K"]]:
        """Return the cosines of the nearest regions, best first, and their numbers in the patch table.

        Args:
            picture: At the index's size.
            box: What is asked about, in shares of the picture.
            k: Neighbours.
            hidden: Ask with what surrounds the box, never with what is in it: among contexts with a window around it,
                among whole pictures with all of the picture.
            without_image: A picture whose regions are not wanted: the query's own.
            label: The class of the regions that are wanted; any where None.

        Raises:
            UserError: If no region is of that class, or the index takes no holes.
        """
        cosines, rows = self.ask_many([picture], [box], k, hidden=hidden, without_image=without_image, label=label)
        return cosines[0], rows[0]

    def ask_many(
        self,
        pictures: Sequence[UInt8[Tensor, "3 S S"]],
        boxes: Sequence[Box],
        k: int = 10,
        *,
        hidden: bool = False,
        without_image: int | None = None,
        label: str | None = None,
    ) -> tuple[Float32[np.ndarray, "Q K"], Int64[np.ndarray, "Q K"]]:
        """Return what `ask` does for each of several pictures, searched for together.

        Args:
            pictures: At the index's size, at least one.
            boxes: What is asked about, one a picture.
            k: As for `ask`, and so all that follows. An approximate index may find fewer for one than for another; all
                then come back with as few.
            hidden: Of all boxes.
            without_image: For all queries.
            label: For all queries.
        """
        manifest = self.index.manifest
        wanted = None if label is None else self._class(label)
        regions = manifest.regions
        if hidden and not self.takes_holes:
            raise UserError(f"this index holds {regions.mode}; ask what surrounds a hole of one of contexts or images")
        if hidden and regions.mode == "images":  # seen as the index's own are: whole
            pictures = [with_hole(picture, box) for picture, box in zip(pictures, boxes, strict=True)]
            boxes = [WHOLE] * len(pictures)
        vectors = describe_each(self.encoder, pictures, boxes, regions, stage=manifest.stage)
        return self.index.search(vectors, k, encoder=self.encoder, without_image=without_image, label=wanted)

    def _class(self, name: str) -> int:
        classes = self.index.manifest.classes
        here = np.unique(self.index.table["label"])
        known = [classes[label] for label in here[here >= 0]]
        if not known:
            raise UserError("no region of the index has a class: --label needs whole pictures, boxes or masks with one")
        if name not in known:
            raise UserError(f"no region of the index is of a class {name!r}; {did_you_mean(name, known)}")
        return classes.index(name)

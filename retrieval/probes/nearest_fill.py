"""Nearest-neighbour inpainting: fill a hole from the picture whose surroundings are the most alike, by features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from jaxtyping import UInt8
from torch import Tensor

from pretext.datasets.base import ImageDataset
from pretext.encoders.base import Encoder
from pretext.inpainting.measuring import HoledPictures, drawn_pictures, scores_of
from pretext.judging import Probe, Score
from pretext.system.errors import UserError
from pretext.training.sample_sheets import sample_sheet
from retrieval.filling import by_hog, by_stages, fill_from, nearest_rows

SHOWN = 8
"""Test pictures on the sheet."""


@dataclass(frozen=True)
class NearestFill(Probe):
    """PSNR inside the central hole, filled from the training picture whose surroundings are nearest by cosine.

    The stage is the one whose fills of the validation split are the best. What HOG finds among the same pictures is on
    the sheet, and in `python -m retrieval inpaint`.

    Source: see `retrieval.filling`.
    """

    database: int = 2000
    """Training pictures to fill from, at most, drawn by the seed."""
    test_images: int = 500
    """Pictures of the test split, and of the validation split, that are filled, at most; 0 takes all."""
    blended: bool = True
    """Blend what is filled in with its surroundings."""

    needs: ClassVar[tuple[frozenset[str], ...]] = (frozenset(),)

    def __post_init__(self) -> None:
        for name, least in (("database", 1), ("test_images", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed is {least} or more")

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Yield PSNR (the headline), L1, L2 and SSIM in the hole. Writes `nearest_fill.png`. See `Probe.evaluate`."""
        database = self._drawn(encoder, data, "train", self.database)
        vectors = by_stages(encoder, database)
        found = {
            split: self._filled(encoder, self._drawn(encoder, data, split, self.test_images), database, vectors)
            for split in ("val", "test")
        }
        quality = {stage: _psnr(scores_of(fills, found["val"][0])) for stage, fills in found["val"][1].items()}
        chosen = max(quality, key=lambda stage: quality[stage])
        pictures, fills = found["test"]
        for stage, filled in fills.items():
            for score in scores_of(filled, pictures):
                yield replace(score, stage=stage, headline=score.headline and stage == chosen)
        if out is not None:
            few = HoledPictures(pictures.images[:SHOWN], pictures.holes[:SHOWN])
            by_gradients = database.images[nearest_rows(by_hog(few), by_hog(database))]
            columns = {
                "input": few.shown().float() / 255,
                "by HOG": fill_from(few, by_gradients, blended=self.blended),
                f"by {chosen}": fills[chosen][:SHOWN],
                "original": few.images.float() / 255,
            }
            sample_sheet(columns, out / "nearest_fill.png")

    def _drawn(self, encoder: Encoder, data: ImageDataset, split: str, count: int) -> HoledPictures:
        most = count or len(data.split(split))
        if not most:
            raise UserError(f"{data.spec}: its split {split} is empty; give more data")
        return drawn_pictures(
            data, split=split, image_size=encoder.input_size, test_images=most, seed=self.seed, hole="central"
        )

    def _filled(
        self, encoder: Encoder, pictures: HoledPictures, database: HoledPictures, vectors: dict[str, Tensor]
    ) -> tuple[HoledPictures, dict[str, Tensor]]:
        """Return pictures, and their fills by stage."""
        return pictures, {
            stage: fill_from(pictures, _of(database.images, queries, vectors[stage]), blended=self.blended)
            for stage, queries in by_stages(encoder, pictures).items()
        }


def _of(images: UInt8[Tensor, "N 3 S S"], queries: Tensor, vectors: Tensor) -> UInt8[Tensor, "Q 3 S S"]:
    return images[nearest_rows(queries, vectors)]


def _psnr(scores: list[Score]) -> float:
    return next(score.value for score in scores if score.headline)

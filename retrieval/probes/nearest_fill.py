"""Nearest-neighbour inpainting: fill a hole from the picture whose surroundings have the most similar features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from pretext.datasets.base import ImageDataset
from pretext.encoders.base import Encoder
from pretext.inpainting.measuring import HoledPictures, drawn_pictures, scores_of
from pretext.judging import Probe, Score
from pretext.system.errors import UserError
from pretext.system.ranges import check_range
from pretext.training.sample_sheets import sample_sheet
from retrieval.filling import by_hog, by_stages, fill_from_nearest

SHOWN = 8
"""Number of test pictures on the sheet."""


@dataclass(frozen=True)
class NearestFill(Probe):
    """PSNR inside the central hole, filled from the training picture with the nearest surroundings by cosine.

    The stage with the highest PSNR on the validation split is the headline. The sheet and `python -m retrieval inpaint`
    also show fills by HOG from the same pictures.

    Source: see `retrieval.filling`.
    """

    database: int = 2000
    """Maximum number of training pictures to fill from."""
    test_images: int = 500
    """Maximum number of pictures that are filled, each of the test and validation split; 0 fills all."""
    blended: bool = True
    """Blend the filled pixels with their surroundings."""

    title: ClassVar[str] = "Nearest fill"
    needs: ClassVar[tuple[frozenset[str], ...]] = (frozenset(),)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "database", least=1)
        check_range(self, "test_images", least=0)

    def evaluate(self, encoder: Encoder, data: ImageDataset, out: Path | None = None) -> Iterator[Score]:
        """Yield PSNR (the headline), L1, L2 and SSIM in the hole. Writes `nearest_fill.png`. See `Probe.evaluate`."""
        database = self._draw(encoder, data, "train", self.database)
        vectors = by_stages(encoder, database)
        filled_splits = {
            split: self._fill(encoder, self._draw(encoder, data, split, self.test_images), database, vectors)
            for split in ("val", "test")
        }
        pictures, fills = filled_splits["val"]
        val_psnr = {stage: _psnr(scores_of(filled, pictures)) for stage, filled in fills.items()}
        chosen = max(val_psnr, key=lambda stage: val_psnr[stage])
        pictures, fills = filled_splits["test"]
        for stage, filled in fills.items():
            for score in scores_of(filled, pictures):
                yield replace(score, stage=stage, headline=score.headline and stage == chosen)
        if out is not None:
            few = HoledPictures(pictures.images[:SHOWN], pictures.holes[:SHOWN])
            columns = {
                "input": few.shown().float() / 255,
                "by HOG": fill_from_nearest(few, database.images, by_hog(few), by_hog(database), blended=self.blended),
                f"by {chosen}": fills[chosen][:SHOWN],
                "original": few.images.float() / 255,
            }
            sample_sheet(columns, out / "nearest_fill.png")

    def _draw(self, encoder: Encoder, data: ImageDataset, split: str, count: int) -> HoledPictures:
        limit = count or len(data.split(split))
        if not limit:
            raise UserError(f"{data.spec}: split {split} is empty; give more data")
        return drawn_pictures(
            data, split=split, image_size=encoder.input_size, test_images=limit, seed=self.seed, hole="central"
        )

    def _fill(
        self, encoder: Encoder, pictures: HoledPictures, database: HoledPictures, vectors: dict[str, Tensor]
    ) -> tuple[HoledPictures, dict[str, Tensor]]:
        """Return the pictures, and their fills by stage."""
        return pictures, {
            stage: fill_from_nearest(pictures, database.images, queries, vectors[stage], blended=self.blended)
            for stage, queries in by_stages(encoder, pictures).items()
        }


def _psnr(scores: list[Score]) -> float:
    return next(score.value for score in scores if score.headline)

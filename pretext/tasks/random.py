"""Random: weights as drawn, the baseline of all rows (Krähenbühl et al. 2016).

Nothing is learned. Batch normalisation takes its statistics from a few images, without labels, as every trained
encoder's has. Without that, part of every gain over random weights would be that of known statistics; the paper's
encoders have no batch normalisation, and the baseline of Krähenbühl, Doersch, Donahue and Darrell, ICLR 2016, arXiv
1511.06856, goes further: see `data_dependent`, which rescales the weights too. `random:untouched` keeps the statistics
of a new network, mean 0 and variance 1. Published, AlexNet without batch normalisation: VOC 2007 classification 53.3
and detection 43.4, VOC 2012 segmentation 19.8 (Pathak et al. 2016, arXiv 1604.07379, table 2).

Deviations: the statistics are those of the whole sample, set layer by layer, where training averages over batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from pretext.encoders.base import Encoder
from pretext.modules.initialisation import calibrate
from pretext.tasks.base import Batch, Fitted


@final
class Random(Fitted):
    """Leave the encoder's weights as they are, and take the statistics of batch normalisation from `images` images."""

    @dataclass(frozen=True)
    class Config:
        """The images."""

        images: int = 256
        """Number of training images for the statistics; 0 leaves the encoder untouched."""

        def __post_init__(self) -> None:
            if not (self.images == 0 or 2 <= self.images <= 1_000_000):
                raise ValueError(f"images is {self.images}; allowed is 0, or from 2 to 1000000")

    variants: ClassVar[Mapping[str, Any]] = {"untouched": Config(images=0)}
    variant_help: ClassVar[Mapping[str, str]] = {"untouched": "batch normalisation has seen no image"}
    titles: ClassVar[Mapping[str, str]] = {"": "Random weights", "untouched": "Random weights (uncalibrated)"}

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.prepares_on = config.images

    def prepare(self, batch: Batch) -> None:
        """Set the running statistics of every batch normalisation."""
        calibrate(self.encoder, batch.images)

"""Data-dependent: rescale random weights to the data (Krähenbühl et al. 2016).

Krähenbühl, Doersch, Donahue and Darrell, Data-dependent Initializations of Convolutional Neural Networks, ICLR
2016, arXiv 1511.06856. Algorithm 1 gives every channel mean 0 and variance 1 over the pictures, layer by layer;
algorithm 2 then scales whole layers until all weights would change at one rate in training. It is the baseline that
a pretext task must beat before it can be said to have learned more than the scale of its data. Published: see
`kmeans`, which the same paper found to be the best start for it.

Deviations: the weights rescaled are the encoder's own random ones (any Gaussian gives the same, up to batch
normalisation's scale, which is set to 1); batch normalisation, which the paper's networks have none of, takes its
running statistics from the same pictures; for the rest see
`pretext.modules.initialisation`. The authors' code says that
algorithm 2 is meant for chains of layers; where branches meet without normalisation it is approximate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from pretext.encoders.base import Encoder
from pretext.modules.initialisation import Sample, balance, scales_with_its_weights, standardise
from pretext.tasks.base import Batch, Fitted


@final
class DataDependent(Fitted):
    """See the module."""

    @dataclass(frozen=True)
    class Config(Sample):
        """The pictures, and how often layers are held against each other."""

        passes: int = 10
        """Corrections between layers (algorithm 2); 0 leaves them out, and every channel at variance 1."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 <= self.passes <= 1000:
                raise ValueError(f"passes is {self.passes}; allowed is from 0 to 1000")

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        if config.passes and not scales_with_its_weights(encoder):
            raise ValueError(
                f"{encoder.spec} normalises by layer or attends, where scales of layers mean nothing; give passes=0"
            )
        self.config, self.prepares_on = config, config.images

    def prepare(self, batch: Batch) -> None:
        """Rescale within layers, then between them."""
        order = standardise(self.encoder, batch.images, centre=self.config.centre)
        balance(self.encoder, order, batch.images, batch.generator, passes=self.config.passes)

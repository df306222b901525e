"""Data-dependent: rescale random weights to the data (Krähenbühl et al. 2016).

Krähenbühl, Doersch, Donahue and Darrell, Data-dependent Initializations of Convolutional Neural Networks, ICLR
2016, arXiv 1511.06856. Algorithm 1 gives every channel mean 0 and variance 1 over the images, layer by layer.
Algorithm 2 then scales whole layers until all weights would change at the same rate in training. Nothing is learned:
a pretext task that does not beat this baseline has learned no more than the scale of its data. Published: see
`kmeans`, which the same paper found to be the best start for it.

Deviations: the encoder's own random weights are rescaled (any Gaussian gives the same result, up to the scale of
batch normalisation, which is set to 1); batch normalisation, which the paper's networks lack, takes its running
statistics from the same images; see also `pretext.modules.initialisation`. According to the authors' code,
algorithm 2 is meant for chains of layers; where branches join without normalisation it is approximate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from pretext.encoders.base import Encoder
from pretext.modules.initialisation import Sample, balance, scales_with_its_weights, standardise
from pretext.system.ranges import check_range
from pretext.tasks.base import Batch, Fitted


@final
class DataDependent(Fitted):
    """Rescale the encoder's weights on `images` training images."""

    @dataclass(frozen=True)
    class Config(Sample):
        """The images, and the number of corrections between layers."""

        passes: int = 10
        """Corrections between layers (algorithm 2); 0 skips them and leaves every channel at variance 1."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_range(self, "passes", least=0, most=1000)

    titles: ClassVar[Mapping[str, str]] = {"": "Rescaled random weights"}

    def __init__(self, encoder: Encoder, config: Config) -> None:
        """Check that the encoder can be rescaled.

        Raises:
            ValueError: If algorithm 2 does not apply to the encoder's layers and `passes` is not 0.
        """
        super().__init__(encoder)
        if config.passes and not scales_with_its_weights(encoder):
            raise ValueError(
                f"{encoder.spec} has layer or group normalisation or attention, where a layer's scale has no effect; "
                "give passes=0"
            )
        self.config, self.prepares_on = config, config.images

    def prepare(self, batch: Batch) -> None:
        """Rescale within layers (algorithm 1), then between layers (algorithm 2)."""
        order = standardise(self.encoder, batch.images, centre=self.config.centre)
        balance(self.encoder, order, batch.images, batch.generator, passes=self.config.passes)

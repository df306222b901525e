"""Predict some channels of an image from an encoder's map of the other channels: bins, head and loss.

Source: Zhang, Isola and Efros 2016, arXiv 1603.08511, section 2; Zhang, Isola and Efros 2017, arXiv 1611.09842.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pretext.encoders.base import Encoder, deepest_shape
from pretext.system.distributed import gather
from pretext.system.ranges import check_range
from pretext.transforms.augmentation import Augmentation, cropping

NEIGHBOURS = 5
"""Number of nearest bins in the soft encoding of a value."""
FINEST = 8
"""Largest upsampling factor of the pixel shuffle; bilinear interpolation does the rest."""


@dataclass(frozen=True)
class Prediction:
    """Settings of the prediction, its loss and the crops."""

    loss: Literal["classification", "regression"] = "classification"
    """Loss: classification (cross-entropy over bins) or regression (squared error)."""
    uniform: float = 0.5
    """Class rebalancing λ: fraction of the uniform distribution mixed into the prior; 1 weights all bins equally."""
    temperature: float = 0.38
    """Temperature of the annealed mean that turns a prediction into a colour: 1 gives the mean, near 0 the mode."""
    cell: int = 4
    """Side of the predicted cells in pixels."""
    hidden: int = 64
    """Channels of the prediction head."""
    crop: float = 0.766
    """Area of the random square crops, as a fraction of the image area."""
    flip: float = 0.5
    """Probability of a horizontal flip."""

    def __post_init__(self) -> None:
        check_range(self, "uniform", "temperature", "crop", least=0.01, most=1)
        check_range(self, "flip", least=0, most=1)
        check_range(self, "cell", least=1, most=1024, unit="pixels")
        check_range(self, "hidden", least=1, most=4096)

    def crops(self) -> Augmentation:
        """Return the settings of the views: square crops and flips, without colour changes."""
        return cropping(self.crop, self.crop, aspect=1.0, flip=self.flip)

    def cells(self, encoder: Encoder) -> int:
        """Return the number of cells along a side of the encoder's input.

        Raises:
            ValueError: If a cell is larger than the input.
        """
        if self.cell > encoder.input_size:
            raise ValueError(f"cell is {self.cell}; allowed is up to the image side of {encoder.input_size} px")
        return encoder.input_size // self.cell


class Bins(nn.Module):
    """Quantisation of values into bins, with the empirical prior of each bin.

    Attributes:
        centres: The bin centres, Q×D.
        prior: Frequency of each bin: the running mean over all batches of all processes. No pass over the data is
            needed before training. Saved in checkpoints.
        batches: Number of batches in `prior`.
    """

    centres: Tensor
    prior: Tensor
    batches: Tensor

    def __init__(self, centres: Float[Tensor, "Q D"], *, sigma: float, uniform: float) -> None:
        """Build the bins with a uniform prior.

        Args:
            centres: The bin centres.
            sigma: Standard deviation of the Gaussian of the soft encoding and of the smoothing of the prior.
            uniform: λ in `weights`, from 0 to 1.
        """
        super().__init__()
        self.sigma, self.uniform = sigma, uniform
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("prior", torch.full((len(centres),), 1 / len(centres)))
        self.register_buffer("batches", torch.zeros(()))

    def encode(self, values: Float[Tensor, "N D"]) -> tuple[Int[Tensor, "N K"], Float[Tensor, "N K"]]:
        """Return the indices of each value's K nearest bins, nearest first, and its soft assignment to them.

        Assignments are proportional to a Gaussian of the distance and sum to 1. The term |v|² cancels in the softmax,
        so one matrix product suffices.
        """
        with torch.autocast(values.device.type, enabled=False):
            nearness = values @ self.centres.T - 0.5 * self.centres.square().sum(dim=1)
        best = nearness.topk(min(NEIGHBOURS, len(self.centres)), dim=1)
        return best.indices, (best.values / self.sigma**2).softmax(dim=1)

    def update_prior(self, nearest: Int[Tensor, "N"]) -> None:
        """Add a batch to the prior, given the nearest bin of each value."""
        counts = torch.zeros_like(self.prior).index_add_(0, nearest, torch.ones_like(nearest, dtype=self.prior.dtype))
        counts = gather(counts[None]).sum(dim=0)
        self.batches += 1
        self.prior += (counts / counts.sum() - self.prior) / self.batches

    def weights(self) -> Float[Tensor, "Q"]:
        """Return the loss weight of each bin: larger for rare bins, with mean 1 under the smoothed prior.

        Source: Zhang et al. 2016, equation 4.
        """
        squared_distance = (self.centres[:, None] - self.centres).square().sum(dim=2)
        kernel = (-squared_distance / (2 * self.sigma**2)).exp()
        smooth = (kernel / kernel.sum(dim=0)) @ self.prior  # columns sum to 1, so the total stays 1
        weights = 1 / ((1 - self.uniform) * smooth + self.uniform / len(smooth))
        return weights / (smooth * weights).sum()

    def cross_entropy(self, logits: Float[Tensor, "N Q"], values: Float[Tensor, "N D"]) -> Float[Tensor, "N"]:
        """Return the weighted cross-entropy of each value; in training mode, first add the values to the prior.

        Source: Zhang et al. 2016, equations 2 and 3.
        """
        logits = logits.float()
        nearest, targets = self.encode(values)
        if self.training:
            self.update_prior(nearest[:, 0])
        loss = logits.logsumexp(dim=1) - (targets * logits.gather(1, nearest)).sum(dim=1)
        return self.weights()[nearest[:, 0]] * loss

    def annealed_mean(self, logits: Float[Tensor, "N Q"], temperature: float) -> Float[Tensor, "N D"]:
        """Return the mean of the bin centres under the softmax of `logits / temperature`.

        Source: Zhang et al. 2016, equation 5.
        """
        with torch.autocast(logits.device.type, enabled=False):
            return (logits.float() / temperature).softmax(dim=1) @ self.centres


class Predictor(nn.Module):
    """A head that predicts a fine grid of values from the deepest map, or from half of its channels.

    A 1×1 convolution and a pixel shuffle expand every map cell into a block of finer cells. A 3×3 convolution smooths
    the block borders. A linear layer predicts each cell.
    """

    def __init__(
        self, encoder: Encoder, channels: int, centres: Float[Tensor, "Q D"], *, sigma: float, settings: Prediction
    ) -> None:
        """Build the head.

        Args:
            encoder: Determines the size of the deepest map.
            channels: Input channels: all or half of the deepest map's.
            centres: The bin centres; their range also scales the values in regression.
            sigma: See `Bins`.
            settings: The settings of the prediction.
        """
        super().__init__()
        self.settings, self.cells = settings, settings.cells(encoder)
        factor = min(FINEST, math.ceil(self.cells / deepest_shape(encoder)[1]))
        hidden = settings.hidden
        self.widen = nn.Conv2d(channels, hidden * factor**2, 1, bias=False)
        self.blend = nn.Sequential(
            nn.PixelShuffle(factor),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
        )
        self.bins = Bins(centres, sigma=sigma, uniform=settings.uniform)
        self.middle = float(centres.amax() + centres.amin()) / 2
        self.half_range = float(centres.amax() - centres.amin()) / 2
        self.answer = nn.Linear(hidden, len(centres) if settings.loss == "classification" else centres.shape[1])

    def loss(self, deepest: Float[Tensor, "B C H W"], channels: Float[Tensor, "B D S S"]) -> Float[Tensor, ""]:
        """Return the mean loss over all cells.

        Args:
            deepest: The input map.
            channels: The target channels at image resolution; each cell's target is its mean.
        """
        cells = F.adaptive_avg_pool2d(channels, self.cells)
        values = cells.movedim(1, -1).flatten(0, 2)
        outputs = self._outputs(deepest)
        if self.settings.loss == "classification":
            return self.bins.cross_entropy(outputs, values).mean()
        return 0.5 * (outputs.float() - (values - self.middle) / self.half_range).square().sum(dim=1).mean()

    def predict(self, deepest: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B D S S"]:
        """Return the predicted channels, resized to `size` pixels a side."""
        outputs = self._outputs(deepest)
        if self.settings.loss == "classification":
            values = self.bins.annealed_mean(outputs, self.settings.temperature)
        else:
            values = outputs.float() * self.half_range + self.middle
        cells = values.view(len(deepest), self.cells, self.cells, -1).movedim(-1, 1)
        return F.interpolate(cells, size=(size, size), mode="bilinear", align_corners=False)

    def _outputs(self, deepest: Float[Tensor, "B C H W"]) -> Float[Tensor, "N Q"]:
        """Return the outputs of the linear layer for all cells of all images."""
        finer = self.blend(self.widen(deepest))
        if finer.shape[-1] != self.cells:
            finer = F.interpolate(finer, size=(self.cells, self.cells), mode="bilinear", align_corners=False)
        return self.answer(finer.movedim(1, -1).flatten(0, 2))

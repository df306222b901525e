"""Predicting some channels of a picture from an encoder's map of the others: bins, head and loss.

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
from pretext.transforms.augmentation import Augmentation, cropping

NEIGHBOURS = 5
"""Bins that a value is shared between."""
FINEST = 8
"""Cells a side that one of the encoder's map is made into; what is still missing is interpolated."""


@dataclass(frozen=True)
class Prediction:
    """What is predicted, how finely, and how pictures are cropped before."""

    loss: Literal["classification", "regression"] = "classification"
    """Cross-entropy over bins, or the squared error."""
    uniform: float = 0.5
    """λ: share of the uniform distribution in what rare bins are weighted up by; 1 weights all bins alike."""
    temperature: float = 0.38
    """Of the annealed mean that a prediction is drawn as: 1 is the mean, towards 0 the mode."""
    cell: int = 4
    """Side in pixels of the cells that are predicted."""
    hidden: int = 64
    """Channels of the head's finest map."""
    crop: float = 0.766
    """Share of the area that a random square crop shows."""
    flip: float = 0.5
    """Probability of mirroring left and right."""

    def __post_init__(self) -> None:
        for name, least in (("uniform", 0.01), ("temperature", 0.01), ("crop", 0.01), ("flip", 0.0)):
            if not least <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed is from {least} to 1")
        if not 1 <= self.cell <= 1024:
            raise ValueError(f"cell is {self.cell}; allowed is from 1 to 1024 pixels")
        if not 1 <= self.hidden <= 4096:
            raise ValueError(f"hidden is {self.hidden}; allowed is from 1 to 4096")

    def crops(self) -> Augmentation:
        """Return the views: cropped and mirrored, their colours as they are."""
        return cropping(self.crop, self.crop, aspect=1.0, flip=self.flip)

    def cells(self, encoder: Encoder) -> int:
        """Return how many cells a side of the encoder's pictures has.

        Raises:
            ValueError: If not even one fits.
        """
        if self.cell > encoder.input_size:
            raise ValueError(f"cell is {self.cell}, allowed is up to the picture's {encoder.input_size} px")
        return encoder.input_size // self.cell


class Bins(nn.Module):
    """Points that values are sorted into, and how often each has been met.

    The first is `prior`, a running mean over all batches of all processes, so that no pass over the data comes
    before training; it is kept in checkpoints.
    """

    centres: Tensor
    prior: Tensor
    batches: Tensor

    def __init__(self, centres: Float[Tensor, "Q D"], *, sigma: float, uniform: float) -> None:
        """Build them.

        Args:
            centres: The points.
            sigma: Width of the Gaussian that shares a value between its neighbours, and smooths the prior.
            uniform: λ of `weights`.
        """
        super().__init__()
        self.sigma, self.uniform = sigma, uniform
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("prior", torch.full((len(centres),), 1 / len(centres)))
        self.register_buffer("batches", torch.zeros(()))

    def encode(self, values: Float[Tensor, "N D"]) -> tuple[Int[Tensor, "N K"], Float[Tensor, "N K"]]:
        """Return each value's nearest bins, the nearest first, and its share of each.

        Shares are as a Gaussian of the distance, and sum to 1. As |v|² drops out, a product is all it takes.
        """
        with torch.autocast(values.device.type, enabled=False):
            nearness = values @ self.centres.T - 0.5 * self.centres.square().sum(dim=1)
        best = nearness.topk(min(NEIGHBOURS, len(self.centres)), dim=1)
        return best.indices, (best.values / self.sigma**2).softmax(dim=1)

    def note(self, nearest: Int[Tensor, "N"]) -> None:
        """Count a batch's values, one bin each, into the prior."""
        counts = torch.zeros_like(self.prior).index_add_(0, nearest, torch.ones_like(nearest, dtype=self.prior.dtype))
        counts = gather(counts[None]).sum(dim=0)
        self.batches += 1
        self.prior += (counts / counts.sum() - self.prior) / self.batches

    def weights(self) -> Float[Tensor, "Q"]:
        """Return what each bin's loss is multiplied by: more for rare ones, 1 in the mean over the smoothed prior.

        Source: Zhang et al. 2016, equation 4.
        """
        apart = (self.centres[:, None] - self.centres).square().sum(dim=2)
        kernel = (-apart / (2 * self.sigma**2)).exp()
        smooth = (kernel / kernel.sum(dim=0)) @ self.prior  # each bin's share is spread, none of it is lost
        weights = 1 / ((1 - self.uniform) * smooth + self.uniform / len(smooth))
        return weights / (smooth * weights).sum()

    def cross_entropy(self, logits: Float[Tensor, "N Q"], values: Float[Tensor, "N D"]) -> Float[Tensor, "N"]:
        """Return each value's loss; while training, count the values first.

        Source: Zhang et al. 2016, equations 2 and 3.
        """
        logits = logits.float()
        nearest, shares = self.encode(values)
        if self.training:
            self.note(nearest[:, 0])
        error = logits.logsumexp(dim=1) - (shares * logits.gather(1, nearest)).sum(dim=1)
        return self.weights()[nearest[:, 0]] * error

    def annealed_mean(self, logits: Float[Tensor, "N Q"], temperature: float) -> Float[Tensor, "N D"]:
        """Return the mean of the centres under the distribution, sharpened by a temperature below 1.

        Source: Zhang et al. 2016, equation 5.
        """
        with torch.autocast(logits.device.type, enabled=False):
            return (logits.float() / temperature).softmax(dim=1) @ self.centres


class Predictor(nn.Module):
    """From a deepest map, or a half of it, to a finer grid of values.

    A 1×1 convolution gives every cell of the map its block of finer cells, a 3×3 one smooths over their seams, and
    a linear layer answers for each.
    """

    def __init__(
        self, encoder: Encoder, channels: int, centres: Float[Tensor, "Q D"], *, sigma: float, settings: Prediction
    ) -> None:
        """Build it.

        Args:
            encoder: Its deepest map's size counts.
            channels: Of that map, as many are given.
            centres: The bins; their reach is also what a regressed value is measured in.
            sigma: See `Bins`.
            settings: How to predict.
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
        self.reach = float(centres.amax() - centres.amin()) / 2
        self.answer = nn.Linear(hidden, len(centres) if settings.loss == "classification" else centres.shape[1])

    def loss(self, deepest: Float[Tensor, "B C H W"], channels: Float[Tensor, "B D S S"]) -> Float[Tensor, ""]:
        """Return the mean error over all cells.

        Args:
            deepest: The map.
            channels: What is to be predicted, at the pictures' own size; a cell's value is its mean.
        """
        cells = F.adaptive_avg_pool2d(channels, self.cells)
        values = cells.movedim(1, -1).flatten(0, 2)
        answers = self._answers(deepest)
        if self.settings.loss == "classification":
            return self.bins.cross_entropy(answers, values).mean()
        return 0.5 * (answers.float() - (values - self.middle) / self.reach).square().sum(dim=1).mean()

    def predicted(self, deepest: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B D S S"]:
        """Return the predicted channels, brought to `size` pixels."""
        answers = self._answers(deepest)
        if self.settings.loss == "classification":
            values = self.bins.annealed_mean(answers, self.settings.temperature)
        else:
            values = answers.float() * self.reach + self.middle
        cells = values.view(len(deepest), self.cells, self.cells, -1).movedim(-1, 1)
        return F.interpolate(cells, size=(size, size), mode="bilinear", align_corners=False)

    def _answers(self, deepest: Float[Tensor, "B C H W"]) -> Float[Tensor, "N Q"]:
        finer = self.blend(self.widen(deepest))
        if finer.shape[-1] != self.cells:
            finer = F.interpolate(finer, size=(self.cells, self.cells), mode="bilinear", align_corners=False)
        return self.answer(finer.movedim(1, -1).flatten(0, 2))

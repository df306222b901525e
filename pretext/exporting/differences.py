"""How far the outputs of a reloaded file are from the encoder's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TOLERANCE = 1e-5
"""Largest difference that is allowed, as a share of the largest value of the same output."""


@dataclass(frozen=True)
class Difference:
    """Difference between two outputs, or the largest of several."""

    largest: float
    """Largest absolute difference."""
    share: float
    """Largest difference as a share of the largest value of its output."""

    @classmethod
    def between(cls, found: Tensor, expected: Tensor) -> Difference:
        """Return the difference between two tensors of one shape; NaN if either has NaN or infinity."""
        largest = float((found - expected).abs().max()) if found.numel() else 0.0
        scale = float(expected.abs().max()) if found.numel() else 0.0
        return cls(largest, largest / scale if scale else (0.0 if largest == 0 else float("inf")))

    @property
    def accepted(self) -> bool:
        """Whether both are one within rounding; not if anything is not a number."""
        return self.share <= TOLERANCE

    def or_larger(self, other: Difference) -> Difference:
        """Return the larger values of both; NaN stays."""
        pairs = ((self.largest, other.largest), (self.share, other.share))
        return Difference(*(float(torch.tensor(pair, dtype=torch.float64).max()) for pair in pairs))

    def __str__(self) -> str:
        """Return both values, for people."""
        return f"largest difference {self.largest:.2g} ({self.share:.2g} of the largest value)"


NONE = Difference(0.0, 0.0)

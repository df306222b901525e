"""Helpers for tests of tile tasks: textures, and a simulated lens that shifts one colour channel."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from task_samples import built

SIZE = 64
MAGNIFY = 0.04
"""Relative magnification of one colour channel by the simulated lens."""


def tiled(spec):
    return built(spec, "alexnet?width=0.125&stem_stride=2", SIZE)


def texture(count, sigma):
    """Return grey pictures around 128: Gaussian noise smoothed with standard deviation `sigma` in pixels."""
    rough = np.random.default_rng(0).normal(size=(count, SIZE, SIZE))
    smooth = gaussian_filter(rough, (0, sigma, sigma), mode="wrap")
    return 128 + 30 * smooth / smooth.std()


def coloured(red, green, blue):
    values = np.stack([red, green, blue], axis=1).round().clip(0, 255)
    return torch.from_numpy(values.astype(np.uint8))


def magnified(grey):
    centre = (SIZE - 1) / 2
    at = centre + (np.arange(SIZE) - centre) * (1 + MAGNIFY)
    rows, columns = np.meshgrid(at, at, indexing="ij")
    return np.stack([map_coordinates(g, [rows, columns], order=3, mode="reflect") for g in grey])


def shifts(moved, still):
    """Return the shift of each tile of one channel against the other, down and right: B×T×2."""
    slopes = np.stack(np.gradient(still, axis=(2, 3)), axis=-1).reshape(*still.shape[:2], -1, 2)
    difference = (moved - still).reshape(*still.shape[:2], -1)
    gram = np.einsum("btpi,btpj->btij", slopes, slopes) + 1e-9 * np.eye(2)
    return np.linalg.solve(gram, np.einsum("btpi,btp->bti", slopes, difference)[..., None])[..., 0]

"""The cosine that learning rates, momenta and other schedules share."""

from __future__ import annotations

import math


def cosine(done: float, total: float = 1.0) -> float:
    """Return 0.5 · (1 + cos(π · done / total)): 1 at the start, 0.5 halfway, 0 at the end.

    Source: Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5, without restarts.

    Args:
        done: The finished part, 0 to `total`: steps, or the share of the run.
        total: The whole. Give steps as `cosine(step, steps)`: dividing first would round the argument differently.
    """
    return 0.5 * (1 + math.cos(math.pi * done / total))

"""An independent implementation of Smyth's estimator, for the tests of intervals and verdicts."""

from __future__ import annotations

import math

from scipy import optimize, special


def smyth(squares, own):
    """Return s0² and d0 by Smyth (2004), section 6.2, for mean squares with `own` degrees of freedom each."""
    logs = [math.log(square) - special.digamma(own / 2) + math.log(own / 2) for square in squares]
    mean = sum(logs) / len(logs)
    excess = sum((log - mean) ** 2 for log in logs) / (len(logs) - 1) - special.polygamma(1, own / 2)
    if excess <= 0:
        return math.exp(mean), math.inf
    d0 = 2 * optimize.brentq(lambda half: special.polygamma(1, half) - excess, 1e-6, 1e9, xtol=1e-12)
    return math.exp(mean + special.digamma(d0 / 2) - math.log(d0 / 2)), d0

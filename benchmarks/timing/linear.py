"""How long the linear probe's solver takes, beside scikit-learn's LogisticRegression."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Iterator

import torch

LINEAR = (10_000, 4096)
"""Rows and columns of the features."""


@dataclasses.dataclass(frozen=True)
class LinearSpeed:
    """One penalty's figures, of the linear probe's solver and scikit-learn's: seconds, objective, test top-1 in %."""

    penalty: float
    ours: float
    theirs: float
    our_objective: float
    their_objective: float
    our_top1: float
    their_top1: float


def linear_speeds(rows: int, columns: int, *, classes: int = 20) -> Iterator[LinearSpeed]:
    """Yield the times of both solvers for each of the linear probe's penalties, in turn and from zero.

    The objective is the same, limit and tolerance are each one's own: how low each came stands beside. The features
    are standardised float32: three clusters a class, in directions whose variances fall like those of an encoder's
    (the k-th has 1/k), and noise in all others.

    Args:
        rows: Pictures to learn from; a fifth as many are tested on.
        columns: Features.
        classes: How many.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    from downstream.probes.linear import Linear, minimise, objective

    generator = torch.Generator().manual_seed(0)
    cluster = torch.randint(3 * classes, (rows + rows // 5,), generator=generator)
    rank = min(512, columns)
    places = 0.3 * torch.randn(3 * classes, rank, generator=generator)[cluster]
    hidden = places + torch.randn(len(cluster), rank, generator=generator)
    hidden = hidden / torch.arange(1, rank + 1).sqrt()
    features = hidden @ torch.randn(rank, columns, generator=generator)
    features += 0.3 * torch.randn(features.shape, generator=generator)
    features = (features - features[:rows].mean(0)) / features[:rows].std(0)
    inputs, held_out = features[:rows], features[rows:]
    targets, truth = torch.split(cluster % classes, [rows, len(cluster) - rows])
    for penalty in Linear().penalties:
        nothing = torch.zeros(classes, columns), torch.zeros(classes)
        started = time.perf_counter()
        weight, bias = minimise(inputs, targets, *nothing, penalty=penalty, iterations=Linear().iterations)
        ours = time.perf_counter() - started
        model = LogisticRegression(C=1 / (rows * penalty))
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 100 iterations at most, as it comes
            model.fit(inputs.numpy(), targets.numpy())
        theirs = time.perf_counter() - started
        solutions = [(weight, bias), (torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_))]
        reached = [objective(inputs @ w.T + b, targets, w, penalty).item() for w, b in solutions]
        right = [((held_out @ w.T + b).argmax(1) == truth).double().mean().item() for w, b in solutions]
        yield LinearSpeed(penalty, ours, theirs, *reached, *(100 * share for share in right))


def print_linear() -> None:
    """Time every penalty, and print a line for each."""
    rows, columns = LINEAR
    print(f"{torch.get_num_threads()} thread(s), PyTorch {torch.__version__}; {rows:,} × {columns:,} features\n")
    print(
        f"{'penalty':>8} {'linear s':>9} {'scikit-learn s':>15} {'ratio':>6} "
        f"{'objective':>10} {'theirs':>10} {'top-1 %':>8} {'theirs':>7}"
    )
    ours = theirs = 0.0
    for row in linear_speeds(rows, columns):
        ours, theirs = ours + row.ours, theirs + row.theirs
        print(
            f"{row.penalty:>8g} {row.ours:>9.2f} {row.theirs:>15.2f} {row.theirs / row.ours:>6.1f} "
            f"{row.our_objective:>10.5f} {row.their_objective:>10.5f} {row.our_top1:>8.1f} {row.their_top1:>7.1f}",
            flush=True,
        )
    print(f"{'all':>8} {ours:>9.2f} {theirs:>15.2f} {theirs / ours:>6.1f}")

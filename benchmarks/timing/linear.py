"""Time the solver of the linear probe beside scikit-learn's LogisticRegression."""

from __future__ import annotations

import dataclasses
import functools
import time
import warnings
from collections.abc import Iterator

import torch

LINEAR = (10_000, 4096)
"""Number of training images and of features."""


@dataclasses.dataclass(frozen=True)
class LinearSpeed:
    """The results of both solvers for one penalty; ours is the linear probe's, theirs scikit-learn's."""

    penalty: float
    ours: float
    """Seconds of our solver."""
    theirs: float
    """Seconds of scikit-learn's solver."""
    our_objective: float
    their_objective: float
    our_top1: float
    """Test accuracy in %."""
    their_top1: float


def linear_speeds(rows: int, columns: int, *, classes: int = 20) -> Iterator[LinearSpeed]:
    """Yield the times of both solvers for each penalty of the linear probe; every fit starts at zero.

    The probe finds the principal directions of the features once for all penalties; the first one has that time.

    Both minimise the same objective with their own iteration limit and tolerance, so the objective they reach is
    reported too. The features are synthetic, standardised float32: three clusters per class in up to 512 directions,
    the k-th with variance 1/k as in an encoder's features, plus noise in all directions.

    Args:
        rows: Number of training images; a fifth as many are test images.
        columns: Number of features.
        classes: Number of classes.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    from downstream.probes.linear import Linear, minimise, objective, principal

    generator = torch.Generator().manual_seed(0)
    cluster = torch.randint(3 * classes, (rows + rows // 5,), generator=generator)
    rank = min(512, columns)
    centres = 0.3 * torch.randn(3 * classes, rank, generator=generator)[cluster]
    latent = centres + torch.randn(len(cluster), rank, generator=generator)
    latent = latent / torch.arange(1, rank + 1).sqrt()
    features = latent @ torch.randn(rank, columns, generator=generator)
    features += 0.3 * torch.randn(features.shape, generator=generator)
    features = (features - features[:rows].mean(0)) / features[:rows].std(0)
    inputs, test_inputs = features[:rows], features[rows:]
    targets, test_targets = torch.split(cluster % classes, [rows, len(cluster) - rows])
    started = time.perf_counter()
    directions = principal(inputs)
    shared = time.perf_counter() - started
    for penalty in Linear().penalties:
        one = functools.partial(minimise, penalties=(penalty,), iterations=Linear().iterations, directions=directions)
        started = time.perf_counter()
        weight, bias = next(one(inputs, targets, classes))
        ours, shared = time.perf_counter() - started + shared, 0.0
        model = LogisticRegression(C=1 / (rows * penalty))
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # scikit-learn's default limit is 100 iterations
            model.fit(inputs.numpy(), targets.numpy())
        theirs = time.perf_counter() - started
        peers = torch.from_numpy(model.coef_).float(), torch.from_numpy(model.intercept_).float()
        solutions = [(weight, bias), peers]
        reached = [objective(inputs @ w.T + b, targets, w, penalty).item() for w, b in solutions]
        correct = [((test_inputs @ w.T + b).argmax(1) == test_targets).double().mean().item() for w, b in solutions]
        yield LinearSpeed(penalty, ours, theirs, *reached, *(100 * share for share in correct))


def print_linear() -> None:
    """Time both solvers, and print one line per penalty."""
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

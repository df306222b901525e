"""Rows and probes of the comparison that `did-it-help` plans."""

from __future__ import annotations

from benchmarks.planning.probes import probe
from benchmarks.planning.recipes import Recipe
from benchmarks.planning.rows import Row
from downstream.probes.low_shot import LowShot
from pretext.training.config import TrainConfig

GIVEN, CONTINUED = "given", "continued"
"""Rows of given weights: untouched, and after more training on these pictures."""
MAIN = "context_encoder"
"""Row that is trained on a quarter of the pictures too, unless weights are given: then `CONTINUED` is."""
OWN = (MAIN, "simclr", CONTINUED)
"""Rows that are trained on these pictures without labels."""
PERCENTS = (1.0, 10.0, 100.0)
"""Shares of the labels that are trained on, in percent."""
CONTINUE_RATE = 5e-4
"""Peak learning rate of continued training: half of that of the other rows, as the weights are no longer random."""
STEP_S = 0.05
"""Seconds of a step of fine-tuning at 64 px on a slow core, for the estimate of the time."""


def did_it_help(*, labelled: int, encoder: str, image_size: int, init: str | None = None) -> Recipe:
    """Compare random weights, a context encoder and SimCLR, and given weights before and after more training.

    Pictures with labels get the row `supervised` too, for reference.

    Args:
        labelled: Number of training pictures with classes, of those that encoders are judged on; 0 if there are none.
        encoder: Architecture spec of all rows.
        image_size: Image side in pixels.
        init: Given weights: an encoder file or a spec with weights.
    """
    two_views = {"batch_size": 128}
    rows = [
        Row("random", "random"),
        Row("context_encoder", "context_encoder?decoder_width=0.25"),
        Row("simclr", "simclr:small", training=two_views),
    ]
    if init is not None:
        from_given = {**two_views, "init": init, "learning_rate": CONTINUE_RATE}
        rows.append(Row(CONTINUED, "simclr:small", training=from_given))
    few = LowShot(percents=PERCENTS, samples=2)
    by_labels = {"low_shot": few}
    without = {"label_free": probe("label_free"), "nearest_fill": probe("nearest_fill")}
    return Recipe(
        name="did-it-help",
        rows=tuple(rows),
        encoder=encoder,
        image_size=image_size,
        train=TrainConfig(images=50_000, batch_size=64),
        probes=by_labels if labelled else without,
        seeds=3,
        data="",
        expected_s={
            **{"pretrain": 120, "random": 2, "label_free": 15, "nearest_fill": 10},
            "low_shot": 30 + STEP_S * _steps(few, labelled),
        },
        sized="Three seeds and a small budget give a first answer; --seeds and --budget sharpen it.",
    )


def _steps(few: LowShot, labelled: int) -> int:
    """Return the steps of all fine-tunings of an encoder."""
    return sum(few.samples_of(p) * few.fine_tuning(round(labelled * p / 100)).steps for p in few.percents)

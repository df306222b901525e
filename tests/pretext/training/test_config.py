"""The settings of a run: budgets, ranges, groups for the help, and the learning-rate schedule."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pretext.training.config import BUDGETS, TrainConfig
from pretext.training.optimisers import rate_at


def test_the_groups_name_every_field_once():
    named = [name for names in TrainConfig.groups.values() for name in names]
    assert sorted(named) == sorted(field.name for field in dataclasses.fields(TrainConfig))
    assert TrainConfig.groups["how long"] == BUDGETS


def test_a_budget_is_given_once():
    for name in BUDGETS:
        TrainConfig(**{name: 10})
    with pytest.raises(ValueError, match="images and steps are given; give at most one budget"):
        TrainConfig(images=1, steps=1)


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ({}, 10_000),
        ({"images": 1000}, 100),
        ({"steps": 7}, 7),
        ({"epochs": 2.5}, 100),
        ({"flops": 5e4}, 50),
        ({"images": 1}, 1),
        ({"seconds": 3.0}, None),
    ],
)
def test_a_budget_becomes_steps(budget, steps):
    assert TrainConfig(batch_size=10, **budget).total_steps(image_count=400, flops_per_image=100.0) == steps


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"steps": -1}, {"learning_rate": 0}, {"warmup": 1.0}, {"accumulate": 3}, {"clip_norm": 0}],
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainConfig(**wrong)


def test_the_schedule_rises_and_falls():
    values = [rate_at(p, schedule="cosine", warmup=0.1) for p in np.linspace(0, 1, 21)]
    assert values[0] < 0.02
    assert max(values) == pytest.approx(1.0)
    assert values[-1] == pytest.approx(0.0, abs=1e-9)
    assert rate_at(0.55, schedule="cosine", warmup=0.1) == pytest.approx(0.5)
    assert rate_at(0.9, schedule="constant", warmup=0.1) == 1.0

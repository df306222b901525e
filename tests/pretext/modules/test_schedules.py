"""The shared cosine: its ends, and the same bits as the formula written out."""

from __future__ import annotations

import math

import pytest

from pretext.modules.schedules import cosine


def test_the_cosine_falls_from_one_to_zero():
    assert cosine(0) == 1
    assert cosine(1, 3) == pytest.approx(0.75)
    assert cosine(0.5) == pytest.approx(0.5)
    assert cosine(1) == cosine(7, 7) == 0


def test_steps_are_multiplied_before_they_are_divided():
    assert [cosine(step, 250) for step in range(250)] == [
        0.5 * (1 + math.cos(math.pi * step / 250)) for step in range(250)
    ]

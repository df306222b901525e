"""The range of a setting, and the sentence about a value outside of it."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from pretext.system.ranges import check_range


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "words"),
    [
        ({"least": 1}, (1, 2.5, math.inf), (0, 0.99, -math.inf), "1 or more"),
        ({"above": 0}, (0.001, 7), (0, -1), "above 0"),
        ({"most": 64}, (64, -5), (65,), "at most 64"),
        ({"below": 1}, (0.99, -1), (1, 2), "below 1"),
        ({"least": 0, "most": 1}, (0, 0.5, 1), (-0.1, 1.1), "from 0 to 1"),
        ({"least": 0, "below": 0.5}, (0, 0.49), (0.5, -1), "from 0 to below 0.5"),
        ({"above": 0, "most": 8}, (0.1, 8), (0, 8.1), "above 0 and up to 8"),
        ({"above": 0, "below": 1}, (0.5,), (0, 1), "above 0 and below 1"),
        ({"least": 1, "most": 1024, "unit": "pixels"}, (1, 1024), (0, 1025), "from 1 to 1024 pixels"),
    ],
)
def test_values_outside_are_refused_in_a_sentence(bounds, inside, outside, words):
    for value in inside:
        check_range(SimpleNamespace(size=value), "size", **bounds)
    for value in (*outside, math.nan):
        with pytest.raises(ValueError, match="allowed") as caught:
            check_range(SimpleNamespace(size=value), "size", **bounds)
        assert str(caught.value) == f"size is {value}; allowed is {words}"


def test_every_setting_is_checked_and_none_is_no_value():
    settings = SimpleNamespace(first=1, second=None, third=9)
    check_range(settings, "first", "second", least=0, most=5)
    with pytest.raises(ValueError, match="third is 9"):
        check_range(settings, "first", "second", "third", least=0, most=5)

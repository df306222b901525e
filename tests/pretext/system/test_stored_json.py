"""Stored JSON of any damage is answered by one line that names the file, what is wrong and what to do."""

from __future__ import annotations

from types import NoneType

import pytest

from pretext.system.errors import UserError
from pretext.system.stored_json import misfit, read_json

SHAPE = {"name": str, "count": int, "rate?": (NoneType, float), "rows": [{"done": bool, "*": float}]}


def test_what_has_the_shape_is_read(tmp_path):
    file = tmp_path / "file.json"
    file.write_text('{"name": "a", "count": 3, "rate": null, "rows": [{"done": true, "x": 1}], "more": 1}')
    assert read_json(file, SHAPE, remedy="r")["count"] == 3


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (b"", "not valid JSON"),
        (b'{"name": "\xff"}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"9" * 10_000, "not valid JSON"),
        (b"null", "the content is not an object"),
        (b'{"name": 3}', "name is not text"),
        (b'{"name": "a", "count": true}', "count is not a whole number"),
        (b'{"name": "a", "count": 1e3}', "count is not a whole number"),
        (b'{"name": "a", "count": 99999999999999999999}', "count is not a whole number"),
        (b'{"name": "a", "count": 1, "rate": NaN}', "rate is not null"),
        (b'{"name": "a", "count": 1}', "rows is missing"),
        (b'{"name": "a", "count": 1, "rows": {}}', "rows is not a list"),
        (b'{"name": "a", "count": 1, "rows": [[]]}', r"rows\[0\] is not an object"),
        (b'{"name": "a", "count": 1, "rows": [{"done": true, "x": Infinity}]}', r"rows\[0\]\.x is not a finite number"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, wrong):
    file = tmp_path / "file.json"
    file.write_bytes(text)
    with pytest.raises(UserError, match=rf"^\S*file\.json: {wrong}.*; do this$") as caught:
        read_json(file, SHAPE, remedy="do this")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [int, float])
@pytest.mark.parametrize(
    "last", [True, None, "1", 1.5, -1e308, float("nan"), float("inf"), 2**63, -(2**63), 10**400, [], 7]
)
def test_a_long_list_of_numbers_is_checked_as_each_of_them(kind, last):
    alone = misfit(last, kind, "x[3]")
    assert misfit([1, 0, -2, last], [kind], "x") == alone
    assert (alone == "") == (last == 7 or (kind is float and last in (1.5, 2**63, -(2**63))))


def test_anything_is_an_object_of_python():
    assert misfit({"a": [None]}, object) == ""

"""Specs: values are taken as typed, and what is written is read back."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from pretext.system.errors import UserError
from pretext.system.specs import format_spec, options_into, parse_spec, with_option


@dataclass(frozen=True)
class Options:
    name: str = ""


TYPED = ["vit+ema.pth", "a b", "1+1=2", "50%", "run/α,β.pt", "c++", "%2B"]


@pytest.mark.parametrize(("typed", "meant"), [("vit+ema.pth", "vit+ema.pth"), ("a b", "a b"), ("a%20b%2Bc", "a b+c")])
def test_a_value_is_taken_as_typed(typed, meant):
    assert parse_spec(f"timm:vit+b?weights={typed}&n=1").options == {"weights": meant, "n": "1"}


@pytest.mark.parametrize("value", [*TYPED, os.fsdecode(b"caf\xe9+.pth"), "a&b#?"])
def test_what_is_written_is_read_back(value):
    assert options_into(Options, parse_spec(format_spec("kind", "path", Options(value)))) == Options(value)
    assert parse_spec(with_option("kind:path?name=old&other=1", "name", value)).options["name"] == value


@pytest.mark.parametrize("text", ["kind?name", "kind?a=1&&b=2", ":path"])
def test_what_is_no_spec_is_one_line(text):
    with pytest.raises(UserError, match="write"):
        parse_spec(text)

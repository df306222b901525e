"""Damage to files, drawn from a seed: bytes of any file, values of JSON, and the header of a safetensors file."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

DEEP = "[" * 3000 + "null" + "]" * 3000
ODD = [
    "null",
    "true",
    "-1",
    "0",
    "3",
    "1e308",
    "1" + "0" * 400,
    "9" * 5000,
    "NaN",
    "-Infinity",
    '""',
    '"x"',
    "[]",
    "{}",
]
ODD += ["[[[null]]]", '{"": null}', '"\\ud800"', '"\\u0000"', '"../../x"', "[null, {}]", "0.5", '"1"', DEEP]
MARK = "\N{SNOWMAN} here"


def damaged(content: bytes, random_: random.Random) -> tuple[str, bytes]:
    """Return the name of a damage that suits the content, and the damaged content."""
    ways: dict[str, Callable[[bytes, random.Random], bytes]] = {
        "cut": lambda data, r: data[: r.randrange(len(data))],
        "empty": lambda data, r: b"",
        "flipped": _flipped,
        "noise": lambda data, r: _over(data, r, r.randbytes(r.randint(1, 64))),
        "zeroed": lambda data, r: _over(data, r, bytes(r.randint(1, 256))),
        "not UTF-8": lambda data, r: _over(data, r, b"\xff\xfe\xc3"),
        "longer": lambda data, r: data + r.randbytes(r.randint(1, 64)),
    }
    weights = [2, 0.3, 4, 1, 1, 1, 1]
    head = _header(content)
    if head is not None:
        ways["value in header"] = lambda data, r: _packed(_changed(head, r), data)
        weights.append(12.0)
    elif content.lstrip()[:1] in (b"{", b"["):
        ways["value"] = _value
        weights.append(12.0)
    name = random_.choices(list(ways), weights)[0]
    return name, ways[name](content, random_)


def _flipped(data: bytes, random_: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random_.choice([1, 1, 2, 8])):
        at = random_.randrange(len(data)) if random_.random() < 0.5 else random_.randrange(min(len(data), 2000))
        changed[at] ^= 1 << random_.randrange(8)
    return bytes(changed)


def _over(data: bytes, random_: random.Random, piece: bytes) -> bytes:
    at = random_.randrange(len(data)) if random_.random() < 0.5 else random_.randrange(min(len(data), 2000))
    return data[:at] + piece + data[at + len(piece) :]


def _value(data: bytes, random_: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    try:
        return _changed(json.loads(data), random_).encode()
    except ValueError:  # one value per line
        at = random_.randrange(len(lines))
        lines[at] = _changed(json.loads(lines[at]), random_).encode() + b"\n"
        return b"".join(lines)


def _changed(value: Any, random_: random.Random) -> str:
    """Return the JSON of a value with one part, at any depth, deleted, doubled or replaced."""
    value = json.loads(json.dumps(value))
    places: list[tuple[Any, Any]] = []
    _collect(value, places)
    if not places or random_.random() < 0.02:
        return random_.choice(ODD)
    container, key = random_.choice(places)
    inner = container[key]
    if isinstance(inner, str) and inner[:1] == "{" and random_.random() < 0.9:  # JSON within JSON
        container[key] = _changed(json.loads(inner), random_)
        return json.dumps(value)
    if random_.random() < 0.2:
        del container[key]
        return json.dumps(value)
    container[key] = MARK
    return json.dumps(value, ensure_ascii=False).replace(json.dumps(MARK, ensure_ascii=False), random_.choice(ODD), 1)


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        places.append((value, key))
        if isinstance(value[key], str) and value[key][:1] == "{":
            places.extend([(value, key)] * 30)
        _collect(value[key], places)


def _header(content: bytes) -> Any:
    """Return the header of a safetensors file; None for other files."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]) if content[8:9] == b"{" and size < len(content) else None


def _packed(header: str, content: bytes) -> bytes:
    size = int.from_bytes(content[:8], "little")
    text = header.encode(errors="surrogatepass")
    return len(text).to_bytes(8, "little") + text + content[8 + size :]

"""What a format hands over: how to write the file, and the lines of Python that load and use it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pretext.encoders.base import Encoder

WEIGHT_SUFFIXES = (".safetensors", ".pth")
"""Files of named tensors: safetensors, or a state dict by `torch.save` that `weights_only=True` reads."""


@dataclass(frozen=True)
class Prepared:
    """An encoder in a format of another library, before it is written."""

    title: str
    """What the file holds, for people: `timm's resnet18`."""
    write: Callable[[Path], None]
    """Writes the file."""
    load: Callable[[str], list[str]]
    """Gives the lines of Python that load the file, whose name it is given as typed."""
    use: tuple[str, ...]
    """Lines that turn `images` (B×3×H×W floats from 0 to 1) into `maps`, a list, deepest last, and `vectors` (B×D).

    Without them, `load` gives `tensors`, which are compared with `tensors` below."""
    tensors: Mapping[str, Tensor]
    """The named tensors of the file; empty if it holds a network."""
    normalises: bool = False
    """Whether the file's network normalises images itself."""
    takes_arrays: bool = False
    """Whether `use` takes and gives NumPy arrays."""
    notes: tuple[str, ...] = ()
    """Sentences about this file: what is not in it, and what it cannot do."""


def of_tensors(
    title: str,
    tensors: Mapping[str, Tensor],
    load: Callable[[str], list[str]],
    use: Sequence[str],
    notes: Sequence[str] = (),
) -> Prepared:
    """Return a `Prepared` that writes named tensors, by the file's suffix; see its fields for the arguments."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}

    def write(path: Path) -> None:
        if path.suffix == ".safetensors":
            save_file(plain, path, {"format": "pt"})
        else:
            torch.save(plain, path)

    return Prepared(title, write, load, tuple(use), plain, notes=tuple(notes))


def normalising(encoder: Encoder) -> list[str]:
    """Return the lines that turn `images` into `normalised`."""
    mean, std = (call("torch.tensor", list(values)) for values in (encoder.mean, encoder.std))
    return [
        f"mean, std = {mean}, {std}",
        "normalised = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)",
    ]


def read_line(file: str) -> tuple[str, str]:
    """Return the import and the expression that read a file of named tensors."""
    if file.endswith(".safetensors"):
        return "from safetensors.torch import load_file", f"load_file({literal(file)})"
    return "import torch", f"torch.load({literal(file)}, weights_only=True)"


def literal(text: str) -> str:
    """Return a text as Python source: readable where it can be printed, escaped where not."""
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else ascii(text)


def call(function: str, *positional: object, **named: object) -> str:
    """Return the source of a call; texts are quoted."""
    shown = [literal(value) if isinstance(value, str) else repr(value) for value in positional]
    shown += [f"{name}={literal(value) if isinstance(value, str) else repr(value)}" for name, value in named.items()]
    return f"{function}({', '.join(shown)})"


def run(lines: Sequence[str], names: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Run lines that this package has made, and return the names that they define.

    Whoever reads the lines in a card gets what was tried, because the very lines are run. Random weights that a
    constructor draws do not touch the global random state.
    """
    namespace: dict[str, Any] = dict(names or {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exec("\n".join(lines), namespace)
    return namespace

"""External weight files: read tensors without executing code, and report mismatches with a model."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import torch
from torch import Size, Tensor

from pretext.encoders.refusals import why_refused
from pretext.system.checkpoint import open_tensors
from pretext.system.errors import UserError
from pretext.system.specs import parse_spec

LIBRARIES = ("timm:", "torchvision:")
"""Starts of the specs of networks that their library publishes with weights."""
WITHOUT_LEARNING = ("hog", "pixels")
"""Encoders whose values are known once they are built."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return all named tensors of a .safetensors or .pth file.

    Only tensors are unpickled, so no code in the file runs. Nested dictionaries are flattened: the tensor `a` in the
    dictionary `state_dict` becomes `state_dict.a`.

    Raises:
        UserError: If the file is missing or damaged, or holds objects other than dense tensors of real numbers.
    """
    if not path.is_file():
        raise UserError(f"weights {path}: there is no such file; check the path")
    try:
        if path.suffix == ".safetensors":
            with open_tensors(path) as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about other pickle protocols
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of every kind, because the bytes can be anything
        raise UserError(
            f"weights {path}: not a complete file of plain tensors ({why_refused(path, error)}); "
            "save only model.state_dict()"
        ) from error
    tensors = dict(_flatten(found, ""))
    if not tensors:
        raise UserError(f"weights {path}: contains no named tensors; save model.state_dict()")
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_complex() or value.is_quantized or value.is_meta:
            kind = f"{value.dtype} {value.layout}".replace("torch.", "")
            raise UserError(f"weights {path}: {name} is of another kind ({kind}); save dense tensors of real numbers")
    return tensors


def _flatten(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested dictionaries, with dotted names."""
    if isinstance(value, Tensor) and name:
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(key, str):  # optimiser states have integer keys
                yield from _flatten(inner, f"{name}.{key}" if name else key)


def check_keys(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], mismatch: str) -> None:
    """Check that a file holds exactly the tensors of a model.

    Args:
        tensors: The tensors in the file.
        expected: The state dict of the whole model.
        mismatch: Start of the error message, naming the file and the model.

    Raises:
        UserError: If tensors are missing, unexpected or of another shape; the message names the first ones.
    """
    raise_mismatches(
        mismatch,
        missing=[name for name in expected if name not in tensors],
        extra=[name for name in tensors if name not in expected],
        misshapen={
            name: (tensors[name].shape, value.shape)
            for name, value in expected.items()
            if name in tensors and tensors[name].shape != value.shape
        },
    )


def raise_mismatches(
    mismatch: str,
    *,
    missing: Collection[str],
    extra: Collection[str],
    misshapen: Mapping[str, tuple[Size, Size]],
    remedy: str = "",
) -> None:
    """Raise a `UserError` that names the first three mismatches, if there are any.

    Args:
        mismatch: Start of the message, naming the file and the model.
        missing: Tensors of the model that the file lacks.
        extra: Tensors of the file that the model lacks.
        misshapen: Shapes in the file and in the model of tensors whose shapes differ.
        remedy: End of the message.
    """
    problems = [
        *(f"missing {name}" for name in missing),
        *(f"{name} has shape {tuple(given)}, expected {tuple(ours)}" for name, (given, ours) in misshapen.items()),
        *(f"unexpected {name}" for name in extra),
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"{mismatch}: {'; '.join(problems[:3])}{more}; nothing was loaded{remedy}")


def is_spec(source: str) -> bool:
    """Return whether an encoder source is a spec rather than an encoder file.

    Specs are `timm:NAME`, `torchvision:NAME`, a file of the user's own (`my_encoder.py`), an encoder without learning
    (`hog`, `pixels`), or any other architecture with an external checkpoint (`alexnet?weights=FILE`).
    """
    without_learning = re.match(rf"({'|'.join(WITHOUT_LEARNING)})($|\?)", source) is not None
    return (
        source.startswith(LIBRARIES)
        or is_code(source)
        or without_learning
        or re.search(r"[?&]weights=", source) is not None
    )


def is_code(source: str) -> bool:
    """Return whether an encoder source is a spec of a file of the user's own, `my_encoder.py?width=16`."""
    return re.match(r"[^?:]+\.py($|[?:])", source) is not None


def weights_file(source: str) -> Path | None:
    """Return the file in a source's `weights=FILE` option, or None."""
    file = parse_spec(source).options.get("weights") if is_spec(source) else None
    return None if file is None else Path(file)

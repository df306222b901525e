"""Files of weights from elsewhere: read without running anything that is in them, and held against the model."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pretext.errors import UserError
from pretext.specs import parse_spec

WRAPPERS = ("state_dict", "model")
"""Under which of these a training script may have put the weights."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file, or of a .pth file, of which nothing but tensors is unpickled.

    Raises:
        UserError: If the file is missing, broken, or holds anything else.
    """
    if not path.is_file():
        raise UserError(f"weights {path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles in another protocol, which it reads or refuses all the same
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"weights {path}: not a file of tensors alone, or cut short ({reason})") from error
    for name in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"weights {path}: holds no tensors by name; save model.state_dict()")
    return dict(found)


def check_keys(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    mismatch: str,
    *,
    optional: tuple[str, ...] = (),
    resampled: str | None = None,
) -> None:
    """Raise a `UserError` that names the first tensors that are missing, extra or misshapen, if any are.

    Args:
        tensors: What a file holds.
        expected: The state of the whole model.
        mismatch: What the error begins with: which file does not fit what.
        optional: Beginnings of names that need not be there or fit: a classifier's, which no encoder has.
        resampled: Part of the names that may be of any size, as position embeddings are for other pictures.
    """
    needed = {name: value.shape for name, value in expected.items() if not name.startswith(optional)}
    complaints = [
        *(f"missing {name}" for name in needed if name not in tensors),
        *(f"extra {name}" for name in tensors if name not in expected),
        *(
            f"{name} is {tuple(tensors[name].shape)} where {tuple(shape)} is expected"
            for name, shape in needed.items()
            if name in tensors and tensors[name].shape != shape and (resampled is None or resampled not in name)
        ),
    ]
    if complaints:
        more = f" and {len(complaints) - 3} more" if len(complaints) > 3 else ""
        raise UserError(f"{mismatch}: {'; '.join(complaints[:3])}{more}; nothing was loaded")


def weights_file(spec: str) -> Path | None:
    """Return the file of weights that an encoder spec names, if any."""
    file = parse_spec(spec).options.get("weights")
    return None if file is None else Path(file)

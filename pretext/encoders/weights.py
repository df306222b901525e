"""Files of weights from elsewhere: read without running anything that is in them, and held against the model."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Size, Tensor

from pretext.system.errors import UserError
from pretext.system.specs import parse_spec


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file, or of a .pth file, of which nothing but tensors is unpickled.

    Tensors in dictionaries inside it, where training scripts put them, have the keys in front of their names.

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
    except (
        SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        OSError,
        EOFError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:  # whatever bytes that are no pickle make of the unpickler
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"weights {path}: not a file of tensors alone, or cut short ({reason}); save its state dict by itself"
        ) from error
    tensors = dict(_named(found, ""))
    if not tensors:
        raise UserError(f"weights {path}: holds no tensors by name; save model.state_dict()")
    return tensors


def _named(found: object, before: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(found, Tensor) and before:
        yield before, found
    elif isinstance(found, dict):
        for key, value in found.items():
            if isinstance(key, str):  # an optimiser's state goes by numbers
                yield from _named(value, f"{before}.{key}" if before else key)


def check_keys(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], mismatch: str) -> None:
    """Raise a `UserError` that names the first tensors that are missing, extra or misshapen, if any are.

    Args:
        tensors: What a file holds.
        expected: The state of the whole model.
        mismatch: What the error begins with: which file does not fit what.
    """
    not_loaded(
        mismatch,
        missing=[name for name in expected if name not in tensors],
        extra=[name for name in tensors if name not in expected],
        misshapen={
            name: (tensors[name].shape, value.shape)
            for name, value in expected.items()
            if name in tensors and tensors[name].shape != value.shape
        },
    )


def not_loaded(
    mismatch: str,
    *,
    missing: Collection[str],
    extra: Collection[str],
    misshapen: Mapping[str, tuple[Size, Size]],
    remedy: str = "",
) -> None:
    """Raise a `UserError` that names the first of these, if there are any; misshapen ones by their shape and ours."""
    complaints = [
        *(f"missing {name}" for name in missing),
        *(f"{name} is {tuple(given)} where {tuple(ours)} is expected" for name, (given, ours) in misshapen.items()),
        *(f"extra {name}" for name in extra),
    ]
    if complaints:
        more = f" and {len(complaints) - 3} more" if len(complaints) > 3 else ""
        raise UserError(f"{mismatch}: {'; '.join(complaints[:3])}{more}; nothing was loaded{remedy}")


def is_spec(source: str) -> bool:
    """Whether an encoder's source says what to build, as `timm:NAME` and `alexnet?weights=FILE` do, and is no file."""
    return source.startswith("timm:") or re.search(r"[?&]weights=", source) is not None


def weights_file(source: str) -> Path | None:
    """Return the file of weights that an encoder's source names, if any."""
    file = parse_spec(source).options.get("weights") if is_spec(source) else None
    return None if file is None else Path(file)

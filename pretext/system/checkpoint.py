"""Atomic file writes, and training checkpoints as safetensors files: no pickle, never half-written."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pretext.system.errors import UserError

CHECKPOINT_KEY = "pretext_bench_checkpoint"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` when the block ends without an error.

    A missing folder is created. If the block raises, `path` is unchanged and the temporary file is deleted.

    Raises:
        OSError: If the file cannot be written, for example on a full disk. The error names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some writers create files that only the owner can read
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    finally:
        if temporary.exists():
            temporary.unlink()


def save_checkpoint(path: str | Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write tensors, and `about` as JSON metadata, to one safetensors file, atomically."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with atomic_write(path) as temporary:
        save_file(plain, temporary, {CHECKPOINT_KEY: json.dumps(about, sort_keys=True)})


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the metadata of a checkpoint.

    Raises:
        UserError: If the file is missing, truncated, or not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"checkpoint {path} does not exist; create one by python -m pretext train TASK --data SPEC --out DIR"
        )
    try:
        with safe_open(path, framework="pt") as opened:
            about = (opened.metadata() or {}).get(CHECKPOINT_KEY)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise UserError(f"{path} is not a checkpoint, or is truncated ({error}); delete it and train again") from None
    if about is None:
        raise UserError(f"{path} holds tensors but no training checkpoint; give the --out folder of a training run")
    return tensors, json.loads(about)


def optimizer_tensors(name: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of an optimiser as named tensors."""
    return {
        f"optimizer.{name}.{index}.{key}": value
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(name: str, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load the state that `optimizer_tensors` returned; the parameter groups keep their settings.

    Each moment gets the memory format of its parameter, as fused kernels require.
    """
    prefix = f"optimizer.{name}."
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix):
            index, field = key.removeprefix(prefix).split(".", 1)
            parameter = parameters[int(index)]
            like = torch.empty_like(parameter if value.shape == parameter.shape else value, dtype=value.dtype)
            state.setdefault(int(index), {})[field] = like.copy_(value)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

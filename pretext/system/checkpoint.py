"""Atomic file writes, and training checkpoints as safetensors files: no pickle, never half-written."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pretext.system.errors import UserError
from pretext.system.stored_json import parse_json

CHECKPOINT_KEY = "pretext_bench_checkpoint"
CHECKSUM = "crc32"
HOST = f"{zlib.crc32(platform.node().encode()):08x}"
"""The machine, in names of temporary files: a process number says nothing on another one."""


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` when the block ends without an error.

    A missing folder is created. If the block raises, `path` is unchanged and the temporary file is deleted. What a
    killed process of this machine left while it wrote the same file is deleted first.

    Raises:
        OSError: If the file cannot be written, for example on a full disk. The error names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{HOST}-{os.getpid()}.tmp")
    try:
        remove_leftovers(path)
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


def remove_leftovers_in(folder: Path) -> None:
    """Delete what processes of this machine that no longer run left beside any file of a folder."""
    for beside in folder.glob(f".*.{HOST}-*.tmp"):
        remove_leftovers(folder / beside.name[1:].rpartition(f".{HOST}-")[0])


def remove_leftovers(path: Path) -> None:
    """Delete what processes of this machine that no longer run left beside `path`, which they were to write.

    What another user has left is his to delete.
    """
    for beside in path.parent.glob(f".{glob.escape(path.name)}.{HOST}-*.tmp"):
        number = beside.name.removesuffix(".tmp").removesuffix(".folder").rpartition("-")[2]
        if not number.isdecimal() or _runs(int(number)):
            continue
        if beside.is_dir():
            shutil.rmtree(beside, ignore_errors=True)
        else:
            with suppress(PermissionError):
                beside.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return not _has_ended(process)


def _has_ended(process: int) -> bool:
    """Return whether a process has ended and only waits for its parent to read its code.

    In many containers no process does so for orphans, and a dead worker keeps its number for ever.
    """
    try:
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[:1]
    except OSError:  # gone meanwhile, or a system without /proc, where somebody always reads the code
        return False
    return state in ([b"Z"], [b"X"])


@contextmanager
def atomic_write_by_name(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path as `atomic_write` does, but of the file's own name, in a folder beside `path`.

    For writers and readers that go by the suffix, or leave temporary files of their own: safetensors' have names that
    nobody could tell from a user's. The next writer of `path` deletes the folder after a kill.
    """
    with atomic_write(path) as temporary:
        folder = temporary.with_suffix(".folder.tmp")
        try:
            folder.mkdir(exist_ok=True)
            yield folder / Path(path).name
            (folder / Path(path).name).replace(temporary)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def write_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically."""
    with atomic_write_by_name(path) as temporary:
        save_file(tensors, temporary, metadata)


@contextmanager
def open_tensors(path: str | Path) -> Iterator[Any]:
    """Yield the opened safetensors file at `path`, as `safetensors.safe_open` does: one file, even if it is replaced.

    Raises:
        OSError: If there is no such file.
        SafetensorError: If it is not a complete safetensors file.
    """
    path = Path(path)
    with path.open("rb") as file:
        # By its name, safetensors would open the file twice: for its header, and for its tensors. In between, another
        # process may have put a new file in its place. Nor does it take a name that is not UTF-8.
        itself = Path(f"/dev/fd/{file.fileno()}")
        with safe_open(itself if itself.exists() else path, framework="pt") as opened:
            yield opened


def save_checkpoint(path: str | Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write tensors, and `about` as JSON metadata, to one safetensors file, atomically."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    content = json.dumps(about | {CHECKSUM: _checksum(plain, about)}, sort_keys=True)
    write_tensors(path, plain, {CHECKPOINT_KEY: content})


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the metadata of a checkpoint.

    Raises:
        UserError: If the file is missing, truncated, changed, or not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"checkpoint {path} does not exist; create one by python -m pretext train TASK --data SPEC --out DIR"
        )
    try:
        with open_tensors(path) as opened:
            about = (opened.metadata() or {}).get(CHECKPOINT_KEY)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise UserError(f"{path} is not a checkpoint, or is truncated ({error}); delete it and train again") from None
    if about is None:
        raise UserError(f"{path} holds tensors but no training checkpoint; give the --out folder of a training run")
    remedy = "delete it and train again"
    content: dict[str, Any] = parse_json(about, dict, source=f"{path}: its record", remedy=remedy)
    checksum = content.pop(CHECKSUM, None)  # early checkpoints have none
    if checksum is not None and checksum != _checksum(tensors, content):
        raise UserError(f"{path} is damaged (checksum mismatch); {remedy}")
    return tensors, content


def _checksum(tensors: dict[str, Tensor], about: dict[str, Any]) -> int:
    """Return the CRC-32 of everything in a checkpoint."""
    state = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        state = zlib.crc32(f"{name} {value.dtype} {tuple(value.shape)}".encode(), state)
        state = zlib.crc32(value.contiguous().reshape(-1).view(torch.uint8).numpy().data, state)
    return state


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
            index, _, field = key.removeprefix(prefix).partition(".")
            if not index.isdecimal() or int(index) >= len(parameters) or not field:
                raise UserError(f"the checkpoint has a tensor {key} that this optimiser has no use for; train again")
            parameter = parameters[int(index)]
            like = torch.empty_like(parameter if value.shape == parameter.shape else value, dtype=value.dtype)
            state.setdefault(int(index), {})[field] = like.copy_(value)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

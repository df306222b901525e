"""Encoder files: one `encoder.safetensors` with the weights, the architecture and the training record."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from pretext.encoders.base import Encoder
from pretext.encoders.foreign import FILE_OPTIONS
from pretext.encoders.own import check_code
from pretext.encoders.weights import LIBRARIES, check_keys, is_spec, weights_file
from pretext.encoders.wrapped import KIND, LARGEST_INPUT, wrap
from pretext.system.checkpoint import file_sha256, open_tensors, write_tensors
from pretext.system.errors import UserError
from pretext.system.plugins import file_row, is_file
from pretext.system.specs import parse_spec, without_options
from pretext.system.stored_json import Shape, parse_json

# A single key: safetensors writes several keys in no fixed order, and equal encoders must give equal files.
METADATA_KEY = "pretext_bench"
HEADER: Shape = {
    "architecture": str,
    "input_size": int,
    "mean": [float],
    "std": [float],
    "record": dict,
    "code_sha256?": str,
}
REMEDY = "the file is damaged; write it again, or restore it"


def save_encoder(encoder: Encoder, path: str | Path, record: dict[str, Any]) -> None:
    """Write an encoder file; equal weights and records give equal bytes.

    Args:
        encoder: Its weights, architecture, input size and normalisation are written.
        path: Target file, replaced atomically.
        record: JSON-serialisable record: pretext configuration, data fingerprint, images seen, version, git revision.
    """
    header: dict[str, Any] = {
        "architecture": encoder.spec,
        "input_size": encoder.input_size,
        "mean": encoder.mean,
        "std": encoder.std,
        "record": record,
    }
    if encoder.code_sha256:
        header["code_sha256"] = encoder.code_sha256
    tensors = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    write_tensors(path, tensors, {METADATA_KEY: json.dumps(header, sort_keys=True)})


def read_record(path: str | Path) -> dict[str, Any]:
    """Return the header of an encoder file: architecture, input_size, mean, std, record; of an encoder in a user's own
    file, code_sha256 too.

    Raises:
        UserError: If the file is missing or not an encoder file.
    """
    with _opened(Path(path)) as (_, header):
        return header


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield an opened encoder file and its header, of one file even if another process replaces it meanwhile."""
    if not path.is_file():
        raise UserError(f"encoder file {path} does not exist; make one with python -m pretext train TASK --data SPEC")
    with ExitStack() as closing:
        try:
            opened = closing.enter_context(open_tensors(path))
        except SafetensorError as error:
            raise UserError(f"{path} is not a complete safetensors file ({error}); write it again") from None
        yield opened, _header(opened.metadata() or {}, path)


def _header(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    if METADATA_KEY not in metadata:
        raise UserError(
            f"{path} is a safetensors file without pretext-bench metadata; give an encoder.safetensors of pretext-bench"
        )
    header: dict[str, Any] = parse_json(metadata[METADATA_KEY], HEADER, source=f"{path}: its header", remedy=REMEDY)
    if not 0 < header["input_size"] <= LARGEST_INPUT:
        raise UserError(f"{path}: its header: input_size is {header['input_size']}; {REMEDY}")
    return header


def load_encoder(
    source: str | Path, *, input_size: int | None = None, module: torch.nn.Module | None = None
) -> Encoder:
    """Return an encoder with trained weights, in evaluation mode.

    Args:
        source: An encoder file; `timm:NAME` or `torchvision:NAME` for that library's published weights; `my_encoder.py`
            for the weights that the file sets; or a spec with an external checkpoint, such as
            `timm:NAME?weights=FILE` or `alexnet?weights=FILE` (see `pretext.encoders.foreign`).
        input_size: Side of the input images in pixels, for specs only; None is the one of `weights` if that is an
            encoder file, else 224.
        module: The module, for the file of an encoder that was made by `Encoder.wrap`; the tensors are loaded into it.

    Raises:
        UserError: If the file cannot be read, its tensors do not match the architecture, or the user's own file with
            the architecture is missing or has changed.
    """
    # Imported on call: the package itself imports this module.
    build = importlib.import_module("pretext.encoders").build_encoder
    if is_spec(str(source)):
        spec = str(source)
        weights = weights_file(spec)
        if weights is None and spec.startswith(LIBRARIES) and "pretrained=" not in spec:
            spec += ("&" if "?" in spec else "?") + "pretrained=true"
        encoder: Encoder = build(spec, input_size=input_size or _recorded_size(weights) or 224, seed=0)
        encoder.record |= {"task": spec}
        if weights is not None:
            encoder.record["weights_sha256"] = file_sha256(weights)
        return encoder.eval()
    path = Path(source)
    with _opened(path) as (opened, header):
        try:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            raise UserError(f"{path}: its tensors cannot be read ({error}); {REMEDY}") from None
    spec = without_options(header["architecture"], "pretrained", *FILE_OPTIONS)
    if module is not None or spec.startswith(f"{KIND}:"):
        encoder = _wrapped(module, header, path)
    else:
        if is_file(spec):
            check_code(spec, header.get("code_sha256", ""), path)
        encoder = build(spec, input_size=header["input_size"], seed=0)
    load_strictly(encoder, tensors, str(path))
    encoder.record = header["record"]
    return encoder.eval()


def _wrapped(module: torch.nn.Module | None, header: dict[str, Any], path: Path) -> Encoder:
    """Return the encoder of a file made by `Encoder.wrap`, around a module of the same architecture."""
    parsed = parse_spec(header["architecture"])
    if parsed.kind != KIND:
        raise UserError(f"{path} is an encoder of {header['architecture']}, which needs no module; leave it out")
    if module is None:
        raise UserError(
            f"{path} holds {parsed.path}, a module wrapped by Encoder.wrap: give load_encoder(…, "
            f"module={parsed.path}(…)); commands take a file of your own instead, my_encoder.py?weights=FILE "
            "(CONTRIBUTING.md has an example)"
        )
    stages = parsed.options.get("stages", "").split(",")
    return wrap(module, stages, input_size=header["input_size"], mean=header["mean"], std=header["std"])


def _recorded_size(weights: Path | None) -> int | None:
    """Return the input size of an encoder file; None if it is another file."""
    try:
        return None if weights is None else int(read_record(weights)["input_size"])
    except UserError:
        return None


def load_strictly(module: torch.nn.Module, tensors: dict[str, torch.Tensor], source: str) -> None:
    """Load a state dict with exactly the module's keys and shapes.

    Args:
        module: Receives the tensors.
        tensors: The state dict.
        source: The file's name, for the error.

    Raises:
        UserError: If keys are missing, unexpected or of another shape; the message names the first ones.
    """
    check_keys(tensors, module.state_dict(), f"{source} does not match its architecture")
    module.load_state_dict(tensors)


def encoder_digest(encoder: Encoder) -> str:
    """Return the SHA-256 of the architecture, input size and all weights; a user's own file counts by its content."""
    spec = f"{file_row(encoder.spec)}@{encoder.code_sha256}" if encoder.code_sha256 else encoder.spec
    digest = hashlib.sha256(f"{spec}@{encoder.input_size}".encode())
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

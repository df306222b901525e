"""Encoders in a user's own file, `my_encoder.py`: built like a family, found by path, identified by content."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pretext.encoders.base import Encoder
from pretext.encoders.foreign import FILE_OPTIONS, WeightsConfig, load_weights
from pretext.system.checkpoint import file_sha256
from pretext.system.errors import UserError
from pretext.system.plugins import absolute_file, fault_in_file, module_of_file
from pretext.system.specs import Spec, options_into, parse_spec, with_option, without_options

EXAMPLE = "CONTRIBUTING.md has an example"


@dataclasses.dataclass(frozen=True)
class NoConfig:
    """Options of a file without a `Config` of its own."""


def build_from_file(spec: str, input_size: int) -> Encoder:
    """Build the encoder of a file with `build` and, if it has options, `Config`; see `pretext.encoders`.

    Args:
        spec: `my_encoder.py[:PATH][?key=value&…]`. `weights`, `prefix` and `allow_partial` are options of every file.
        input_size: Side of the input images in pixels.

    Raises:
        UserError: If the file cannot be imported, has no `build`, or builds no encoder; if weights do not fit.
    """
    parsed = parse_spec(spec)
    file = Path(parsed.kind)
    module = module_of_file(file, "encoder")
    build, kind = getattr(module, "build", None), getattr(module, "Config", NoConfig)
    if not callable(build):
        raise UserError(f"{file} has no function build(spec, path, config, input_size); {EXAMPLE}")
    if not dataclasses.is_dataclass(kind):
        raise UserError(f"{file}: Config is no dataclass; {EXAMPLE}")
    of_file = {key: text for key, text in parsed.options.items() if key in FILE_OPTIONS}
    own = {key: text for key, text in parsed.options.items() if key not in FILE_OPTIONS}
    weights = options_into(WeightsConfig, Spec(parsed.kind, parsed.path, of_file))
    config: Any = options_into(kind, Spec(parsed.kind, parsed.path, own))
    architecture = absolute_file(without_options(spec, *FILE_OPTIONS))
    try:
        encoder = build(architecture, parsed.path, config, input_size)
    except (UserError, ValueError):
        raise
    except Exception as error:  # of every kind, because the code is the user's
        raise fault_in_file(file, error) from error
    if not isinstance(encoder, Encoder):
        raise UserError(
            f"{file}: build returns {type(encoder).__name__}, not an Encoder; return Encoder.wrap(module, "
            f"input_size=input_size), or {EXAMPLE}"
        )
    encoder.spec, encoder.code_sha256 = architecture, file_sha256(file)
    return load_weights(encoder, weights)


def check_code(architecture: str, code_sha256: str, source: Path) -> None:
    """Check that the file of an architecture is there, and is the one that an encoder file was made with.

    Args:
        architecture: Spec of the encoder.
        code_sha256: Hash of the Python file when the encoder file was made.
        source: The encoder file, for the error.

    Raises:
        UserError: If the Python file is missing or has changed.
    """
    file = Path(parse_spec(architecture).kind)
    try:
        found = file_sha256(file)
    except OSError:
        elsewhere = with_option(f"ELSEWHERE/{file.name}{architecture.removeprefix(str(file))}", "weights", str(source))
        raise UserError(
            f"{source} was made with the architecture in {file}, which is missing; put that file back, or name it "
            f"where it is now: {elsewhere}"
        ) from None
    if found != code_sha256:
        raise UserError(
            f"{source} was made with another version of {file} (SHA-256 {code_sha256[:16]}…, now {found[:16]}…); "
            f"restore that version, or load the tensors into the present one: "
            f"{with_option(architecture, 'weights', str(source))}"
        )

"""Write an encoder for another library: prepare, write beside, reload, compare, rename, and write the card."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pretext.encoders.base import Encoder
from pretext.exporting.card import card_of
from pretext.exporting.checking import compared
from pretext.exporting.differences import TOLERANCE, Difference
from pretext.exporting.graph_formats import for_onnx, for_torchscript
from pretext.exporting.plain_format import for_safetensors
from pretext.exporting.prepared import WEIGHT_SUFFIXES, Prepared
from pretext.exporting.timm_format import for_timm
from pretext.exporting.torchvision_format import for_torchvision
from pretext.system.checkpoint import atomic_write, atomic_write_by_name, file_sha256
from pretext.system.errors import UserError, did_you_mean

FORMATS: Mapping[str, tuple[Callable[[Encoder], Prepared], tuple[str, ...]]] = {
    "timm": (for_timm, WEIGHT_SUFFIXES),
    "torchvision": (for_torchvision, WEIGHT_SUFFIXES),
    "torchscript": (for_torchscript, (".pt",)),
    "onnx": (for_onnx, (".onnx",)),
    "safetensors": (for_safetensors, (".safetensors",)),
}
"""The formats: what prepares an encoder, and the suffixes of the file."""


@dataclass(frozen=True)
class Exported:
    """A file for another library."""

    file: Path
    card: Path
    """The model card, beside the file."""
    prepared: Prepared
    difference: Difference


def export_encoder(encoder: Encoder, to: str, out: str | Path) -> Exported:
    """Write an encoder for another library, and a model card beside the file.

    The file is reloaded by the other library before it gets its name, and its outputs are compared with the
    encoder's. The encoder is not changed.

    Args:
        encoder: From `load_encoder` or `build_encoder`.
        to: `timm`, `torchvision`, `torchscript`, `onnx` or `safetensors`.
        out: File to write; the card is `out` with `.md` appended. Both are replaced.

    Raises:
        UserError: If the other library has no such network, the suffix is not the format's, or the outputs differ.
    """
    out = Path(out)
    check_out(to, out)
    prepare, _ = FORMATS[to]
    ours = copy.deepcopy(encoder).cpu().eval()
    prepared = prepare(ours)
    with atomic_write_by_name(out) as beside:
        prepared.write(beside)
        difference = compared(ours, prepared, beside)
        if not difference.accepted:
            raise UserError(
                f"{encoder.spec} as {prepared.title}: {difference}; allowed is {TOLERANCE:g} of it, "
                f"so {out} was not written; give another --to"
            )
        sha256 = file_sha256(beside)
    card = out.with_name(f"{out.name}.md")
    with atomic_write(card) as temporary:
        text = card_of(ours, prepared, difference, out.name, sha256)
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return Exported(out, card, prepared, difference)


def check_out(to: str, out: Path) -> None:
    """Refuse a format that does not exist, and a file whose suffix is not the format's."""
    if to not in FORMATS:
        raise UserError(f"unknown format {to!r}; {did_you_mean(to, FORMATS)}")
    suffixes = FORMATS[to][1]
    if out.suffix not in suffixes:
        raise UserError(f"--out {out}: a file for {to} ends in {' or '.join(suffixes)}; give such a name")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; give a file in it, such as {out / ('encoder' + suffixes[0])}")

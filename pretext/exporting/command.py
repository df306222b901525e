"""`python -m pretext export`: write an encoder for another library, with a model card."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from pretext.encoders import load_encoder
from pretext.encoders.weights import is_spec
from pretext.exporting.card import normalisation
from pretext.exporting.writing import check_out, export_encoder
from pretext.system.command_line import parse
from pretext.system.errors import UserError
from pretext.system.progress import working
from pretext.system.ranges import check_image_size

PROG = "python -m pretext export"
MOST_LINES = 12
"""More lines than these are not printed: the card has them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Write an encoder for timm, torchvision, TorchScript, ONNX or plain PyTorch, and a model card beside it.

    The file is reloaded by the other library and its outputs are compared with the encoder's before it gets its name.

    Examples:
        python -m pretext export --encoder mine.safetensors --to onnx --out mine.onnx
        python -m pretext export --encoder mine.safetensors --to timm --out resnet18.pth
    """

    encoder: str
    """Encoder file; `timm:NAME`; or external weights, as in `timm:resnet50?weights=FILE`."""
    to: Literal["timm", "torchvision", "torchscript", "onnx", "safetensors"]
    """timm and torchvision: weights under their own keys; torchscript and onnx: network, normalisation and weights;
    safetensors: the encoder's tensors alone."""
    out: Path
    """File to write: .safetensors or .pth for timm and torchvision, .pt for torchscript, .onnx, .safetensors."""
    image_size: int | None = None
    """Side in pixels, 224 if omitted; not allowed with an encoder file, which records its own."""

    def __post_init__(self) -> None:
        check_image_size(self.image_size)


def export_command(argv: list[str]) -> int:
    """Run the command; return the exit code.

    Raises:
        UserError: See `load_encoder` and `export_encoder`.
    """
    options = parse(Export, argv, prog=PROG)
    check_out(options.to, options.out)
    if options.image_size is not None and not is_spec(options.encoder):
        raise UserError(f"{options.encoder} records its own image size; remove --image-size")
    encoder = load_encoder(options.encoder, input_size=options.image_size)
    if not is_spec(options.encoder) and options.out.exists() and options.out.samefile(options.encoder):
        raise UserError(f"--out {options.out} is the encoder file itself; give another name")
    with working(f"write {options.out}"):
        made = export_encoder(encoder, options.to, options.out)
    print(f"{made.file}: {made.prepared.title}; {made.difference}")
    print(f"images: B×3×{encoder.input_size}×{encoder.input_size}, RGB, values from 0 to 1")
    print(f"normalisation: {normalisation(encoder, made.prepared)}")
    print("".join(f"{note}\n" for note in made.prepared.notes), end="")
    lines = made.prepared.load(str(made.file))
    if len(lines) > MOST_LINES:
        print(f"{made.card}: model card, with the {len(lines)} lines of Python that load the file")
    else:
        print("\n".join(["load it:", *(f"    {line}" for line in lines)]))
        print(f"{made.card}: model card, with lines for maps and vectors")
    return 0

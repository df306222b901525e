"""TorchScript and ONNX: files that hold the network and its normalisation besides the weights."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pretext.encoders.base import Encoder
from pretext.encoders.trials import first_line
from pretext.exporting.prepared import Prepared, call, literal
from pretext.system.errors import UserError

MOST_BYTES = (1 << 31) - (1 << 20)
"""Largest total of weights for one ONNX file; the format allows 2 GiB with everything else in it."""


class _Outputs(nn.Module):
    """The vector of each normalised image, then its maps."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, normalised: Tensor) -> list[Tensor]:
        maps = self.encoder.maps(normalised)
        return [maps[-1].mean(dim=(2, 3)), *maps]


class _Normalising(nn.Module):
    """Normalises images before a network; compiled, so that bytes and floats take their own way."""

    def __init__(self, network: Any, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = nn.Buffer(mean.clone()), nn.Buffer(std.clone())

    def forward(self, images: Tensor) -> list[Tensor]:
        if images.dtype == torch.uint8:
            images = images.float() / 255
        return self.network((images - self.mean) / self.std)


class _NormalisingFloats(_Normalising):
    """Normalises floats only: an ONNX graph has one type of input."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.network((images - self.mean) / self.std)


def for_torchscript(encoder: Encoder) -> Prepared:
    """Prepare a TorchScript file: images in, vectors and maps out.

    Raises:
        UserError: If the network cannot be traced.
    """

    def load(file: str) -> list[str]:
        return ["import torch", f"model = torch.jit.load({literal(file)}).eval()"]

    def write(path: Path) -> None:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # sizes become constants, which the comparison checks
            try:
                images = encoder.normalised(_images(encoder))
                # not strict: a list of outputs; not checked: `compared` does that, with other batches
                trace: Any = torch.jit.trace
                traced = trace(_Outputs(encoder), images, strict=False, check_trace=False)
                whole: Any = torch.jit.script(_Normalising(traced, encoder._mean, encoder._std))
            except Exception as error:  # whatever a network does that TorchScript cannot
                raise UserError(
                    f"{encoder.spec} cannot be traced ({first_line(error)}); --to safetensors or onnx may work"
                ) from error
            whole.save(str(path))

    side = encoder.input_size
    return Prepared(
        title="TorchScript",
        write=write,
        load=load,
        use=("vectors, *maps = model(images)",),
        tensors={},
        normalises=True,
        notes=(
            "The network takes float images from 0 to 1, or uint8 from 0 to 255.",
            f"It was traced at {side}×{side} px; the batch can have any size, and other sides were not tried.",
        ),
    )


def for_onnx(encoder: Encoder) -> Prepared:
    """Prepare an ONNX file with a dynamic batch axis: images in, `vectors` and a map for each stage out.

    Raises:
        UserError: If a library is missing, or the network is too large or cannot be exported.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # torch's exporter uses it
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; run pip install 'pretext-bench[export]'") from None
    del onnx, onnxruntime, onnxscript
    size = sum(value.numel() * value.element_size() for value in encoder.state_dict().values())
    if size > MOST_BYTES:
        raise UserError(
            f"{encoder.spec} has {size / 1e9:.1f} GB of weights, and an ONNX file holds 2 GB; --to torchscript works"
        )
    names = ["vectors", *(stage.name for stage in encoder.stages)]

    def load(file: str) -> list[str]:
        return ["import onnxruntime", f"session = {call('onnxruntime.InferenceSession', file)}"]

    def write(path: Path) -> None:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            try:
                program = torch.onnx.export(
                    _NormalisingFloats(_Outputs(encoder), encoder._mean, encoder._std).eval(),
                    (_images(encoder),),
                    input_names=["images"],
                    output_names=names,
                    dynamic_shapes=({0: torch.export.Dim("batch")},),
                    dynamo=True,
                    verbose=False,
                )
            except Exception as error:  # whatever a network does that the exporter cannot
                raise UserError(
                    f"{encoder.spec} cannot be written as ONNX ({first_line(error)}); --to torchscript may work"
                ) from error
        assert program is not None
        path.write_bytes(_without_places(program.model_proto).SerializeToString())

    side = encoder.input_size
    return Prepared(
        title="ONNX",
        write=write,
        load=load,
        use=('vectors, *maps = session.run(None, {"images": images})',),
        tensors={},
        normalises=True,
        takes_arrays=True,
        notes=(
            f"The input `images` takes float32 arrays B×3×{side}×{side} from 0 to 1, for any batch B.",
            f"The outputs are {', '.join(f'`{name}`' for name in names)}; ask only for those that you need.",
        ),
    )


def _without_places(model: Any) -> Any:
    """Return an ONNX model without the places in source files, and so paths of this machine, that torch notes in it."""
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in nodes:
            del node.metadata_props[:]
    for each in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del each.metadata_props[:]
    del model.graph.metadata_props[:]
    return model


def _images(encoder: Encoder) -> Tensor:
    """Return two images to trace with: with one, torch takes the batch for a constant."""
    side = encoder.input_size
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))

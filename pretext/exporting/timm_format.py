"""timm's networks: the whole network without a classifier, or the feature extractor that the encoder is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pretext.datasets.files import some
from pretext.encoders.base import Encoder, evaluating
from pretext.encoders.layouts import NO_WEIGHTS
from pretext.encoders.timm import flat_name
from pretext.exporting.differences import Difference
from pretext.exporting.prepared import Prepared, call, normalising, of_tensors, read_line, run
from pretext.system.errors import UserError
from pretext.system.specs import parse_spec

CREATE = "timm.create_model"


def for_timm(encoder: Encoder) -> Prepared:
    """Prepare the keys of `timm.create_model(NAME, num_classes=0, checkpoint_path=FILE)`.

    Raises:
        UserError: If timm has no such network, or it does not give its maps.
    """
    if not is_timm(encoder):
        own = parse_spec(encoder.spec).kind == "torchvision"
        problem = f"{encoder.spec} has torchvision's names" if own else f"timm has no network like {encoder.spec}"
        raise UserError(f"{problem}; --to {'torchvision, ' if own else ''}safetensors, torchscript or onnx works")
    name = parse_spec(encoder.spec).path
    network, options = network_of(encoder)
    if not hasattr(network, "forward_intermediates"):
        raise UserError(f"timm's {name} does not give its maps; --to safetensors, torchscript or onnx works")
    state, ours = network.state_dict(), named_as(encoder, network.state_dict())
    left = [key for key in state if key not in ours and not key.endswith(NO_WEIGHTS)]
    notes = []
    if left:
        notes.append(
            f"timm's network also has {some(left)}, which the encoder lacks. They have their initial values, so that "
            "the file loads strictly; maps and vectors do not pass through them, but model(normalised) does."
        )

    def load(file: str) -> list[str]:
        created = call(CREATE, name, num_classes=0, **options, checkpoint_path=file)
        return ["import timm", "import torch", f"model = {created}.eval()"]

    use = [
        *normalising(encoder),
        "maps = model.forward_intermediates(normalised, intermediates_only=True)",
        pooling(network, encoder, state | ours),
    ]
    return of_tensors(f"timm's {name}", state | ours, load, use, notes)


def for_timm_features(encoder: Encoder) -> Prepared:
    """Prepare the tensors of the encoder alone, under the keys of timm's feature extractor."""
    name, (_, options) = parse_spec(encoder.spec).path, network_of(encoder)
    model: Any = encoder.model

    def load(file: str) -> list[str]:
        importing, read = read_line(file)
        created = call(CREATE, name, features_only=True, **options)
        return [
            *dict.fromkeys(["import timm", "import torch", importing]),
            f"model = {created}.eval()",
            f"model.load_state_dict({read})",
        ]

    last = getattr(model, "output_fmt", "NCHW") == "NHWC"
    use = [
        *normalising(encoder),
        "maps = [each.permute(0, 3, 1, 2) for each in model(normalised)]" if last else "maps = model(normalised)",
        "vectors = maps[-1].mean(dim=(2, 3))",
    ]
    return of_tensors(f"the feature extractor of timm's {name}", model.state_dict(), load, use)


def is_timm(encoder: Encoder) -> bool:
    """Return whether the encoder is a network of timm's."""
    return parse_spec(encoder.spec).kind == "timm"


def network_of(encoder: Encoder) -> tuple[Any, dict[str, int]]:
    """Return timm's whole network without a classifier, in evaluation mode, and the keywords beside its name."""
    parsed, side = parse_spec(encoder.spec), encoder.input_size
    options = {"patch_size": int(parsed.options["patch_size"])} if "patch_size" in parsed.options else {}

    def created(**options: int) -> Any:
        return run(["import timm", f"model = {call(CREATE, parsed.path, num_classes=0, **options)}"])["model"].eval()

    try:
        network = created(img_size=side, **options)
    except TypeError:  # networks without positions take any size
        return created(**options), options
    usual = network.pretrained_cfg["input_size"][-1]
    return network, options if side == usual else {"img_size": side, **options}


def named_as(encoder: Encoder, whole: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's tensors under the names of timm's whole network.

    Raises:
        UserError: If the encoder has a tensor that the network lacks, or of another shape.
    """
    model: Any = encoder.model
    names = {flat_name(name): name for name in whole}
    found: dict[str, Tensor] = {}
    for own, value in model.state_dict().items():
        name = names.get(flat_name(own))
        if name is None or whole[name].shape != value.shape:
            expected = "is not among its tensors" if name is None else f"has shape {tuple(whole[name].shape)} there"
            raise UserError(
                f"{encoder.spec} does not fit timm's network: {own} with shape {tuple(value.shape)} {expected}; "
                "--to safetensors, torchscript or onnx works"
            )
        found[name] = value
    return found


def pooling(network: Any, encoder: Encoder, state: dict[str, Tensor]) -> str:
    """Return the line that defines `vectors`: a call of the network where that gives the encoder's vectors.

    Args:
        network: The other library's network, in evaluation mode; it is given `state`.
        encoder: The encoder.
        state: The tensors of the file.
    """
    network.load_state_dict(state)
    side = encoder.input_size
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), evaluating(encoder):
        given, wanted = network(encoder.normalised(images)), encoder.embed(images)
    for form in ("", ".flatten(1)"):
        pooled = given.flatten(1) if form else given
        if pooled.shape == wanted.shape and Difference.between(pooled, wanted).accepted:
            return f"vectors = model(normalised){form}"
    return "vectors = maps[-1].mean(dim=(2, 3))"

"""torchvision's names of networks that timm also has: a file's tensors under timm's names.

Whether two networks are one depends on more than shapes: on padding, epsilon and activation. `FAMILIES` lists the
timm models for which outputs were compared with torchvision's, and refuses all others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from pretext.encoders.layouts import Layout
from pretext.system.errors import UserError

Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]


@dataclass(frozen=True)
class Family:
    """One of torchvision's families of networks."""

    name: str
    """Name of the family, for messages and records."""
    signature: str
    """Name of a tensor that every network of the family has, and no other one."""
    models: str
    """Regular expression of the timm models that are the same networks; an empty one if there are none."""
    remedy: str
    """What to do where the timm model is another network."""
    rules: Callable[[Mapping[str, Tensor]], Rules] = lambda _: ()
    """Gives regular expressions for the start of torchvision's names, and timm's names; the first match applies."""


def translated(tensors: Mapping[str, Tensor], model: str, file: str | None) -> tuple[dict[str, Tensor], Layout | None]:
    """Return a file's tensors with torchvision's names replaced by timm's, and the layout; None if nothing changed.

    Args:
        tensors: Tensors of the file, from `read_weights`.
        model: Name of the timm model.
        file: The file, for the error message.

    Raises:
        UserError: If the file holds a network that the timm model is not.
    """
    found, layout = dict(tensors), None
    for family in FAMILIES:
        starts = [
            name.removesuffix(family.signature) for name in tensors if f".{name}".endswith(f".{family.signature}")
        ]
        for start in starts:
            if not re.fullmatch(family.models, model):
                raise UserError(f"{file} holds torchvision's {family.name}, which timm:{model} is not; {family.remedy}")
            part = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
            for name, ours in timm_names(part).items():
                del found[start + name]
                found[start + ours] = part[name].flatten() if name.endswith(".layer_scale") else part[name]
            layout = Layout(f"torchvision's {family.name}", imagenet=True)
    return found, layout


def timm_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return timm's name of each tensor of one of torchvision's networks; families beside `FAMILIES` share names."""
    family = next((family for family in FAMILIES if family.signature in tensors), None)
    rules = family.rules(tensors) if family else ()
    return {name: _renamed(name, rules) for name in tensors}


def _renamed(name: str, rules: Rules) -> str:
    for pattern, beginning in rules:
        renamed, count = re.subn(rf"^{pattern}", beginning, name)
        if count:
            return renamed
    return name


def _half(form: str) -> Callable[[re.Match[str]], str]:
    """Return a replacement: the first group is a position in `features`, where stages and poolings alternate."""
    return lambda found: form.format(int(found[1]) // 2, *found.groups()[1:])


def _convnext(tensors: Mapping[str, Tensor]) -> Rules:
    block = r"features\.(\d*[13579])\.(\d+)\."
    parts = {r"block\.0": "conv_dw", r"block\.2": "norm", r"block\.3": "mlp.fc1", r"block\.5": "mlp.fc2"}
    return (
        (r"features\.0\.", "stem."),
        *((f"{block}{theirs}", _half("stages.{}.blocks.{}." + ours)) for theirs, ours in parts.items()),
        (rf"{block}layer_scale", _half("stages.{}.blocks.{}.gamma")),
        (r"features\.(\d+)\.", _half("stages.{}.downsample.")),
        (r"classifier\.0\.", "head.norm."),
        (r"classifier\.2\.", "head.fc."),
    )


def _swin(tensors: Mapping[str, Tensor]) -> Rules:
    block = r"features\.(\d*[13579])\.(\d+)\."
    return (
        (r"features\.0\.0\.", "patch_embed.proj."),
        (r"features\.0\.2\.", "patch_embed.norm."),
        (rf"{block}mlp\.0\.", _half("layers.{}.blocks.{}.mlp.fc1.")),
        (rf"{block}mlp\.3\.", _half("layers.{}.blocks.{}.mlp.fc2.")),
        (block, _half("layers.{}.blocks.{}.")),
        (r"features\.(\d+)\.", _half("layers.{}.downsample.")),
        (r"head\.", "head.fc."),
    )


def _regnet(tensors: Mapping[str, Tensor]) -> Rules:
    def block(ours: str) -> Callable[[re.Match[str]], str]:
        return lambda found: f"s{found[1]}.b{int(found[2]) + 1}.{ours}"

    convs = {r"proj\.": "downsample.", r"f\.a\.": "conv1.", r"f\.b\.": "conv2.", r"f\.c\.": "conv3."}
    start = r"trunk_output\.block(\d+)\.block\d+-(\d+)\."
    return (
        (r"stem\.0\.", "stem.conv."),
        (r"stem\.1\.", "stem.bn."),
        *((f"{start}{theirs}0", block(f"{ours}conv")) for theirs, ours in convs.items()),
        *((f"{start}{theirs}1", block(f"{ours}bn")) for theirs, ours in convs.items()),
        (rf"{start}f\.se\.", block("se.")),
        (r"fc\.", "head.fc."),
    )


def _stem_and_head(tensors: Mapping[str, Tensor]) -> Rules:
    last = max(int(found[1]) for name in tensors if (found := re.match(r"features\.(\d+)\.", name)))
    return (
        (r"features\.0\.0\.", "conv_stem."),
        (r"features\.0\.1\.", "bn1."),
        (rf"features\.{last}\.0\.", "conv_head."),
        (rf"features\.{last}\.1\.", "bn2."),
        (r"classifier\.1\.", "classifier."),
    )


_EXPANDED, _PLAIN = ("conv_pw", "conv_dw", "conv_pwl"), ("conv_dw", "conv_pw")


def _efficientnet(tensors: Mapping[str, Tensor]) -> Rules:
    rules: list[tuple[str, str | Callable[[re.Match[str]], str]]] = list(_stem_and_head(tensors))
    for start, stage, index in _blocks(tensors, r"(features\.(\d+)\.(\d+)\.)block\."):
        convs = [i for i in range(4) if f"{start}block.{i}.0.weight" in tensors]
        ours = f"blocks.{int(stage) - 1}.{index}."
        for number, (i, name) in enumerate(zip(convs, _EXPANDED if len(convs) == 3 else _PLAIN, strict=False), start=1):
            rules += [
                (rf"{re.escape(start)}block\.{i}\.0\.", f"{ours}{name}."),
                (rf"{re.escape(start)}block\.{i}\.1\.", f"{ours}bn{number}."),
            ]
        rules += [
            (rf"{re.escape(start)}block\.\d\.fc1\.", f"{ours}se.conv_reduce."),
            (rf"{re.escape(start)}block\.\d\.fc2\.", f"{ours}se.conv_expand."),
        ]
    return tuple(rules)


def _mobilenet_v2(tensors: Mapping[str, Tensor]) -> Rules:
    rules: list[tuple[str, str | Callable[[re.Match[str]], str]]] = list(_stem_and_head(tensors))
    places = [(stage, i) for stage, blocks in enumerate((1, 2, 3, 4, 3, 3, 1)) for i in range(blocks)]
    for (start, *_), (stage, index) in zip(_blocks(tensors, r"(features\.(\d+)\.)conv\."), places, strict=False):
        names = _EXPANDED if f"{start}conv.1.0.weight" in tensors else _PLAIN
        theirs = [f"{i}.{part}" for i in range(len(names) - 1) for part in (0, 1)] + [
            str(len(names) - 1),
            str(len(names)),
        ]
        ours = [part for number, name in enumerate(names, start=1) for part in (name, f"bn{number}")]
        rules += [
            (rf"{re.escape(f'{start}conv.{a}.')}", f"blocks.{stage}.{index}.{b}.")
            for a, b in zip(theirs, ours, strict=True)
        ]
    return tuple(rules)


def _blocks(tensors: Mapping[str, Tensor], pattern: str) -> list[tuple[str, ...]]:
    """Return the groups of a pattern for every block in the file, in the order of their numbers."""
    found = {match.groups() for name in tensors if (match := re.match(pattern, name))}
    return sorted(found, key=lambda groups: tuple(int(group) for group in groups[1:]))


FAMILIES = (
    Family(
        "ConvNeXt",
        "features.1.0.layer_scale",
        "convnext_(tiny|small|base|large)",
        "give the model of its size: timm:convnext_tiny, _small, _base or _large",
        _convnext,
    ),
    Family(
        "Swin",
        "features.1.0.attn.relative_position_bias_table",
        "swin_(tiny|small|base)_patch4_window7_224",
        "give the model of its size: timm:swin_tiny_patch4_window7_224, swin_small_… or swin_base_…",
        _swin,
    ),
    Family(
        "RegNet",
        "trunk_output.block1.block1-0.f.a.0.weight",
        r"regnet[xy]_\d+(_tv)?",
        "give the model of its size, such as timm:regnety_004 for regnet_y_400mf",
        _regnet,
    ),
    Family(
        "EfficientNet",
        "features.1.0.block.0.0.weight",
        "efficientnet_b[0-4]",
        "only B0 to B4 are the same networks in timm, as timm:efficientnet_b0 to b4 (others differ in epsilon)",
        _efficientnet,
    ),
    Family(
        "MobileNetV2",
        "features.1.conv.0.0.weight",
        "mobilenetv2_100",
        "give timm:mobilenetv2_100",
        _mobilenet_v2,
    ),
    Family(
        "MobileNetV3",
        "features.1.block.0.0.weight",
        "",
        "timm has no network with its epsilon and padding, so it cannot be loaded",
    ),
    Family(
        "Swin V2",
        "features.1.0.attn.logit_scale",
        "",
        "its tensors for positions and biases are divided otherwise in timm, so it cannot be loaded",
    ),
)
"""torchvision's families whose names differ from timm's."""

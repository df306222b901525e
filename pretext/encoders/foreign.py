"""Weights from elsewhere: whose names they go by, which part of a file is the encoder, and what became of the rest.

What is known of other projects are tables: `LAYOUTS` says how they name an encoder's tensors, `SHADOWS` which of two
equally good encoders in a file is not the one that its authors judge, `HEADS` what may stand beside one.
What an encoder lies under (`state_dict.module.encoder_q.` for one) needs no table: it is what is left in front of
most of its names.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from pretext.encoders.base import Encoder
from pretext.encoders.weights import is_spec, not_loaded, read_weights, weights_file
from pretext.system.errors import UserError
from pretext.system.specs import parse_spec, with_option, without_options

Some = TypeVar("Some", bound=Encoder)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a project names the tensors of an encoder."""

    name: str
    renames: tuple[tuple[str, str], ...] = ()
    """Beginnings of our names (regular expressions) and theirs; the first that fits counts."""
    imagenet: bool = False
    """Whether such weights want pictures of ImageNet's mean and deviation, whatever timm says of the architecture."""

    def theirs(self, ours: str) -> str:
        """Return their name of a tensor of ours."""
        for pattern, beginning in self.renames:
            renamed, found = re.subn(f"^{pattern}", beginning, ours)
            if found:
                return renamed
        return ours


_BLOCK, _LAYER = r"blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."
_TORCHVISION_VIT = (
    ("cls_token", "class_token"),
    ("pos_embed", "encoder.pos_embedding"),
    (r"patch_embed\.proj", "conv_proj"),
    (rf"{_BLOCK}norm(\d)", rf"{_LAYER}ln_\2"),
    (rf"{_BLOCK}attn\.qkv\.", rf"{_LAYER}self_attention.in_proj_"),
    (rf"{_BLOCK}attn\.proj", rf"{_LAYER}self_attention.out_proj"),
    (r"norm\.", "encoder.ln."),
    (r"head\.", "heads.head."),
)

LAYOUTS = (
    # timm's names, this suite's, and every project's whose networks are timm's or torchvision's: timm names the
    # tensors of ResNets, VGGs and DenseNets as torchvision does.
    Layout("own names"),
    Layout(
        "torchvision's ViT",
        (*_TORCHVISION_VIT, (rf"{_BLOCK}mlp\.fc1", rf"{_LAYER}mlp.0"), (rf"{_BLOCK}mlp\.fc2", rf"{_LAYER}mlp.3")),
        imagenet=True,
    ),
    Layout(  # as in files from before torchvision 0.13
        "torchvision's older ViT",
        (*_TORCHVISION_VIT, (rf"{_BLOCK}mlp\.fc(\d)", rf"{_LAYER}mlp.linear_\2")),
        imagenet=True,
    ),
    Layout(  # lightly's examples: nn.Sequential(*list(resnet.children())[:-1])
        "a ResNet's children by number",
        (
            (r"conv1\.", "0."),
            (r"bn1\.", "1."),
            *((rf"layer{n}\.", f"{n + 3}.") for n in (1, 2, 3, 4)),
        ),
    ),
    Layout("VISSL's ViT", (("cls_token", "class_token"), ("pos_embed", "pos_embedding")), imagenet=True),
    Layout(  # it computes what alexnet?norm=local_response&groups=2 does
        "VISSL's alexnet_bvlc",
        tuple((rf"convs\.{i}\.0\.", f"{block}.0.") for i, block in enumerate((0, 2, 4, 5, 6))),
    ),
)

SHADOWS = (
    "encoder_k",  # MoCo: beside encoder_q
    "momentum_encoder",  # MoCo v3: beside base_encoder; older solo-learn: beside encoder
    "momentum_backbone",  # solo-learn: beside backbone
    "backbone_momentum",  # lightly: beside backbone
    "target_encoder",  # BYOL: beside online_encoder
    "student",  # DINO: its teacher is the one judged
    "student_backbone",  # lightly's DINO: beside backbone or teacher_backbone
    "loss",  # VISSL: momentum encoders are parts of its losses
)
"""Parts of a file that are passed over where it holds the same encoder elsewhere too."""

HEADS = (
    "fc",
    "head",
    "classifier",
    "linear",
    "online_classifier",
    "proj",
    "pred",
    "proto",
    "momentum_",
    "decoder",
    "mask_token",
    "queue",
)
"""Beginnings of names that may stand beside an encoder: heads, decoders, queues."""

NO_WEIGHTS = ("num_batches_tracked", "relative_position_index", "attn_mask")
"""Ends of names of counters and indices, which are neither missed nor minded."""


@dataclasses.dataclass(frozen=True)
class FromFile:
    """Options of every family: weights from a file."""

    weights: str | None = None
    """Start from the weights in a file, .safetensors or .pth, of timm, torchvision, VISSL, solo-learn, lightly or
    whoever names tensors as they do; no network is needed."""
    prefix: str | None = None
    """Which encoder of several in the file, by what is in front of its names: prefix=momentum_encoder."""
    allow_partial: bool = False
    """Go on where the file holds less than the whole encoder, or tensors of unknown use; the rest stays random."""

    def __post_init__(self) -> None:
        if self.weights is None and (self.prefix is not None or self.allow_partial):
            raise ValueError("prefix and allow_partial say how a file is read; give weights=FILE too")


FILE_OPTIONS = tuple(field.name for field in dataclasses.fields(FromFile))
"""What in a spec says where weights come from, and is no part of the architecture."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """What of a file goes where in an encoder."""

    tensors: dict[str, Tensor]
    """By the encoder's own names."""
    layout: Layout
    prefix: str
    """What was in front of every name."""
    needed: int
    """Tensors that the encoder wants."""
    skipped: dict[str, int]
    """Tensors that were left in the file, by the part that they lie in."""
    random: tuple[str, ...]
    """Tensors that are left as they were drawn."""

    def record(self) -> dict[str, Any]:
        """Return what an encoder's record says of it."""
        return {
            "layout": self.layout.name,
            "prefix": self.prefix,
            "loaded": self.needed - len(self.random),
            "needed": self.needed,
            "skipped": self.skipped,
            "left_random": list(self.random),
        }


def fit(
    tensors: Mapping[str, Tensor],
    model: Mapping[str, Tensor],
    needed: Collection[str],
    config: FromFile,
    what: str,
    *,
    resampled: str | None = None,
) -> Fit:
    """Find an encoder in a file, under whatever names.

    Args:
        tensors: What the file holds; see `read_weights`.
        model: The state of the encoder, or of the model that it is a part of: a classifier is then known as such.
        needed: The model's names that the encoder wants.
        config: Says which file, which of several encoders, and whether a part will do.
        what: The encoder's spec, for the error.
        resampled: Part of the names that may be of any size, as position embeddings are for other pictures.

    Raises:
        UserError: If the file holds none, two equally good ones, less than the whole of one or, by its tensors,
            another architecture's; the last two only where a part will not do.
    """
    mismatch = f"{config.weights} does not fit {what}"
    needed = [name for name in needed if not name.endswith(NO_WEIGHTS)]

    def fits(ours: str, theirs: Tensor) -> bool:
        return model[ours].shape == theirs.shape or (resampled is not None and resampled in ours)

    fitting: Counter[tuple[Layout, str]] = Counter()
    named: Counter[tuple[Layout, str]] = Counter()
    for layout in LAYOUTS:
        wanted = {layout.theirs(name): name for name in needed}
        for name, value in tensors.items():
            for start in _beginnings(name):
                if name[start:] in wanted:
                    named[layout, name[:start]] += 1
                    fitting[layout, name[:start]] += fits(wanted[name[start:]], value)
    votes = {place: (fitting[place], number) for place, number in named.items()}
    layout, prefix = _chosen(votes, config, mismatch, tensors)

    ours = {prefix + layout.theirs(name): name for name in model}
    found = {ours[name]: value for name, value in tensors.items() if name in ours and fits(ours[name], value)}
    left = tuple(name for name in needed if name not in found)
    unknown = [
        name
        for name in tensors
        if name.startswith(prefix)
        and name not in ours
        and not name.removeprefix(prefix).startswith(HEADS)
        and not name.endswith(NO_WEIGHTS)
    ]
    part = len(left) < len(needed)
    if not (config.allow_partial and part):
        there = {name: prefix + layout.theirs(name) for name in left}
        not_loaded(
            mismatch,
            missing=[name for name in left if there[name] not in tensors],
            extra=unknown,
            misshapen={
                name: (tensors[there[name]].shape, model[name].shape) for name in left if there[name] in tensors
            },
            remedy="; --allow-partial, or &allow_partial=true, loads what fits" if part else "",
        )
    wanted_names = {prefix + layout.theirs(name) for name in needed if name in found}
    skipped = Counter(
        _part(name, prefix) for name in tensors if name not in wanted_names and not name.endswith(NO_WEIGHTS)
    )
    return Fit(found, layout, prefix, len(needed), dict(sorted(skipped.items())), left)


def from_file(encoder: Some, config: FromFile) -> Some:
    """Return the encoder with the weights of the file that its options name; as it is where they name none.

    Raises:
        UserError: See `fit`.
    """
    encoder.spec = without_options(encoder.spec, *FILE_OPTIONS)
    if config.weights is None:
        return encoder
    own = encoder.state_dict()
    found = fit(read_weights(Path(config.weights)), own, own, config, encoder.spec)
    encoder.load_state_dict(own | found.tensors)
    encoder.record = {"weights": found.record()}
    return encoder


def allowing_partial(source: str, allow: bool) -> str:
    """Return an encoder's source, told to go on with a part of its weights; only where they come from elsewhere."""
    return with_option(source, "allow_partial", "true") if allow and weights_file(source) is not None else source


def loaded_line(encoder: Encoder, source: str) -> str:
    """Return a line that says what was loaded, skipped and left random."""
    about: Any = encoder.record.get("weights")
    if about is None:
        if is_spec(source) and parse_spec(source).options.get("pretrained", "").lower() in ("false", "0", "no"):
            return f"{source}: nothing loaded; all {len(encoder.state_dict())} tensors left random"
        return f"{source}: all {len(encoder.state_dict())} tensors loaded; none skipped, none left random"
    skipped = ", ".join(f"{part} ({number})" for part, number in about["skipped"].items()) or "none"
    left = about["left_random"]
    some = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
    under = f" under {about['prefix']}" if about["prefix"] else ""
    mean = " ".join(f"{value:.3g}" for value in encoder.mean)
    return (
        f"{source}: {about['loaded']} of {about['needed']} tensors loaded, {about['layout']}{under}; "
        f"skipped: {skipped}; left random: {some or 'none'}; pictures normalised by mean {mean}"
    )


def _chosen(
    votes: Mapping[tuple[Layout, str], tuple[int, int]], config: FromFile, mismatch: str, tensors: Mapping[str, Tensor]
) -> tuple[Layout, str]:
    """Return the layout and prefix under which most tensors fit, and of those, most are named."""
    asked = "." + (config.prefix or "").strip(".")
    places = {
        place: number
        for place, number in votes.items()
        if config.prefix is None or ("." + place[1].rstrip(".")).endswith(asked)
    }
    if not places:
        names = list(tensors)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        under = f" under prefix={config.prefix}" if config.prefix is not None else ""
        raise UserError(f"{mismatch}: none of its tensors is there{under}; it holds {', '.join(names[:3])}{more}")
    best = max(places.values())
    # layouts differ in few names, and those of the first one come first
    tied = {place[1]: place[0] for place in reversed(places) if places[place] == best}
    lit = {prefix: layout for prefix, layout in tied.items() if not set(prefix.split(".")) & set(SHADOWS)}
    prefix, *others = sorted(lit or tied)
    if others:
        raise UserError(
            f"{mismatch}: it holds one under {prefix or 'no prefix'} and another under {others[0]}; "
            f"say which, as in &prefix={others[0].rstrip('.')}"
        )
    return (lit or tied)[prefix], prefix


def _beginnings(name: str) -> Iterable[int]:
    """Yield where the parts of a dotted name begin."""
    yield 0
    yield from (match.end() for match in re.finditer(r"\.", name))


def _part(name: str, prefix: str) -> str:
    """Return the part of a file in which a tensor lies: its name up to the first word that is not in the prefix."""
    words, there = name.split("."), prefix.split(".")
    shared = next((i for i, (word, other) in enumerate(zip(words, there, strict=False)) if word != other), len(there))
    return ".".join(words[: shared + 1])

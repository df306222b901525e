"""External checkpoints: find an encoder among the tensors of a file, and report what was skipped or left random.

The names that other projects use are in `pretext.encoders.layouts`. The prefix of the names in a file, such as
`state_dict.module.encoder_q.`, needs no table: it is the prefix under which most tensors match.
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
from pretext.encoders.layouts import HEADS, LAYOUTS, NO_WEIGHTS, SECONDARY, Layout
from pretext.encoders.weights import is_code, is_spec, raise_mismatches, read_weights, weights_file
from pretext.system.errors import UserError
from pretext.system.specs import parse_spec, with_option, without_options

EncoderType = TypeVar("EncoderType", bound=Encoder)


@dataclasses.dataclass(frozen=True)
class WeightsConfig:
    """Options of every encoder family: load an external checkpoint."""

    weights: str | None = None
    """Load weights from a .safetensors or .pth file with the tensor names of timm, torchvision, VISSL, solo-learn or
    lightly."""
    prefix: str | None = None
    """Select one of several encoders in the file by its name prefix, for example momentum_encoder."""
    allow_partial: bool = False
    """Accept files that lack tensors of the encoder or have unknown ones; missing tensors stay random."""

    def __post_init__(self) -> None:
        if self.weights is None and (self.prefix is not None or self.allow_partial):
            raise ValueError("prefix and allow_partial apply only to a weight file; give weights=FILE too")


FILE_OPTIONS = tuple(field.name for field in dataclasses.fields(WeightsConfig))
"""Options of a spec that select weights and are not part of the architecture."""


@dataclasses.dataclass(frozen=True)
class Match:
    """An encoder that was found in a file."""

    tensors: dict[str, Tensor]
    """Tensors to load, by the model's names."""
    layout: Layout
    """Naming scheme of the file."""
    prefix: str
    """Prefix of the encoder's names in the file."""
    needed: int
    """Number of tensors in the encoder."""
    skipped: dict[str, int]
    """Number of tensors in the file that are not used, by part of the file."""
    random: tuple[str, ...]
    """Names of the encoder's tensors that keep their random values."""

    def record(self) -> dict[str, Any]:
        """Return the entry `weights` of the encoder's record."""
        return {
            "layout": self.layout.name,
            "prefix": self.prefix,
            "loaded": self.needed - len(self.random),
            "needed": self.needed,
            "skipped": self.skipped,
            "left_random": list(self.random),
        }


def match_weights(
    tensors: Mapping[str, Tensor],
    model: Mapping[str, Tensor],
    needed: Collection[str],
    config: WeightsConfig,
    spec: str,
    *,
    source: str | None = None,
    resampled: str | None = None,
) -> Match:
    """Find an encoder among the tensors of a file, by names and shapes.

    Every layout and prefix is tried; the pair under which most tensors match is chosen.

    Args:
        tensors: Tensors of the file, from `read_weights`.
        model: State dict of the encoder, or of the whole model with its classifier.
        needed: Names in `model` that the encoder consists of.
        config: The file, the prefix, and whether a partial match is allowed.
        spec: The encoder's spec, for the error message.
        source: What the tensors are from, for the error message; None is the file.
        resampled: Tensors with this text in their name match in any shape (position embeddings).

    Raises:
        UserError: If no encoder or two equally good ones are found. Without `allow_partial`, also if tensors are
            missing, of another shape, or unknown.
    """
    mismatch = f"{source or config.weights} does not fit {spec}"
    needed = [name for name in needed if not name.endswith(NO_WEIGHTS)]

    def fits(ours: str, theirs: Tensor) -> bool:
        return model[ours].shape == theirs.shape or (resampled is not None and resampled in ours)

    fitting: Counter[tuple[Layout, str]] = Counter()  # tensors whose name and shape match
    named: Counter[tuple[Layout, str]] = Counter()  # tensors whose name matches
    for layout in LAYOUTS:
        wanted = {layout.theirs(name): name for name in needed}
        for name, value in tensors.items():
            for start in _part_starts(name):
                if name[start:] in wanted:
                    named[layout, name[:start]] += 1
                    fitting[layout, name[:start]] += fits(wanted[name[start:]], value)
    votes = {place: (fitting[place], number) for place, number in named.items()}
    layout, prefix = _choose(votes, config, mismatch, tensors)

    others = tuple(
        place[1] for place, number in votes.items() if number == votes[layout, prefix] and place[1] != prefix
    )
    others = tuple(other for other in others if other.startswith(prefix))  # encoders below the chosen one

    ours = {prefix + layout.theirs(name): name for name in model}
    matched = {ours[name]: value for name, value in tensors.items() if name in ours and fits(ours[name], value)}
    left = tuple(name for name in needed if name not in matched)
    unknown = [
        name
        for name in tensors
        if name.startswith(prefix)
        and name not in ours
        and not name.removeprefix(prefix).startswith(HEADS)
        and not name.endswith(NO_WEIGHTS)
        and not name.startswith(others)
    ]
    any_matched = len(left) < len(needed)
    if not (config.allow_partial and any_matched):
        in_file = {name: prefix + layout.theirs(name) for name in left}
        raise_mismatches(
            mismatch,
            missing=[name for name in left if in_file[name] not in tensors],
            extra=unknown,
            misshapen={
                name: (tensors[in_file[name]].shape, model[name].shape) for name in left if in_file[name] in tensors
            },
            remedy="; --allow-partial or &allow_partial=true loads the tensors that fit" if any_matched else "",
        )
    used = {prefix + layout.theirs(name) for name in needed if name in matched}
    skipped = Counter(_part(name, prefix) for name in tensors if name not in used and not name.endswith(NO_WEIGHTS))
    return Match(matched, layout, prefix, len(needed), dict(sorted(skipped.items())), left)


def load_weights(encoder: EncoderType, config: WeightsConfig) -> EncoderType:
    """Load the option `weights` into an encoder, in place, and return it; without the option nothing is loaded.

    Raises:
        UserError: See `match_weights`.
    """
    encoder.spec = without_options(encoder.spec, *FILE_OPTIONS)
    if config.weights is None:
        return encoder
    state = encoder.state_dict()
    match = match_weights(read_weights(Path(config.weights)), state, state, config, encoder.spec)
    encoder.load_state_dict(state | match.tensors)
    encoder.record = {"weights": match.record()}
    return encoder


def with_allow_partial(source: str, allow: bool) -> str:
    """Add `allow_partial=true` to an encoder source that names a weight file, if `allow`."""
    return with_option(source, "allow_partial", "true") if allow and weights_file(source) is not None else source


def loaded_line(encoder: Encoder, source: str) -> str:
    """Return one line about the tensors that were loaded, skipped and left random.

    Args:
        encoder: From `load_encoder`.
        source: The source it was loaded from.
    """
    weights: Any = encoder.record.get("weights")
    if weights is None:
        if is_spec(source) and parse_spec(source).options.get("pretrained", "").lower() in ("false", "0", "no"):
            return f"{source}: nothing loaded; all {len(encoder.state_dict())} tensors left random"
        if is_code(source):
            return f"{source}: nothing loaded; all {len(encoder.state_dict())} tensors are as the file sets them"
        return f"{source}: all {len(encoder.state_dict())} tensors loaded; none skipped, none left random"
    skipped = ", ".join(f"{part} ({number})" for part, number in weights["skipped"].items()) or "none"
    left = weights["left_random"]
    first = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
    under = f" under {weights['prefix']}" if weights["prefix"] else ""
    mean = " ".join(f"{value:.3g}" for value in encoder.mean)
    return (
        f"{source}: {weights['loaded']} of {weights['needed']} tensors loaded, {weights['layout']}{under}; "
        f"skipped: {skipped}; left random: {first or 'none'}; images normalised by mean {mean}"
    )


def _choose(
    votes: Mapping[tuple[Layout, str], tuple[int, int]],
    config: WeightsConfig,
    mismatch: str,
    tensors: Mapping[str, Tensor],
) -> tuple[Layout, str]:
    """Return the layout and prefix with most matches by name and shape, then most by name.

    Args:
        votes: Both numbers of matches, by layout and prefix.
        config: Its `prefix` restricts the choice.
        mismatch: Start of the error message.
        tensors: Tensors of the file, for the error message.
    """
    candidates = {place: number for place, number in votes.items() if _is_under(place[1], config.prefix)}
    if not candidates:
        names = list(tensors)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        under = f" under prefix={config.prefix}" if config.prefix is not None else ""
        raise UserError(f"{mismatch}: no tensor matches{under}; the file contains {', '.join(names[:3])}{more}")
    best = max(candidates.values())
    # reversed: of layouts that tie under one prefix, the first in `LAYOUTS` remains
    tied = {place[1]: place[0] for place in reversed(candidates) if candidates[place] == best}
    prefix, *others = sorted(prefix for prefix in tied if not any(_is_secondary(prefix, other) for other in tied))
    if others:
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        raise UserError(
            f"{mismatch}: it contains one encoder under {prefix or 'no prefix'} and another under {others[0]}{more}; "
            f"choose one, for example &prefix={others[0].rstrip('.')} or &prefix={prefix.rstrip('.')}"
        )
    return tied[prefix], prefix


def _is_under(prefix: str, wanted: str | None) -> bool:
    """Return whether the parts of `wanted` stand in a prefix, side by side; an empty one stands for no prefix."""
    if not wanted:
        return wanted is None or not prefix
    return f".{wanted.strip('.')}." in f".{prefix}"


def _is_secondary(prefix: str, other: str) -> bool:
    """Return whether two prefixes first differ in words of which `SECONDARY` says that the other is meant."""
    for word, its in zip(prefix.split("."), other.split("."), strict=False):
        if word != its:
            return its in SECONDARY.get(word, ())
    return False


def _part_starts(name: str) -> Iterable[int]:
    """Yield the positions at which the parts of a dotted name start."""
    yield 0
    yield from (match.end() for match in re.finditer(r"\.", name))


def _part(name: str, prefix: str) -> str:
    """Return the part of the file that a tensor is in: its name up to the first word that differs from `prefix`."""
    words, others = name.split("."), prefix.split(".")
    shared = next((i for i, (word, other) in enumerate(zip(words, others, strict=False)) if word != other), len(others))
    return ".".join(words[: shared + 1])

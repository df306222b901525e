"""Find the feature maps inside any module: trace it, run it on blank images, and read the shape of every node.

The tracer is that of torchvision's feature extraction, so the names of nodes are those of `create_feature_extractor`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torchvision
from jaxtyping import Float
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from pretext.encoders.base import evaluating
from pretext.encoders.trials import first_line, on_blank_images
from pretext.system.errors import UserError, did_you_mean

BATCH = 2
"""Blank images in a trial: the axis of the batch must differ from an axis of one element."""
HEADS = ("classifier", "fc", "head", "heads")
"""Modules in which no stage is looked for."""
MOST_PREFIX = 16
"""Largest number of class and register tokens before the patch tokens."""
BLOCKS = 3
"""Stages of a module whose maps all have one resolution, such as a plain transformer; as many as in timm."""

Form = Literal["NCHW", "NHWC", "tokens"]


@dataclass(frozen=True)
class Node:
    """A node of a traced module whose output is a map."""

    name: str
    """Name by which it is chosen, such as `layer1` or `features.3`; a module stands for its last operation."""
    node: str
    """Its whole name in torchvision's feature extraction."""
    form: Form
    """Order of its axes; a transformer's patch tokens form a map too."""
    channels: int
    stride: int
    """Input pixels per cell, along each side."""
    prefix: int = 0
    """Number of class and register tokens before the patch tokens."""

    def to_map(self, value: Tensor, images: Tensor) -> Float[Tensor, "B C H W"]:
        """Return the node's output as a map.

        Args:
            value: The output.
            images: The images B×3×H×W that the module has read.
        """
        if self.form == "NCHW":
            return value
        if self.form == "NHWC":
            return value.permute(0, 3, 1, 2)
        rows = max(1, images.shape[2] // self.stride)
        tokens = value[:, self.prefix :].transpose(1, 2)
        return tokens.reshape(tokens.shape[0], self.channels, rows, -1)


def find_nodes(module: nn.Module, stages: Sequence[str] | None, side: int, *, what: str) -> list[Node]:
    """Return the nodes of a module that give its stages, from the first to the deepest.

    Args:
        module: Traced and run in evaluation mode; left as it was.
        stages: Names of nodes or modules. None takes the last node of each resolution, and of a module with a single
            resolution its last blocks.
        side: Side of the images in pixels.
        what: Name of the module, for errors.

    Raises:
        UserError: If the module cannot be traced, cannot read such images, or a stage is unknown or not a map.
    """
    outputs = _outputs(module, what, side)
    names = [output.name for output in outputs]
    maps = dict(_maps(outputs, side))
    if stages is None:
        chosen = _sensible(outputs, maps)
        if not chosen:
            raise UserError(f"{what} has no feature maps at {side} px; name its stages, or give a larger input_size")
        return [replace(maps[i], name=_short(names, i, chosen)) for i in chosen]
    found: dict[int, str] = {}
    for stage in stages:
        last = max((i for i, name in enumerate(names) if f"{name}.".startswith(f"{stage}.")), default=None)
        if last is None:
            near = did_you_mean(stage, _last_of(names)).partition("known:")[0]
            raise UserError(
                f"{what} has no node {stage!r}; {near}get_graph_node_names of torchvision.models.feature_extraction "
                "lists them"
            )
        if last not in maps:
            shape = "×".join(map(str, outputs[last].small or ())) or "no tensor"
            raise UserError(
                f"{what}: stage {stage} gives {shape} for {BATCH} pictures of {side} px, which is neither a map nor "
                "patch tokens; choose another node"
            )
        if last in found:
            raise UserError(f"{what}: stages {found[last]} and {stage} are one node; leave one out")
        found[last] = stage
    return [replace(maps[i], name=found[i]) for i in sorted(found)]


@dataclass(frozen=True)
class _Output:
    """What a node returns for blank images."""

    name: str
    node: str
    """Its name in torchvision's feature extraction."""
    small: tuple[int, ...] | None
    """Shape for square images; None if the node returns no tensor."""
    wide: tuple[int, ...] | None
    """Shape for images twice as wide; None also if the module reads only images of one size."""
    learns: bool
    """Whether a module or a parameter stands before it: arithmetic on the images themselves is no stage."""


def _outputs(module: nn.Module, what: str, side: int) -> list[_Output]:
    """Trace a module in evaluation mode, and return its nodes in the order in which they run."""
    operations = [kind for kind in vars(torchvision.ops).values() if isinstance(kind, type)]
    tracer = NodePathTracer(
        autowrap_modules=(math, torchvision.ops),
        leaf_modules=[kind for kind in operations if issubclass(kind, nn.Module)],
    )
    with evaluating(module):
        try:
            graph = fx.GraphModule(module, tracer.trace(module))
        except Exception as error:  # of every kind, because the module is somebody's own
            raise UserError(
                f"{what} cannot be traced ({first_line(error)}); write an Encoder with `maps` around it instead "
                "(CONTRIBUTING.md shows one)"
            ) from error
        graph.eval()
        try:
            small = _shapes(graph, side, side)
        except Exception as error:
            remedy = "give another input size"
            raise UserError(f"{what} cannot read images of {side} px ({first_line(error)}); {remedy}") from error
        try:
            wide = _shapes(graph, side, 2 * side)
        except Exception:  # a network that reads one size alone; its maps' axes are then told from the small picture
            wide = {}
    outputs: list[_Output] = []
    learns = False
    for node, qualified in tracer.node_to_qualname.items():
        learns = learns or node.op in ("call_module", "get_attr")
        # torchvision cuts a number off a module's name, `conv_1`, and counts again
        taken = {output.name for output in outputs}
        name = node.target if node.op == "call_module" and node.target not in taken else qualified
        outputs.append(_Output(str(name), qualified, small.get(node), wide.get(node), learns))
    return outputs


def _shapes(graph: fx.GraphModule, height: int, width: int) -> dict[fx.Node, tuple[int, ...]]:
    recorder = _Recorder(graph)
    on_blank_images(graph, (BATCH, 3, height, width), recorder.run)
    return recorder.shapes


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps the shape of every tensor."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n] = tuple(result.shape)
        return result


def _maps(outputs: list[_Output], side: int) -> Iterator[tuple[int, Node]]:
    """Yield the index and the form of every output that is a map of the images.

    A map grows with the width of the images, along one axis. Where the module reads only one size, a map is square.
    """
    any_size = any(output.wide for output in outputs)
    grid: int | None = None  # side of the last map, of which a transformer makes its tokens
    for i, output in enumerate(outputs):
        shape = output.small
        if shape is None or shape[0] != BATCH or len(shape) not in (3, 4) or not output.learns:
            continue
        axis, growth = _growth(shape, output.wide) if any_size else _squareness(shape)
        if len(shape) == 4 and axis in (2, 3) and shape[axis] == shape[axis - 1] and growth <= side:
            form: Form = "NCHW" if axis == 3 else "NHWC"
            channels = shape[1] if axis == 3 else shape[3]
            yield i, Node(output.name, output.node, form, channels, round(side / growth))
            grid = shape[axis]
        elif len(shape) == 3 and axis == 1:
            cells = grid or math.isqrt(shape[1])
            prefix = shape[1] - cells**2
            if 0 <= prefix <= MOST_PREFIX and growth in (cells**2, shape[1]):
                yield i, Node(output.name, output.node, "tokens", shape[2], round(side / cells), prefix)


def _growth(shape: tuple[int, ...], wide: tuple[int, ...] | None) -> tuple[int, int]:
    """Return the one axis that grows with the width of the images, and by how much; axis 0 if there is none."""
    grown = [] if wide is None else [axis for axis, (a, b) in enumerate(zip(shape, wide, strict=False)) if a < b]
    if wide is None or len(shape) != len(wide) or len(grown) != 1:
        return 0, 0
    return grown[0], wide[grown[0]] - shape[grown[0]]


def _squareness(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the second axis of a square map, or the axis of tokens, and its length; axis 0 if there is none."""
    if len(shape) == 3:
        return 1, shape[1]
    axis = next((axis for axis in (3, 2) if shape[axis] == shape[axis - 1]), 0)
    return axis, shape[axis]


def _sensible(outputs: list[_Output], maps: Mapping[int, Node]) -> list[int]:
    """Return the outputs that are the stages of a module, by index.

    For each resolution it is the last one at the smallest depth of modules, so that no node inside a residual branch
    stands for its stage. What comes after the coarsest map, such as a decoder, is left out.
    """
    names = [output.name for output in outputs]
    last = _last_of(names)
    body = [i for i in maps if names[i].partition(".")[0] not in HEADS]
    if not any(output.wide for output in outputs):  # a module of one size: a map of one cell is its pooling
        body = [i for i in body if (outputs[i].small or ())[-2:] != (1, 1)] or body
    coarsest = max((maps[i].stride for i in body), default=0)
    end = max((i for i in body if maps[i].stride == coarsest), default=0)
    best: dict[int, tuple[int, int]] = {}
    for i in (i for i in body if i <= end):
        depth = min(prefix.count(".") for prefix in _prefixes(names[i]) if last[prefix] == i)
        best[maps[i].stride] = min(best.get(maps[i].stride, (depth, -i)), (depth, -i))
    chosen = sorted(-i for _, i in best.values())
    return chosen if len(chosen) != 1 else _blocks(names, [i for i in body if i <= end]) or chosen


def _blocks(names: list[str], body: list[int]) -> list[int]:
    """Return the last outputs of the module's longest row of numbered parts, `blocks.0` … `blocks.11`, by index."""
    last, rows = _last_of(names), defaultdict(list)
    for i in body:
        for prefix in _prefixes(names[i]):
            if last[prefix] == i and (number := re.search(r"\d+$", prefix)):
                rows[prefix[: number.start()]].append(i)
    longest = max(rows.values(), key=len, default=[])
    return longest[-BLOCKS:] if len(longest) > 1 else []


def _short(names: list[str], i: int, chosen: Sequence[int]) -> str:
    """Return the outermost module whose last node is `i`, if no other chosen node is in it."""
    last = _last_of(names)
    others = [f"{names[j]}." for j in chosen if j != i]
    return next(
        prefix
        for prefix in _prefixes(names[i])
        if last[prefix] == i and not any(other.startswith(f"{prefix}.") for other in others)
    )


def _last_of(names: list[str]) -> dict[str, int]:
    """Return the index of the last node in each module, and of each node itself."""
    return {prefix: i for i, name in enumerate(names) for prefix in _prefixes(name)}


def _prefixes(name: str) -> list[str]:
    """Return `a`, `a.b` and `a.b.c` for `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts) + 1)]

"""Any module as an encoder: the part of it that its stages need, by torchvision's feature extraction."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import create_feature_extractor

from pretext.encoders.base import IMAGENET, Encoder, Stage, Triple, evaluating
from pretext.encoders.tracing import Node, find_nodes
from pretext.encoders.trials import first_line
from pretext.system.errors import UserError
from pretext.system.specs import with_option

KIND = "module"
"""Kind of the spec of a module that was wrapped in Python; `build_encoder` cannot build it."""
LARGEST_INPUT = 1 << 14


class WrappedEncoder(Encoder):
    """The feature maps of a module; the patch tokens of a transformer form maps too.

    Attributes:
        model: The part of the module that the stages need. Its tensors are the module's own, with their names.
        nodes: Where each stage is in the module.
    """

    def __init__(
        self,
        spec: str,
        input_size: int,
        module: nn.Module,
        nodes: Sequence[Node],
        mean: Triple,
        std: Triple,
        library: str = "",
    ) -> None:
        super().__init__(spec, input_size, mean, std)
        self.library, self.nodes = library, tuple(nodes)
        self.model = _Part(module, self.nodes)
        self.stages = tuple(Stage(node.name.replace(".", "_"), node.channels, node.stride) for node in nodes)

    def maps(self, normalised: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """See `Encoder.maps`."""
        return [node.to_map(value, normalised) for node, value in zip(self.nodes, self.model(normalised), strict=True)]


class _Part(nn.Module):
    """The part of a module that some of its nodes need: one traced function for training, one for evaluation.

    torchvision's own extractor compiles its code anew at every change of the mode.
    """

    def __init__(self, module: nn.Module, nodes: Sequence[Node]) -> None:
        super().__init__()
        chosen = {node.node: str(i) for i, node in enumerate(nodes)}
        with evaluating(module):  # tracing sets the mode of every submodule
            extractor = create_feature_extractor(module, chosen, suppress_diff_warning=True)
        for name, parameter in extractor.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in extractor.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        for name, child in extractor.named_children():
            self.add_module(name, child)
        # a graph's code names the tensors of any module of this shape
        self._functions = {
            mode: fx.GraphModule(extractor, graph).forward.__func__  # type: ignore[attr-defined]
            for mode, graph in ((True, extractor.train_graph), (False, extractor.eval_graph))
        }
        self.training = module.training

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Return the value of each node."""
        function: Callable[..., dict[str, Tensor]] = self._functions[self.training]
        return list(function(self, images).values())


def wrap(
    module: nn.Module,
    stages: Sequence[str] | None = None,
    *,
    input_size: int = 224,
    mean: Sequence[float] = IMAGENET[0],
    std: Sequence[float] = IMAGENET[1],
    spec: str | None = None,
    library: str = "",
) -> WrappedEncoder:
    """Return a module as an encoder; see `Encoder.wrap`.

    Args:
        module: See `Encoder.wrap`, as for `stages`, `input_size`, `mean` and `std`.
        stages: Names of nodes or modules, or None.
        input_size: Side of the input images in pixels.
        mean: Per-channel mean of images in [0, 1].
        std: Per-channel standard deviation.
        spec: The architecture, where it can be built from a spec.
        library: Library that the module is from.

    Raises:
        UserError: See `Encoder.wrap`.
    """
    if isinstance(module, Encoder):
        raise UserError(f"{module.spec} is an encoder already; wrap the module inside it, or use it as it is")
    if not 0 < input_size <= LARGEST_INPUT:
        raise UserError(f"input_size is {input_size}; allowed is from 1 to {LARGEST_INPUT}")
    if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
        raise UserError(f"mean is {tuple(mean)} and std is {tuple(std)}; give three numbers each, std above 0")
    if isinstance(stages, str) or (stages is not None and not stages):
        raise UserError(f"stages is {stages!r}; give a list of names, or None for one of each resolution")
    what = spec or type(module).__name__
    nodes = find_nodes(module, stages, input_size, what=what)
    if spec is None:
        spec = with_option(f"{KIND}:{type(module).__name__}", "stages", ",".join(node.name for node in nodes))
        for name, values, usual in (("mean", _triple(mean), IMAGENET[0]), ("std", _triple(std), IMAGENET[1])):
            if values != usual:
                spec = with_option(spec, name, ",".join(map(str, values)))
    try:
        return WrappedEncoder(spec, input_size, module, nodes, _triple(mean), _triple(std), library)
    except ValueError as error:  # torchvision's: a node that only one of the two modes has
        reason = re.sub(r"\s+", " ", first_line(error))
        raise UserError(f"{what}: {reason}; choose other stages") from error


def _triple(values: Sequence[float]) -> Triple:
    red, green, blue = values
    return float(red), float(green), float(blue)

"""Tensor names of other projects, as tables.

`LAYOUTS` maps our names to theirs, `SECONDARY` decides between two encoders in a file that match equally well, and
`HEADS` lists tensors that may accompany an encoder. To support another project, add a row.
"""

from __future__ import annotations

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Layout:
    """The tensor names that a project uses for an encoder."""

    name: str
    renames: tuple[tuple[str, str], ...] = ()
    """Pairs of a regular expression for the start of our name, and its replacement; the first match applies."""
    imagenet: bool = False
    """Whether these weights need ImageNet's mean and deviation, whatever timm's setting for the architecture is."""

    def theirs(self, ours: str) -> str:
        """Return the project's name of a tensor, given ours."""
        for pattern, beginning in self.renames:
            renamed, found = re.subn(f"^{pattern}", beginning, ours)
            if found:
                return renamed
        return ours


_BLOCK, _LAYER = r"blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."
_TV_LAYER = r"encoder\.layers\.encoder_layer_\d+"
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
    # Names of timm, of this suite, and of every project that uses timm's or torchvision's networks. timm and
    # torchvision use the same names for ResNets, VGGs and DenseNets.
    Layout("own names"),
    Layout(
        "torchvision's ViT",
        (*_TORCHVISION_VIT, (rf"{_BLOCK}mlp\.fc1", rf"{_LAYER}mlp.0"), (rf"{_BLOCK}mlp\.fc2", rf"{_LAYER}mlp.3")),
        imagenet=True,
    ),
    Layout(  # files written before torchvision 0.13
        "torchvision's older ViT",
        (*_TORCHVISION_VIT, (rf"{_BLOCK}mlp\.fc(\d)", rf"{_LAYER}mlp.linear_\2")),
        imagenet=True,
    ),
    Layout(  # torchvision's own ViT, from files written before torchvision 0.13
        "torchvision's ViT before 0.13",
        tuple((rf"({_TV_LAYER}\.mlp)\.{ours}\.", rf"\1.linear_{theirs}.") for ours, theirs in ((0, 1), (3, 2))),
        imagenet=True,
    ),
    Layout(  # the files that torchvision publishes
        "torchvision's DenseNet",
        ((r"(features\.denseblock\d+\.denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2."),),
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
    Layout(  # the same network as alexnet?norm=local_response&groups=2
        "VISSL's alexnet_bvlc",
        tuple((rf"convs\.{i}\.0\.", f"{block}.0.") for i, block in enumerate((0, 2, 4, 5, 6))),
    ),
)

SECONDARY = {
    "encoder_k": ("encoder_q",),  # MoCo
    "momentum_encoder": ("base_encoder", "encoder"),  # MoCo v3; older solo-learn
    "momentum_backbone": ("backbone",),  # solo-learn
    "backbone_momentum": ("backbone",),  # lightly
    "target_encoder": ("online_encoder",),  # BYOL; not beside `encoder`: MSN and I-JEPA evaluate the target
    "student": ("teacher",),  # DINO: its authors evaluate the teacher
    "student_backbone": ("teacher_backbone", "backbone"),  # lightly's DINO
    "loss": ("base_model",),  # VISSL: its losses contain the momentum encoders
}
"""Name parts of encoders that are ignored when an equally good encoder stands under one of the name parts beside.

Only pairs are listed whose two names are one project's own and say which encoder the project evaluates.
"""

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
"""Starts of names that may accompany an encoder: heads, decoders, queues."""

NO_WEIGHTS = ("num_batches_tracked", "relative_position_index", "attn_mask")
"""Ends of names of counters and index buffers, which are ignored."""

"""DINO: match a momentum teacher's output across crops (Caron et al. 2021).

Caron, Touvron, Misra, Jégou, Mairal, Bojanowski and Joulin, Emerging Properties in Self-Supervised Vision
Transformers, ICCV 2021, arXiv 2104.14294: equations 1 to 4, algorithm 1. From any crop, the student predicts the
teacher's output on another, large crop; the teacher is a momentum copy of the student. Published (recalled),
ImageNet, linear and k-NN top-1: ViT-S/16 77.0 and 74.5 %, ResNet-50 75.3 and 67.5 % (65536 outputs, batch 1024).

The teacher's output is centred, so that no output wins for all images, and sharpened by a lower temperature, so that
the distribution is not uniform. Each alone would collapse to what the other prevents (section 5.3).

Deviations: 256 outputs, crops for small images, four small crops of half the side and a momentum from 0.99 by
default, since small budgets have few steps (`dino:paper` has the published values); the teacher's temperature rises
over a share of the run, and the last layer is frozen for a share of the run; the head has ReLU (the paper: GELU), and
batch normalisation by default, which the paper uses only before its move to transformers; the features are the mean
of the deepest map (the paper: a transformer's class token); saturation varies as much as contrast (the paper: half as
much); weight decay and clipping are the training loop's; with `accumulate` the centre is updated at every part of the
batch; see also `pretext.transforms.augmentation`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pretext.encoders.base import Encoder
from pretext.modules.momentum_encoder import MomentumCopy, rising_momentum
from pretext.modules.projector import projector
from pretext.modules.prototypes import Prototypes, cross_view_entropy
from pretext.system.distributed import gather
from pretext.system.ranges import MOST, check_range
from pretext.tasks.base import Batch, Task
from pretext.transforms.views import MultiCrop, base_settings, embed_crops, local_side, multi_crop, show_crops


@final
class DINO(Task):
    """Student encoder and head; the teacher is a momentum copy of both.

    Attributes:
        centre: Running mean of the teacher's output.
        temperature: Current temperature of the teacher.
    """

    @dataclass(frozen=True)
    class Config(MultiCrop):
        """The head, the teacher and the crops."""

        outputs: int = 256
        """K: outputs of the head; published 65536."""
        hidden: int = 512
        """Width of the head's two hidden layers; published 2048."""
        bottleneck: int = 128
        """Channels of the normalised vectors before the last layer; published 256."""
        head_norm: bool = True
        """Batch normalisation in the head; the paper has none with transformers."""
        student_temperature: float = 0.1
        """Temperature of the student's softmax."""
        teacher_temperature: float = 0.04
        """Temperature of the teacher's softmax after its warm-up; published 0.07."""
        teacher_start: float = 0.04
        """Temperature of the teacher's softmax at the first step; published 0.04."""
        teacher_warmup: float = 0.1
        """Share of the run over which the teacher's temperature changes to its final value."""
        momentum: float = 0.99
        """Momentum of the teacher at the first step, rising to 1 as a cosine; published 0.996."""
        centre_momentum: float = 0.9
        """m: momentum of the centre, per step."""
        freeze: float = 0.02
        """Share of the run over which the last layer is frozen."""
        colour_strength: float = 0.5
        blur: float = 0.5
        """Probability of blurring a small crop."""
        first_blur: float = 1.0
        """Probability of blurring the first large crop."""
        other_blur: float = 0.1
        """Probability of blurring the second large crop."""
        other_solarize: float = 0.2
        """Probability of solarizing the second large crop."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_range(self, "hidden", least=2, most=MOST["hidden"])
            check_range(self, "outputs", "bottleneck", least=2, most=1_000_000)
            check_range(self, "student_temperature", "teacher_temperature", "teacher_start", least=0.001, most=100)
            check_range(self, "teacher_warmup", "freeze", "centre_momentum", least=0, below=1)
            check_range(self, "momentum", "first_blur", "other_blur", "other_solarize", least=0, most=1)

    variants: ClassVar[Mapping[str, Any]] = {
        "paper": Config(
            crop_min=0.4,
            local_min=0.05,
            local_crops=8,
            local_size=0.42857142857142855,  # 96 / 224
            outputs=65536,
            hidden=2048,
            bottleneck=256,
            head_norm=False,
            teacher_temperature=0.07,
            momentum=0.996,
            freeze=0.01,
        )
    }
    variant_help: ClassVar[Mapping[str, str]] = {
        "paper": "published head (65536 outputs), crops and momentum",
    }
    revision: ClassVar[int] = 1

    centre: Tensor
    temperature: Tensor

    def __init__(self, encoder: Encoder, config: Config) -> None:
        """Build the head and the teacher.

        Raises:
            ValueError: If the encoder cannot read the small crops.
        """
        super().__init__(encoder)
        self.config = config
        self.side = local_side(encoder, config.local_size)
        self.head = Head(encoder.stages[-1].channels, config)
        self.slow_encoder, self.slow_head = MomentumCopy(encoder), MomentumCopy(self.head)
        self.register_buffer("centre", torch.zeros(config.outputs))
        self.register_buffer("temperature", torch.tensor(teacher_temperature(config, 0.0)))
        self._metrics = torch.zeros(2)

    def crops(self, batch: Batch) -> list[Float[Tensor, "V B 3 _ _"]]:
        """Return the two large crops, which differ in blur and solarization, and the small crops."""
        config = self.config
        first = base_settings(config, blur=config.first_blur)
        second = base_settings(config, blur=config.other_blur, solarize=config.other_solarize)
        return multi_crop(
            batch.pictures, (first, second), config.local(), batch.generator, count=config.local_crops, side=self.side
        )

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the cross-entropy between teacher and student (equation 3), and update the centre."""
        crops, count = self.crops(batch), len(batch)
        maps = self.slow_encoder(crops[0].flatten(0, 1))
        outputs = self.slow_head(maps[-1].mean(dim=(2, 3))).unflatten(0, (2, count))
        logits = self.head(embed_crops(self.encoder, crops)).unflatten(0, (-1, count))
        targets = sharpened(outputs, self.centre, self.temperature)
        self.centre.copy_(moved_centre(self.centre, outputs, self.config.centre_momentum))
        loss = cross_view_entropy(targets, logits / self.config.student_temperature)
        entropy = -(targets * targets.clamp(min=1e-12).log()).sum(dim=2).mean()
        self._metrics = torch.stack([entropy, loss.detach() - entropy])
        yield "task", loss

    def after_step(self, progress: float) -> None:
        """Update the teacher, its temperature, and whether the last layer is frozen."""
        config = self.config
        momentum = rising_momentum(config.momentum, progress)
        self.slow_encoder.follow(self.encoder, momentum)
        self.slow_head.follow(self.head, momentum)
        self.temperature.fill_(teacher_temperature(config, progress))
        self.head.prototypes.frozen.fill_(progress < config.freeze)

    def metrics(self) -> Mapping[str, float]:
        """Return the teacher's entropy and the divergence of the student from it; their sum is the loss.

        An entropy of 0 is the collapse to one output, an entropy equal to `chance` the collapse to a uniform output.
        """
        entropy, divergence = self._metrics.tolist()
        return {"teacher_entropy": entropy, "divergence": divergence, "chance": math.log(self.config.outputs)}

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each image, its large crops and one small crop."""
        return show_crops(batch.images, self.crops(batch))


class Head(nn.Module):
    """Three layers to a normalised bottleneck, then its cosines with the weight vectors of the last layer.

    Biases start at 0: through three layers, random biases would outweigh the differences between images.

    Source: Section 3.2 and appendix C.
    """

    def __init__(self, inputs: int, config: DINO.Config) -> None:
        super().__init__()
        self.layers = projector(inputs, config.hidden, config.bottleneck, layers=3, norm=config.head_norm)
        self.layers.apply(_initialise)
        self.prototypes = Prototypes(config.bottleneck, config.outputs, frozen=config.freeze > 0)

    def forward(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Return K cosines, from -1 to 1."""
        return self.prototypes(self.layers(features))


def sharpened(
    outputs: Float[Tensor, "T B K"], centre: Float[Tensor, "K"], temperature: Float[Tensor, ""]
) -> Float[Tensor, "T B K"]:
    """Return the teacher's distributions: outputs centred, then sharpened (equation 1, section 3.1)."""
    return ((outputs.float() - centre) / temperature).softmax(dim=2)


def moved_centre(centre: Float[Tensor, "K"], outputs: Float[Tensor, "T B K"], momentum: float) -> Float[Tensor, "K"]:
    """Return the centre updated with the teacher's outputs of all processes (equation 4)."""
    mean = gather(outputs.float().mean(dim=(0, 1))[None]).mean(dim=0)
    return momentum * centre + (1 - momentum) * mean


def teacher_temperature(config: DINO.Config, progress: float) -> float:
    """Return the teacher's temperature at a share of the run: linear over the warm-up, then constant."""
    share = min(1.0, progress / config.teacher_warmup) if config.teacher_warmup else 1.0
    return config.teacher_start + share * (config.teacher_temperature - config.teacher_start)


def _initialise(layer: nn.Module) -> None:
    """Draw a linear layer's weights with standard deviation 0.02 and set its bias to 0."""
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

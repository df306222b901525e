"""DINO: match a momentum teacher's output across crops (Caron et al. 2021).

Caron, Touvron, Misra, Jégou, Mairal, Bojanowski and Joulin, Emerging Properties in Self-Supervised Vision
Transformers, ICCV 2021, arXiv 2104.14294: equations 1 to 4, algorithm 1. Published (recalled), ImageNet, linear and
k-NN top-1: ViT-S/16 77.0 and 74.5 %, ResNet-50 75.3 and 67.5 % (65536 outputs, batch 1024).

What the teacher answers is centred, so that no output wins for all pictures, and sharpened by a lower
temperature, so that not all outputs are alike: either alone would end in the other's collapse (section 5.3).

Deviations: 256 outputs, crops for small pictures, four small crops that are half as large and a momentum from
0.99 by default, since small budgets have few steps (`dino:paper` has the published ones); the teacher's
temperature rises over a share of the run, as does the first one's freezing of the last layer; the head has ReLU
where the paper has GELU, and batch normalisation by default, which the paper has only before it came to
transformers; the features are the deepest map's mean, where the paper takes a transformer's class token;
saturation changes as much as contrast (the paper: half as much); weight decay and clipping are the training
loop's; with `accumulate` the centre moves once a part; see also `pretext.transforms.augmentation`.
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
from pretext.tasks.base import Batch, Task
from pretext.transforms.views import MultiCrop, base_settings, embed_crops, local_side, multi_crop, show_crops


class Head(nn.Module):
    """Three layers to the bottleneck, and the cosines of that with the last layer's directions.

    No layer starts with biases: through three of them they would drown what tells pictures apart.

    Source: Section 3.2 and appendix C.
    """

    def __init__(self, inputs: int, config: DINO.Config) -> None:
        super().__init__()
        self.layers = projector(inputs, config.hidden, config.bottleneck, layers=3, norm=config.head_norm)
        self.layers.apply(_unbiased)
        self.prototypes = Prototypes(config.bottleneck, config.outputs, frozen=config.freeze > 0)

    def forward(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Return answers, from -1 to 1."""
        return self.prototypes(self.layers(features))


@final
class DINO(Task):
    """See the module. Attributes: `centre`, `temperature`, of the teacher's answers; both move as training goes on."""

    @dataclass(frozen=True)
    class Config(MultiCrop):
        """The head, the teacher, and what crops differ in."""

        outputs: int = 256
        """K, over which both networks answer with a distribution; the paper has 65536."""
        hidden: int = 512
        """Width of the head's two hidden layers; the paper has 2048."""
        bottleneck: int = 128
        """Length of the normalised vectors before the last layer; the paper has 256."""
        head_norm: bool = True
        """Batch normalisation in the head; the paper has none with transformers."""
        student_temperature: float = 0.1
        """What the student's answers are divided by."""
        teacher_temperature: float = 0.04
        """What the teacher's centred answers are divided by, after its warm-up."""
        teacher_start: float = 0.04
        """The teacher's temperature at first; the paper goes from 0.04 to 0.07."""
        teacher_warmup: float = 0.1
        """Share of the run over which the teacher's temperature goes to its final value."""
        momentum: float = 0.99
        """Share of its weights that the teacher keeps at a step; rises to 1 as a cosine. The paper has 0.996."""
        centre_momentum: float = 0.9
        """m, the share of itself that the centre keeps at a step."""
        freeze: float = 0.02
        """Share of the run over which the last layer stays as it is."""
        colour_strength: float = 0.5
        """s of the colour changes, see `Augmentation`."""
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
            for name in ("outputs", "hidden", "bottleneck"):
                if not 2 <= getattr(self, name) <= 1_000_000:
                    raise ValueError(f"{name} is {getattr(self, name)}; allowed is from 2 to 1000000")
            for name in ("student_temperature", "teacher_temperature", "teacher_start"):
                if not 0.001 <= getattr(self, name) <= 100:
                    raise ValueError(f"{name} is {getattr(self, name)}; allowed is from 0.001 to 100")
            for name in ("teacher_warmup", "freeze", "centre_momentum"):
                if not 0 <= getattr(self, name) < 1:
                    raise ValueError(f"{name} is {getattr(self, name)}; allowed is from 0 to below 1")
            for name in ("momentum", "first_blur", "other_blur", "other_solarize"):
                if not 0 <= getattr(self, name) <= 1:
                    raise ValueError(f"{name} is {getattr(self, name)}; allowed is from 0 to 1")

    variants: ClassVar[Mapping[str, Any]] = {
        "paper": Config(
            crop_min=0.4,
            local_min=0.05,
            local_crops=8,
            local_size=0.42857142857142855,
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

    centre: Tensor
    temperature: Tensor

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config = config
        self.side = local_side(encoder, config.local_size)
        self.head = Head(encoder.stages[-1].channels, config)
        self.slow_encoder, self.slow_head = MomentumCopy(encoder), MomentumCopy(self.head)
        self.register_buffer("centre", torch.zeros(config.outputs))
        self.register_buffer("temperature", torch.tensor(teacher_temperature(config, 0.0)))
        self._noted = torch.zeros(2)

    def crops(self, batch: Batch) -> list[Float[Tensor, "V B 3 _ _"]]:
        """Return the two large crops, which differ in blur and solarization, and the small ones."""
        config = self.config
        first = base_settings(config, blur=config.first_blur)
        second = base_settings(config, blur=config.other_blur, solarize=config.other_solarize)
        return multi_crop(
            batch.images, (first, second), config.local(), batch.generator, count=config.local_crops, side=self.side
        )

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the cross-entropy of the teacher's and the student's answers (equation 3), and move the centre."""
        crops, count = self.crops(batch), len(batch.images)
        maps = self.slow_encoder(crops[0].flatten(0, 1))
        answers = self.slow_head(maps[-1].mean(dim=(2, 3))).unflatten(0, (2, count))
        logits = self.head(embed_crops(self.encoder, crops)).unflatten(0, (-1, count))
        targets = sharpened(answers, self.centre, self.temperature)
        self.centre.copy_(moved_centre(self.centre, answers, self.config.centre_momentum))
        loss = cross_view_entropy(targets, logits / self.config.student_temperature)
        entropy = -(targets * targets.clamp(min=1e-12).log()).sum(dim=2).mean()
        self._noted = torch.stack([entropy, loss.detach() - entropy])
        yield "task", loss

    def after_step(self, progress: float) -> None:
        """Let the teacher follow, and its temperature and the last layer do what their time asks for."""
        config = self.config
        momentum = rising_momentum(config.momentum, progress)
        self.slow_encoder.follow(self.encoder, momentum)
        self.slow_head.follow(self.head, momentum)
        self.temperature.fill_(teacher_temperature(config, progress))
        self.head.prototypes.frozen.fill_(progress < config.freeze)

    def metrics(self) -> Mapping[str, float]:
        """Return the teacher's entropy and how far the student is from it; the two add up to the loss.

        Entropy at 0 is the collapse to one output, at `chance` that to all outputs alike; far from either all is well.
        """
        entropy, divergence = self._noted.tolist()
        return {"teacher_entropy": entropy, "divergence": divergence, "chance": math.log(self.config.outputs)}

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each picture, its large crops and a small one."""
        return show_crops(batch.images, self.crops(batch))


def sharpened(
    answers: Float[Tensor, "T B K"], centre: Float[Tensor, "K"], temperature: Float[Tensor, ""]
) -> Float[Tensor, "T B K"]:
    """Return the teacher's distributions: centred, then sharpened (equation 1, section 3.1)."""
    return ((answers.float() - centre) / temperature).softmax(dim=2)


def moved_centre(centre: Float[Tensor, "K"], answers: Float[Tensor, "T B K"], momentum: float) -> Float[Tensor, "K"]:
    """Return the centre after a step, with the answers of all processes (equation 4)."""
    mean = gather(answers.float().mean(dim=(0, 1))[None]).mean(dim=0)
    return momentum * centre + (1 - momentum) * mean


def teacher_temperature(config: DINO.Config, progress: float) -> float:
    """Return the teacher's temperature at a share of the run: a line to its final value, then constant."""
    share = min(1.0, progress / config.teacher_warmup) if config.teacher_warmup else 1.0
    return config.teacher_start + share * (config.teacher_temperature - config.teacher_start)


def _unbiased(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

"""MoCo: find the momentum encoder's key among negatives (He et al. 2020).

v2: He, Fan, Wu, Xie and Girshick, Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020,
arXiv 1911.05722 (equations 1 and 2, algorithm 1: the others are a queue of earlier steps' keys), with the
perceptron, the temperature and the views of Chen, Fan, Girshick and He, Improved Baselines with Momentum
Contrastive Learning, 2020, arXiv 2003.04297. Published (recalled): ResNet-50, ImageNet, linear 67.7 % top-1 after 200
epochs, 71.1 % after 800.
v3: Chen, Xie and He, An Empirical Study of Training Self-Supervised Vision Transformers, ICCV 2021, arXiv
2104.02057 (algorithm 1: the others are the batch's own; a predictor; symmetric). Published, linear, in the authors'
repository: ResNet-50, 300 epochs, 72.8 %; ViT-S and ViT-B, 300 epochs, 73.2 and 76.7 %.

Shortcut: with batch normalisation a query and its key may know each other by their batch's statistics, which keys of
the queue do not share. The authors shuffle keys among GPUs. Here queries and keys go through their networks in
`norm_groups` groups, and keys are dealt to theirs at random, so that a query is normalised with other pictures
than its key; what the whole batch has in common still shows. v3 needs none of it: all its keys are of one batch.

Deviations: keys are shuffled within their own process; by default a shorter queue, a narrower perceptron and a
copy that follows faster, for sets and budgets that are small (variants `paper` and `v3_paper` have the published
ones). The queue is random at first, as in the authors' code. v3: every architecture has the vision transformer's
heads, in the authors' code a ResNet's have one layer and one normalisation less; batch normalisation sees the
pictures of its own process, where theirs sees all; saturation changes by as much
as brightness, where the paper's changes by half of it; a picture's vector is the mean over its patches, not a
class token; positions are learned, where the paper's are fixed sines. Both: weight decay spares normalisation and
biases. For the views see `pretext.transforms.augmentation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pretext.encoders.base import Encoder
from pretext.modules.memory_bank import Queue
from pretext.modules.momentum_encoder import MomentumCopy, rising_momentum
from pretext.modules.projector import Projected, projector
from pretext.system.distributed import gather, rank
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import Augmentation
from pretext.transforms.views import two_views


def against_queue(
    q: Float[Tensor, "B D"], k: Float[Tensor, "B D"], queue: Float[Tensor, "K D"], *, temperature: float
) -> Float[Tensor, "B L"]:
    """Return the logits of the choice among 1 + K keys, the right one first (arXiv 1911.05722, algorithm 1).

    Args:
        q: Queries of length 1.
        k: The key of each query, of length 1.
        queue: Other pictures' keys, of length 1.
        temperature: What similarities are divided by.
    """
    return torch.cat([(q * k).sum(dim=1, keepdim=True), q @ queue.T], dim=1) / temperature


def within_batch(q: Float[Tensor, "B D"], k: Float[Tensor, "B D"], *, temperature: float) -> Float[Tensor, ""]:
    """Return one half of v3's loss: a query is to pick its key among those of all processes' pictures.

    Args:
        q: Queries of length 1, of one view.
        k: Keys of length 1, of the other view.
        temperature: What similarities are divided by; twice of it multiplies the loss.

    Source: arXiv 2104.02057, algorithm 1.
    """
    own = torch.arange(len(q), device=q.device) + rank() * len(q)
    return 2 * temperature * F.cross_entropy(q @ gather(k).T / temperature, own)


@final
class MoCo(Task):
    """See the module."""

    @dataclass(frozen=True)
    class Config(Augmentation):
        """Which MoCo, its loss, its slow copy, and what the views differ in."""

        version: Literal["v2", "v3"] = "v2"
        """Negatives from a queue; or from the batch, with a predictor and a symmetric loss."""
        crop_min: float = 0.2
        """Smallest share of the picture's area that a crop shows; v3 has 0.08 for vision transformers."""
        colour_strength: float = 0.5
        """s: brightness, contrast, saturation change by up to ±0.8·s, hue by ±0.2·s turns."""
        second_blur: float | None = None
        """Probability of blurring the second view, where it is not the first one's."""
        second_solarize: float | None = None
        """Probability of solarizing the second view, where it is not the first one's."""
        temperature: float = 0.2
        """What similarities are divided by."""
        momentum: float = 0.99
        """Share of its weights that the momentum encoder keeps at a step; published: v2 0.999, v3 0.99, rising to 1."""
        queue: int = 4096
        """v2: keys in the queue; published 65536. Keep it below the number of training images."""
        norm_groups: int = 2
        """v2: groups of a batch that batch normalisation sees one by one; published 8, the number of GPUs."""
        hidden: int = 512
        """Width of the hidden layers of projector and predictor; published: v2 2048, v3 4096."""
        projection: int = 128
        """Length of a key; published: v2 128, v3 256."""
        frozen_patches: bool = True
        """v3: leave a vision transformer's patch embedding at its random weights, for stability (section 4.2)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            for name, least, most in (
                ("second_blur", 0, 1),
                ("second_solarize", 0, 1),
                ("temperature", 0.001, 100),
                ("momentum", 0, 1),
                ("queue", 1, 10_000_000),
                ("norm_groups", 1, 1024),
                ("hidden", 1, 65536),
                ("projection", 2, 65536),
            ):
                value = getattr(self, name)
                if value is not None and not least <= value <= most:
                    raise ValueError(f"{name} is {value}; allowed is from {least} to {most}")

    variants: ClassVar[Mapping[str, Any]] = {
        "paper": Config(momentum=0.999, queue=65536, norm_groups=8, hidden=2048),
        "v3": Config(version="v3", crop_min=0.08, blur=1.0, second_blur=0.1, second_solarize=0.2),
        "v3_paper": Config(
            version="v3", crop_min=0.08, blur=1.0, second_blur=0.1, second_solarize=0.2, hidden=4096, projection=256
        ),
    }
    variant_help: ClassVar[Mapping[str, str]] = {
        "paper": "v2 as published: queue 65536, momentum 0.999",
        "v3": "MoCo v3: no queue; a predictor and a symmetric loss",
        "v3_paper": "MoCo v3 as published: hidden 4096, projection 256",
    }
    training_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"batch_size": 256, "optimizer": "sgd", "learning_rate": 0.03, "weight_decay": 1e-4, "warmup": 0.0},
        "v3_paper": {"batch_size": 4096, "learning_rate": 2.4e-3, "weight_decay": 0.1, "warmup": 0.13333333333333333},
    }
    """v3's is for vision transformers: 1.5e-4 for every 256 pictures, 40 of 300 epochs of warm-up."""

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder)
        self.config = config
        blur = config.blur if config.second_blur is None else config.second_blur
        solarize = config.solarize if config.second_solarize is None else config.second_solarize
        self.second = replace(config, blur=blur, solarize=solarize)
        v3, inputs = config.version == "v3", encoder.stages[-1].channels
        self.projector = projector(
            inputs, config.hidden, config.projection, layers=3 if v3 else 2, norm=v3, last_norm=v3
        )
        self.predictor: nn.Module = nn.Identity()
        if v3:
            self.predictor = projector(config.projection, config.hidden, config.projection, layers=2, last_norm=True)
            if config.frozen_patches:
                for name, module in encoder.named_modules():
                    if name.rpartition(".")[2] == "patch_embed":
                        module.requires_grad_(False)
        else:
            self.queue = Queue(config.queue, config.projection)
        self.slow = MomentumCopy(Projected(encoder, self.projector))
        self._accuracy = torch.zeros(())

    def losses(self, batch: Batch) -> Iterator[tuple[str, Float[Tensor, ""]]]:
        """Yield the contrast of the two views of each picture."""
        first, second = two_views(batch.images, self.config, self.second, batch.generator)
        if self.config.version == "v3":
            yield "task", self._one_way(first, second) + self._one_way(second, first)
            return
        count = len(first)
        groups = max(1, min(self.config.norm_groups, count // 2))  # a group of one has no statistics
        dealt = torch.randperm(count, generator=batch.generator, device=first.device)
        queries = torch.cat([self._query(part) for part in first.tensor_split(groups)])
        keys = torch.cat([self._key(part) for part in second[dealt].tensor_split(groups)])[dealt.argsort()]
        waiting = self.queue.rows.clone()  # the gradient asks for them after the new ones have come
        self.queue.put(gather(keys))
        with torch.autocast(first.device.type, enabled=False):  # half precision has two digits, similarities need more
            logits = against_queue(queries, keys, waiting, temperature=self.config.temperature)
        self._accuracy = (logits.detach().argmax(dim=1) == 0).float().mean()
        yield "task", F.cross_entropy(logits, torch.zeros(count, dtype=torch.int64, device=first.device))

    def after_step(self, progress: float) -> None:
        """Let the slow copy follow (arXiv 1911.05722, equation 2)."""
        momentum = self.config.momentum
        if self.config.version == "v3":
            momentum = rising_momentum(momentum, progress)
        self.slow.follow(Projected(self.encoder, self.projector), momentum)

    def metrics(self) -> Mapping[str, float]:
        """Return how often the last step's queries found their key in front of the queue (v2)."""
        return {} if self.config.version == "v3" else {"accuracy": float(self._accuracy)}

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each picture, the view that asks and the one that is looked for."""
        first, second = two_views(batch.images, self.config, self.second, batch.generator)
        return {"picture": batch.images.float() / 255, "query": first, "key": second}

    def _one_way(self, asking: Float[Tensor, "B 3 S S"], asked: Float[Tensor, "B 3 S S"]) -> Float[Tensor, ""]:
        queries, keys = self._query(asking), self._key(asked)
        with torch.autocast(queries.device.type, enabled=False):
            return within_batch(queries, keys, temperature=self.config.temperature)

    def _query(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        return F.normalize(self.predictor(self.projector(self.encoder.embed(images))).float(), dim=1)

    def _key(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        return F.normalize(self.slow(images).float(), dim=1)

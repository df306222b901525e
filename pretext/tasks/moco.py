"""MoCo: find the momentum encoder's key among negatives (He et al. 2020).

v2: He, Fan, Wu, Xie and Girshick, Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020,
arXiv 1911.05722 (equations 1 and 2, algorithm 1: the negatives are a queue of earlier steps' keys), with the
projector, the temperature and the views of Chen, Fan, Girshick and He, Improved Baselines with Momentum
Contrastive Learning, 2020, arXiv 2003.04297. Published (recalled): ResNet-50, ImageNet, linear 67.7 % top-1 after 200
epochs, 71.1 % after 800.
v3: Chen, Xie and He, An Empirical Study of Training Self-Supervised Vision Transformers, ICCV 2021, arXiv
2104.02057 (algorithm 1: the negatives are the batch's other keys; a predictor; symmetric loss). Published, linear, in
the authors' repository: ResNet-50, 300 epochs, 72.8 %; ViT-S and ViT-B, 300 epochs, 73.2 and 76.7 %.

Shortcut: with batch normalisation a query and its key share their batch's statistics, which the queue's keys do not.
The authors shuffle keys among GPUs. Here queries and keys pass through their networks in `norm_groups` groups, and
keys are assigned to groups at random, so that a query and its key are normalised with different images; statistics
of the whole batch still leak. v3 does not need this: all its keys are of one batch.

Deviations: keys are shuffled within their own process; a shorter queue, a narrower projector and a lower momentum by
default, for small data sets and budgets (variants `paper` and `v3_paper` have the published values). The queue starts
with random vectors, as in the authors' code. v3: every architecture has the vision transformer's heads (in the
authors' code a ResNet's have one layer and one normalisation less); saturation varies as much as brightness (the
paper: half as much); an image's vector is the mean over its patches, not a class token; positions are learned, the
paper's are fixed sines; the temperature is 0.2 for every encoder (in the authors' code 1.0 for ResNets). Both: weight
decay is not applied to normalisation and biases. See also `pretext.transforms.augmentation`.
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
from pretext.system.ranges import MOST, check_range
from pretext.tasks.base import Batch, Task
from pretext.transforms.augmentation import Augmentation
from pretext.transforms.views import two_views


@final
class MoCo(Task):
    """Query encoder, projector and (v3) predictor; keys come from a momentum copy of encoder and projector."""

    @dataclass(frozen=True)
    class Config(Augmentation):
        """The version, the loss, the momentum encoder and the views."""

        version: Literal["v2", "v3"] = "v2"
        """`v2` takes negatives from a queue, `v3` from the batch, with a predictor and a symmetric loss."""
        crop_min: float = 0.2
        """Smallest share of the image area that a crop covers; published 0.08 in v3 for vision transformers."""
        colour_strength: float = 0.5
        second_blur: float | None = None
        """Probability of blurring the second view; None: the same as the first view's `blur`."""
        second_solarize: float | None = None
        """Probability of solarizing the second view; None: the same as the first view's `solarize`."""
        temperature: float = 0.2
        """Temperature of the contrastive loss: divides the cosine similarities."""
        momentum: float = 0.99
        """Momentum of the key encoder; in v3 it rises to 1 as a cosine. Published: v2 0.999, v3 0.99."""
        queue: int = 4096
        """v2: number of keys in the queue; should not exceed the training images. Published 65536."""
        norm_groups: int = 2
        """v2: groups of a batch with separate batch-normalisation statistics; published 8, the GPUs."""
        hidden: int = 512
        """Width of the hidden layers of projector and predictor; published: v2 2048, v3 4096."""
        projection: int = 128
        """Channels of queries and keys; published: v2 128, v3 256."""
        frozen_patches: bool = True
        """v3: freeze a vision transformer's random patch embedding, for stability (section 4.2)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_range(self, "second_blur", "second_solarize", "momentum", least=0, most=1)
            check_range(self, "temperature", least=0.001, most=100)
            check_range(self, "queue", least=1, most=10_000_000)
            check_range(self, "norm_groups", least=1, most=1024)
            check_range(self, "hidden", least=1, most=MOST["hidden"])
            check_range(self, "projection", least=2, most=65536)

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
    titles: ClassVar[Mapping[str, str]] = {"v3": "MoCo v3", "v3_paper": "MoCo v3 (paper)"}
    training_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"batch_size": 256, "optimizer": "sgd", "learning_rate": 0.03, "weight_decay": 1e-4, "warmup": 0.0},
        "v3_paper": {"batch_size": 4096, "learning_rate": 2.4e-3, "weight_decay": 0.1, "warmup": 0.13333333333333333},
    }
    """v3's settings are for vision transformers: rate 1.5e-4 per 256 images, warm-up over 40 of 300 epochs."""

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
        """Yield the contrastive loss of two views of each image."""
        first, second = two_views(batch.pictures, self.config, self.second, batch.generator)
        if self.config.version == "v3":
            yield "task", self._half_loss(first, second) + self._half_loss(second, first)
            return
        count = len(first)
        groups = max(1, min(self.config.norm_groups, count // 2))  # batch normalisation needs 2 images
        shuffled = torch.randperm(count, generator=batch.generator, device=first.device)
        queries = torch.cat([self._query(part) for part in first.tensor_split(groups)])
        keys = torch.cat([self._key(part) for part in second[shuffled].tensor_split(groups)])[shuffled.argsort()]
        negatives = self.queue.rows.clone()  # the backward pass needs them after the queue has changed
        self.queue.put(gather(keys))
        with torch.autocast(first.device.type, enabled=False):  # half precision is too coarse for similarities
            logits = queue_logits(queries, keys, negatives, temperature=self.config.temperature)
        self._accuracy = (logits.detach().argmax(dim=1) == 0).float().mean()
        yield "task", F.cross_entropy(logits, torch.zeros(count, dtype=torch.int64, device=first.device))

    def after_step(self, progress: float) -> None:
        """Update the momentum encoder (arXiv 1911.05722, equation 2)."""
        momentum = self.config.momentum
        if self.config.version == "v3":
            momentum = rising_momentum(momentum, progress)
        self.slow.follow(Projected(self.encoder, self.projector), momentum)

    def metrics(self) -> Mapping[str, float]:
        """Return the share of the last step's queries whose positive key has the highest logit (v2 only)."""
        return {} if self.config.version == "v3" else {"accuracy": float(self._accuracy)}

    def pictures(self, batch: Batch) -> Mapping[str, Float[Tensor, "B 3 S S"]]:
        """Return each image, its query view and its key view."""
        first, second = two_views(batch.pictures, self.config, self.second, batch.generator)
        return {"picture": batch.images.float() / 255, "query": first, "key": second}

    def _half_loss(self, query: Float[Tensor, "B 3 S S"], key: Float[Tensor, "B 3 S S"]) -> Float[Tensor, ""]:
        """Return v3's loss for queries of one view and keys of the other."""
        queries, keys = self._query(query), self._key(key)
        with torch.autocast(queries.device.type, enabled=False):
            return batch_loss(queries, keys, temperature=self.config.temperature)

    def _query(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        return F.normalize(self.predictor(self.projector(self.encoder.embed(images))).float(), dim=1)

    def _key(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        return F.normalize(self.slow(images).float(), dim=1)


def queue_logits(
    q: Float[Tensor, "B D"], k: Float[Tensor, "B D"], queue: Float[Tensor, "K D"], *, temperature: float
) -> Float[Tensor, "B L"]:
    """Return each query's logits over its positive key (first) and the K keys of the queue.

    Args:
        q: Queries, L2-normalised.
        k: The positive key of each query, L2-normalised.
        queue: Keys of other images, L2-normalised.
        temperature: Divides the similarities.

    Source: arXiv 1911.05722, algorithm 1.
    """
    return torch.cat([(q * k).sum(dim=1, keepdim=True), q @ queue.T], dim=1) / temperature


def batch_loss(q: Float[Tensor, "B D"], k: Float[Tensor, "B D"], *, temperature: float) -> Float[Tensor, ""]:
    """Return one half of v3's symmetric loss: each query classifies its key among the keys of all processes.

    Args:
        q: Queries of one view, L2-normalised.
        k: Keys of the other view, L2-normalised.
        temperature: Divides the similarities; the loss is multiplied by twice the temperature.

    Source: arXiv 2104.02057, algorithm 1.
    """
    positives = torch.arange(len(q), device=q.device) + rank() * len(q)
    return 2 * temperature * F.cross_entropy(q @ gather(k).T / temperature, positives)

"""Weights set by what pictures do to them, without training: one scale within each layer, one rate between layers.

Source: Krähenbühl, Doersch, Donahue and Darrell 2016, arXiv 1511.06856, algorithms 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pretext.encoders.base import Encoder, evaluating

Affine = nn.Conv2d | nn.Linear
DAMPING = 0.25
"""Share of a correction that one pass makes; α in algorithm 2."""
CHUNK = 32
"""Pictures of which a backward pass is made at once."""
DEAD = 1e-5
"""A channel whose spread is below this share of its layer's largest is left as it is."""


@dataclass(frozen=True)
class Sample:
    """How many pictures are looked at, and where each channel is centred."""

    images: int = 256
    """Training pictures that are looked at; their maps must fit into memory at once, a layer at a time."""
    centre: float = 0.0
    """What the mean of every channel before its non-linearity is set to, in standard deviations."""

    def __post_init__(self) -> None:
        if not 2 <= self.images <= 1_000_000:
            raise ValueError(f"images is {self.images}; allowed is from 2 to 1000000")
        if not -10 <= self.centre <= 10:
            raise ValueError(f"centre is {self.centre}; allowed is from -10 to 10")


@torch.no_grad()
def standardise(
    encoder: Encoder,
    images: UInt8[Tensor, "N 3 S S"],
    *,
    centre: float = 0.0,
    redraw: Callable[[Affine, Tensor], None] | None = None,
) -> list[nn.Module]:
    """Scale and shift every layer, in the order in which they are run, until each channel has one mean and variance 1.

    A convolution or linear layer without a bias is only scaled. Batch normalisation takes the statistics of these
    pictures for its running ones, with scale 1 and shift `centre`: it then answers alike, trained on or not.

    Args:
        encoder: Is changed in place.
        images: Decide the statistics.
        centre: The mean of each channel.
        redraw: May give a layer new weights, once what it will be given is known.

    Returns:
        Convolutions, linear layers and batch normalisations in the order of their first use.
    """
    order: list[nn.Module] = []

    def before(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if layer in order:
            return
        if isinstance(layer, _BatchNorm):
            order.append(layer)
            _take_statistics(layer, inputs[0])
            if layer.affine:
                layer.weight.fill_(1)
                layer.bias.fill_(centre)
        elif redraw is not None and isinstance(layer, Affine):
            redraw(layer, inputs[0])

    def after(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if layer in order or not isinstance(layer, Affine):
            return None
        order.append(layer)
        channel = 1 if isinstance(layer, nn.Conv2d) else output.ndim - 1
        variance, mean = torch.var_mean(output, dim=[d for d in range(output.ndim) if d != channel], correction=0)
        spread = variance.sqrt()
        spread = torch.where(spread > DEAD * spread.max(), spread, 1)
        layer.weight.div_(spread.view(-1, *[1] * (layer.weight.ndim - 1)))
        shape = [-1 if d == channel else 1 for d in range(output.ndim)]
        if layer.bias is None:
            return output / spread.view(shape)
        layer.bias.sub_(mean).div_(spread).add_(centre)
        return (output - mean.view(shape)) / spread.view(shape) + centre

    with _hooked(encoder, before, after):
        encoder(images)
    return order


def balance(
    encoder: Encoder,
    order: list[nn.Module],
    images: UInt8[Tensor, "N 3 S S"],
    generator: torch.Generator,
    *,
    passes: int,
) -> None:
    """Scale whole layers until all change at one rate under gradient descent; what the encoder says stays.

    All scales of a pass multiply to 1, and biases grow with what the layers before them were scaled by, so that the
    last map of a chain of layers is what it was; behind a batch normalisation nothing changes at all.

    Args:
        encoder: Is changed in place.
        order: What `standardise` returned.
        images: Are run forward and backward once a pass.
        generator: Draws the losses.
        passes: How often scales are corrected.

    Source: Algorithm 2. Deviation: it undoes a layer's scale in the layer above instead.
    """
    layers = [module for module in order if isinstance(module, Affine)]
    with evaluating(encoder):
        for _ in range(passes):
            rates = change_rates(encoder, layers, images, generator)
            moving = rates > 0
            ratios = torch.where(moving, rates / rates[moving].log().mean().exp(), 1)
            scales = iter(ratios ** (DAMPING / 2))  # twice the weights: half the gradient, a quarter of the rate
            reach = torch.ones((), device=rates.device)
            with torch.no_grad():
                for module in order:
                    if isinstance(module, Affine):
                        scale = next(scales)
                        reach = reach * scale
                        module.weight.mul_(scale)
                        if module.bias is not None:
                            module.bias.mul_(reach)
                    else:
                        reach = torch.ones_like(reach)
                if len(layers) < len(order):
                    with _hooked(encoder, _renew):
                        encoder(images)


def change_rates(
    encoder: Encoder, layers: list[Affine], images: UInt8[Tensor, "N 3 S S"], generator: torch.Generator
) -> Float[Tensor, "L"]:
    """Return how fast each layer changes: the root mean square of its weights' gradients over the weights' norm.

    The loss is a random linear function of the deepest map, another one for every picture. Gradients of different
    pictures are then uncorrelated, and the square of a batch's gradient is expected to be the sum of the squares of
    each picture's: none needs to be taken alone.

    Source: Section 3.2. Deviation: squares are averaged over all weights of a layer before the root is taken.
    """
    weights = [layer.weight for layer in layers]
    squares = torch.zeros(len(weights), device=images.device)
    with torch.enable_grad():
        for chunk in torch.split(images, CHUNK):
            deepest = encoder(chunk)[-1]
            loss = torch.randn(deepest.shape, generator=generator, device=deepest.device)
            found = torch.autograd.grad((deepest * loss).sum(), weights, allow_unused=True)
            squares += torch.stack([squares.new_zeros(()) if g is None else g.square().mean() for g in found])
    norms = torch.stack([weight.detach().square().sum() for weight in weights])
    return (squares / len(images) / norms.clamp(min=1e-20)).sqrt()


def scales_with_its_weights(encoder: Encoder) -> bool:
    """Whether twice a layer's weights double what follows, or are normalised away: what `balance` supposes."""
    return not any(
        isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.MultiheadAttention) for module in encoder.modules()
    )


def _take_statistics(norm: _BatchNorm, given: Tensor) -> None:
    if norm.running_mean is not None and norm.running_var is not None:
        variance, mean = torch.var_mean(given, dim=[d for d in range(given.ndim) if d != 1], correction=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def _renew(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if isinstance(layer, _BatchNorm):
        _take_statistics(layer, inputs[0])


@contextmanager
def _hooked(
    encoder: Encoder,
    before: Callable[[nn.Module, tuple[Tensor, ...]], None],
    after: Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None] | None = None,
) -> Iterator[None]:
    """Call these around every layer, with the encoder in evaluation mode."""
    layers = [module for module in encoder.modules() if isinstance(module, nn.Conv2d | nn.Linear | _BatchNorm)]
    handles = [layer.register_forward_pre_hook(before) for layer in layers]
    if after is not None:
        handles += [layer.register_forward_hook(after) for layer in layers]
    try:
        with evaluating(encoder):
            yield
    finally:
        for handle in handles:
            handle.remove()

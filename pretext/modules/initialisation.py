"""Data-dependent initialisation: equal statistics within each layer, equal rates of change between layers.

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
from pretext.system.ranges import check_range

Affine = nn.Conv2d | nn.Linear
DAMPING = 0.25
"""Exponent of the correction in one pass; α in algorithm 2."""
CHUNK = 32
"""Images per backward pass."""
DEAD = 1e-5
"""Channels with a standard deviation below this fraction of the layer's largest are not scaled."""


@dataclass(frozen=True)
class Sample:
    """Settings of data-dependent initialisation: the images, and the mean of each channel."""

    images: int = 256
    """Number of training images for the statistics; their maps must fit into memory, one layer at a time."""
    centre: float = 0.0
    """Mean of every channel before its non-linearity, in standard deviations."""

    def __post_init__(self) -> None:
        check_range(self, "images", least=2, most=1_000_000)
        check_range(self, "centre", least=-10, most=10)


@torch.no_grad()
def standardise(
    encoder: Encoder,
    images: UInt8[Tensor, "N 3 S S"],
    *,
    centre: float = 0.0,
    redraw: Callable[[Affine, Tensor], None] | None = None,
) -> list[nn.Module]:
    """Scale and shift every layer so that each output channel has mean `centre` and variance 1 on these images.

    Layers are processed in forward order. A convolution or linear layer without a bias is only scaled. Batch
    normalisation gets the statistics of these images as its running statistics, scale 1 and shift `centre`; its
    output then hardly differs between training and evaluation mode.

    Args:
        encoder: The encoder, changed in place.
        images: The images for the statistics.
        centre: Mean of each channel.
        redraw: Called with each convolution or linear layer and its input, before scaling; may set new weights.

    Returns:
        Convolutions, linear layers and batch normalisations, in the order of their first use.
    """
    order: list[nn.Module] = []

    def before(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if layer in order:
            return
        if isinstance(layer, _BatchNorm):
            order.append(layer)
            _set_running_statistics(layer, inputs[0])
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
        std = variance.sqrt()
        std = torch.where(std > DEAD * std.max(), std, 1)
        layer.weight.div_(std.view(-1, *[1] * (layer.weight.ndim - 1)))
        shape = [-1 if d == channel else 1 for d in range(output.ndim)]
        if layer.bias is None:
            return output / std.view(shape)
        layer.bias.sub_(mean).div_(std).add_(centre)
        return (output - mean.view(shape)) / std.view(shape) + centre

    with _hooked(encoder, before, after):
        encoder(images)
    return order


@torch.no_grad()
def calibrate(encoder: Encoder, images: UInt8[Tensor, "N 3 S S"]) -> None:
    """Take the running statistics of every batch normalisation from these images; weights stay as they are.

    Args:
        encoder: The encoder, changed in place. Its layers are processed in forward order.
        images: The images for the statistics.
    """
    with _hooked(encoder, _refresh_statistics):
        encoder(images)


def balance(
    encoder: Encoder,
    order: list[nn.Module],
    images: UInt8[Tensor, "N 3 S S"],
    generator: torch.Generator,
    *,
    passes: int,
) -> None:
    """Scale whole layers so that all change at the same rate under gradient descent, without changing the output.

    The scales of a pass multiply to 1, and each bias is multiplied by the product of the scales up to its layer. The
    last map of a chain of layers therefore stays the same. After a batch normalisation no map changes at all.

    Args:
        encoder: The encoder, changed in place.
        order: The layers, from `standardise`.
        images: Run forward and backward once per pass.
        generator: Draws the random losses.
        passes: Number of corrections.

    Source: Algorithm 2. Deviation: the paper undoes a layer's scale in the layer above instead.
    """
    layers = [module for module in order if isinstance(module, Affine)]
    with evaluating(encoder):
        for _ in range(passes):
            rates = change_rates(encoder, layers, images, generator)
            moving = rates > 0
            ratios = torch.where(moving, rates / rates[moving].log().mean().exp(), 1)
            scales = iter(ratios ** (DAMPING / 2))  # doubling weights halves their gradient and quarters the rate
            product = torch.ones((), device=rates.device)
            with torch.no_grad():
                for module in order:
                    if isinstance(module, Affine):
                        scale = next(scales)
                        product = product * scale
                        module.weight.mul_(scale)
                        if module.bias is not None:
                            module.bias.mul_(product)
                    else:
                        product = torch.ones_like(product)
                if len(layers) < len(order):
                    calibrate(encoder, images)


def change_rates(
    encoder: Encoder, layers: list[Affine], images: UInt8[Tensor, "N 3 S S"], generator: torch.Generator
) -> Float[Tensor, "L"]:
    """Return the rate of change of each layer: the RMS gradient of its weights divided by their norm.

    The loss is a random linear function of the deepest map, a different one per image. Gradients of different images
    are then uncorrelated, so the squared gradient of a batch has the sum of the per-image squares as its expectation.
    Per-image gradients are not needed.

    Args:
        encoder: The encoder.
        layers: The L layers to measure.
        images: Averaged over.
        generator: Draws the random losses.

    Source: Section 3.2. Deviation: squares are averaged over all weights of a layer before the root.
    """
    weights = [layer.weight for layer in layers]
    squares = torch.zeros(len(weights), device=images.device)
    with torch.enable_grad():
        for chunk in torch.split(images, CHUNK):
            deepest = encoder(chunk)[-1]
            loss = torch.randn(deepest.shape, generator=generator, device=deepest.device)
            grads = torch.autograd.grad((deepest * loss).sum(), weights, allow_unused=True)
            squares += torch.stack([squares.new_zeros(()) if g is None else g.square().mean() for g in grads])
    norms = torch.stack([weight.detach().square().sum() for weight in weights])
    return (squares / len(images) / norms.clamp(min=1e-20)).sqrt()


def scales_with_its_weights(encoder: Encoder) -> bool:
    """Return whether scaling a layer's weights scales the maps after it or is undone by batch normalisation.

    `balance` requires it; layer and group normalisation and attention do not satisfy it.
    """
    return not any(
        isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.MultiheadAttention) for module in encoder.modules()
    )


def _set_running_statistics(norm: _BatchNorm, inputs: Tensor) -> None:
    if norm.running_mean is not None and norm.running_var is not None:
        variance, mean = torch.var_mean(inputs, dim=[d for d in range(inputs.ndim) if d != 1], correction=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def _refresh_statistics(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if isinstance(layer, _BatchNorm):
        _set_running_statistics(layer, inputs[0])


@contextmanager
def _hooked(
    encoder: Encoder,
    before: Callable[[nn.Module, tuple[Tensor, ...]], None],
    after: Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None] | None = None,
) -> Iterator[None]:
    """Register forward (pre-)hooks on every layer, with the encoder in evaluation mode; remove them on exit."""
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

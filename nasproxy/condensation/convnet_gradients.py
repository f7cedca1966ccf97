"""The default ConvNet's gradients on a CPU, written out, to be differentiated once more in the images.

Activations lie channels-last from beginning to end, where torch's instance normalisation copies them to another layout
and back, and their statistics are sums over rows of contiguous channels. The first convolution, of few channels, is a
product of matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nasproxy.condensation.convnet_block import Block
from nasproxy.networks.convnet import ConvNet
from nasproxy.networks.norms import InstanceNorm

_BLOCK = (nn.Conv2d, InstanceNorm, nn.ReLU, nn.AvgPool2d)


def has_written_gradients(network: nn.Module, images: Float[Tensor, "n c h w"]) -> TypeGuard[ConvNet]:
    """Whether :class:`ConvNetGradients` can be used.

    That is, on a CPU, for a float32 or float64 ConvNet with instance normalisation, ReLU and average pooling, where all
    poolings halve an even size.
    """
    if type(network) is not ConvNet or images.device.type != "cpu":
        return False
    if any(parameter.dtype not in (torch.float32, torch.float64) for parameter in network.parameters()):
        return False
    layers = list(network.features)
    depth = len(layers) // len(_BLOCK)
    if (
        not layers
        or [type(layer) for layer in layers] != [*_BLOCK] * depth
        or len(list(network.parameters())) != 4 * depth + 2
    ):
        return False
    convolution = layers[0]
    assert isinstance(convolution, nn.Conv2d)
    pads = 2 * (int(convolution.padding[0]) - 1)
    return all((size + pads) % 2**depth == 0 for size in images.shape[2:])


@dataclass(frozen=True)
class _Readout:
    """The linear layer's part of a pass forward and back.

    Args:
        flat: its inputs.
        chances: of each class.
        slope: gradient of the loss on the logits.
        shape: of the maps that the inputs are of.
    """

    flat: Float[Tensor, "n features"]
    chances: Float[Tensor, "n classes"]
    slope: Float[Tensor, "n classes"]
    shape: torch.Size


class ConvNetGradients:
    """The gradients of a network's mean cross-entropy, of which :func:`has_written_gradients` says that they are here.

    Args:
        network: its present parameters count.
    """

    def __init__(self, network: ConvNet) -> None:
        convolutions = [layer for layer in network.features if isinstance(layer, nn.Conv2d)]
        norms = [layer for layer in network.features if isinstance(layer, InstanceNorm)]
        self._blocks = [
            Block(convolution, norm, is_first=at == 0)
            for at, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True))
        ]
        self._weight, self._bias = network.classifier.weight.detach(), network.classifier.bias.detach()

    def gradients(self, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]) -> list[Tensor]:
        """In the order of the network's parameters."""
        rows = images.permute(0, 2, 3, 1).contiguous()
        for block in self._blocks:
            rows = block.forward(rows)
        flat = _flat(rows)
        chances = torch.addmm(self._bias, flat, self._weight.T).softmax(dim=1)
        slope = chances.clone()
        slope[torch.arange(len(slope)), labels] -= 1
        slope /= len(images)
        found = [slope.T @ flat, slope.sum(dim=0)]
        back: Tensor | None = _as_rows(slope @ self._weight, rows.shape)
        for block in reversed(self._blocks):
            assert back is not None
            back, of_block = block.backward(back)
            found = of_block + found
        self._last = _Readout(flat, chances, slope, rows.shape)
        return found

    def on_images(self, directions: Sequence[Tensor | None]) -> Float[Tensor, "n c h w"]:
        """The gradient on the images of the sum over parameters of ``direction · gradient``.

        It is the tangent of the images' own gradient as the parameters change along ``directions``, as derivatives may
        be taken in either order: two more passes (Pearlmutter 1994), and none through those of the first gradient.

        The images are those of the last :meth:`gradients`.

        Args:
            directions: in the order of the network's parameters; None is zero.
        """
        last, tangent = self._last, None
        *of_blocks, weight_tangent, bias_tangent = directions
        for at, block in enumerate(self._blocks):
            weight, bias, scale, shift = of_blocks[4 * at : 4 * at + 4]
            tangent = block.forward_tangent(tangent, (weight, bias, scale, shift))
        assert tangent is not None
        logits = _flat(tangent) @ self._weight.T
        if weight_tangent is not None:
            logits.addmm_(last.flat, weight_tangent.T)
        if bias_tangent is not None:
            logits += bias_tangent
        logits -= (last.chances * logits).sum(dim=1, keepdim=True)
        tangent = last.chances * logits / len(logits) @ self._weight
        if weight_tangent is not None:
            tangent.addmm_(last.slope, weight_tangent)
        back = _as_rows(tangent, last.shape)
        for block in reversed(self._blocks):
            back = block.backward_tangent(back)
        return back.permute(0, 3, 1, 2)


def differentiable_gradients(
    network: ConvNet, images: Float[Tensor, "n c h w"], label: Int64[Tensor, ""]
) -> tuple[Tensor, ...]:
    """The gradients of the mean cross-entropy of images of one class, which can be differentiated in the images, once.

    All is computed in the network's own format, and all images at a time. Images and network must stay as they are
    until it is done.

    Args:
        network: of which :func:`has_written_gradients` says that they are here.
        images: of one class.
        label: the class.
    """
    written = ConvNetGradients(network)
    found: tuple[Tensor, ...] = _Differentiable.apply(images, label.repeat(len(images)), written)
    return found


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, labels: Tensor, written: ConvNetGradients) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.written = written
        # Other tensors than those that ``written`` holds: else they and it would keep each other alive.
        return tuple(gradient.detach() for gradient in written.gradients(images, labels))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *directions: Tensor | None) -> tuple[Tensor, None, None]:
        values = [None if direction is None else direction.detach() for direction in directions]
        return ctx.written.on_images(values), None, None


def _flat(rows: Float[Tensor, "n h w o"]) -> Float[Tensor, "n features"]:
    """In the order of the linear layer's columns: channel, height, width."""
    return rows.permute(0, 3, 1, 2).flatten(1)


def _as_rows(flat: Float[Tensor, "n features"], shape: torch.Size) -> Float[Tensor, "n h w o"]:
    number, height, width, channels = shape
    return flat.view(number, channels, height, width).permute(0, 2, 3, 1)

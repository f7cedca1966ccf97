"""What a network costs, whatever the hardware: its parameters, and the multiply-adds of one image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """The numbers in a network's parameters, frozen ones included, shared ones once, buffers left out.

    Raises:
        ValueError: a lazy layer has not seen an image yet, so its parameters have no shape.
    """
    lazy = [name for name, parameter in model.named_parameters() if nn.parameter.is_lazy(parameter)]
    if lazy:
        raise ValueError(f"The parameters {', '.join(lazy)} have no shape before a first forward pass.")
    return sum(parameter.numel() for parameter in model.parameters())


def count_multiply_adds(model: nn.Module, in_channels: int, image_size: tuple[int, int]) -> int:
    """Multiply-adds of the forward pass of one image in evaluation mode, as torch's own counter sees them.

    Convolutions, matrix products and attention are counted; biases, normalisation, activations, pooling and fused
    recurrent layers are not. The model is left as it was: its device, its mode, its statistics.

    Args:
        model: a network whose lazy layers, if any, have their shapes.
        in_channels: channels of an image.
        image_size: (height, width) in pixels.
    """
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    image = torch.zeros(1, in_channels, *image_size, device=like.device, dtype=like.dtype)
    with _evaluating(model), _plain_attention(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops()) // 2


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each module is in the mode it had, which need not be one for all."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keeps torch from evaluating attention by fused operators, which its counter may take for free."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)

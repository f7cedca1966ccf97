"""A convolution's results and gradients, by whatever computes it, for tests that compare them."""

from __future__ import annotations

import torch

LAYOUTS = {"first": torch.contiguous_format, "last": torch.channels_last}


def results_and_gradients(convolve, operands, slope):
    """The result, and the gradients of those operands that require one, given the result's."""
    result = convolve(*operands)
    wanted = [operand for operand in operands if operand is not None and operand.requires_grad]
    return [result.detach(), *torch.autograd.grad(result, wanted, slope)]

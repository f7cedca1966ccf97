"""What scores that look at weights have in common: which weights count, and what is not a number."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from nasproxy.errors import ScoreError

NORMALISATIONS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.RMSNorm)


def weight_tensors(model: nn.Module) -> list[nn.Parameter]:
    """The weights of the convolutions, linear layers and the like: no biases, and nothing of a normalisation.

    Abdelfattah et al. (2021) score the weights of convolutions and linear layers in the same way.

    Raises:
        ScoreError: there are none that could be trained.
    """
    found = {
        id(parameter): parameter
        for module in model.modules()
        if not isinstance(module, NORMALISATIONS)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim >= 2 and parameter.requires_grad
    }
    if not found:
        raise ScoreError("The network has no weights: no convolution or linear layer that could be trained.")
    return list(found.values())


def loss_gradients(
    model: nn.Module, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]
) -> list[tuple[nn.Parameter, Tensor]]:
    """Each weight tensor with the gradient of the batch's mean cross-entropy; zeros where the loss ignores it.

    The network is in training mode, so that batch normalisation uses the batch's own statistics, as in the code of
    Abdelfattah et al. (2021).
    """
    model.train()
    weights = weight_tensors(model)
    loss = F.cross_entropy(model(images), labels)
    return list(zip(weights, gradients(loss, weights), strict=True))


def gradients(value: Float[Tensor, ""], tensors: list[nn.Parameter]) -> list[Tensor]:
    """Of ``value`` with respect to each; zeros where it does not depend on one."""
    if not value.requires_grad:
        return [torch.zeros_like(tensor) for tensor in tensors]
    found = torch.autograd.grad(value, tensors, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, found, strict=True)]


def finite(value: float, what: str) -> float:
    """The value.

    Raises:
        ScoreError: it is infinite or not a number.
    """
    if not math.isfinite(value):
        raise ScoreError(f"{what} is {value}.")
    return value


def over_weights(pairs: list[tuple[nn.Parameter, Tensor]], measure: Callable[[Tensor, Tensor], Tensor]) -> float:
    """The sum over weight tensors of a measure of a tensor and its gradient, both as float64."""
    return float(sum(float(measure(weight.detach().double(), gradient.double())) for weight, gradient in pairs))

"""How far two sets of gradients lie apart: equation 10 of Zhao, Mopuri & Bilen (2021), and its rivals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

_GUARD = 1e-6  # added to the product of norms by the authors' code


def layerwise_cosine_distance(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Float[Tensor, ""]:
    """Sum over layers and output nodes of ``1 - cos(real row, synthetic row)`` (equation 10).

    A row is what one output node of a layer has as gradient: a convolution's (out, in, h, w) is read as (out, in·h·w),
    a linear layer's (out, in) as it is, a layer norm's affine (channels, height, width) as (channels, height·width).
    One-dimensional gradients (biases, affine maps of the other norms) take no part. The product of norms is guarded by
    adding 1e-6, as the authors' code does.

    Args:
        real: a network's gradients on real images, one tensor a parameter.
        synthetic: the same for synthetic images; the distance is differentiable in these.
    """
    terms = [_rows_apart(r, s) for r, s in zip(real, synthetic, strict=True) if r.ndim > 1]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _rows_apart(real: Tensor, synthetic: Tensor) -> Float[Tensor, ""]:
    real, synthetic = real.flatten(1), synthetic.flatten(1)
    norms = real.norm(dim=1) * synthetic.norm(dim=1)
    cosine: Tensor = (real * synthetic).sum(dim=1) / (norms + _GUARD)
    return (1 - cosine).sum()


def squared_euclidean_distance(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Float[Tensor, ""]:
    """``|real - synthetic|²`` of all gradients, biases included, as one vector: a rival in the paper's ablation."""
    apart = _flat(real) - _flat(synthetic)
    return apart.square().sum()


def flat_cosine_distance(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Float[Tensor, ""]:
    """``1 - cos(real, synthetic)`` of all gradients, biases included, as one vector: the other rival."""
    ours, theirs = _flat(real), _flat(synthetic)
    cosine: Tensor = (ours * theirs).sum() / (ours.norm() * theirs.norm() + _GUARD)
    return 1 - cosine


def distance_between(name: str, real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Float[Tensor, ""]:
    """The distance called ``name``, one of :data:`nasproxy.condensation.recipe.DISTANCES`."""
    return _BY_NAME[name](real, synthetic)


def is_compared(name: str, parameter: Tensor) -> bool:
    """Whether the gradient of ``parameter`` takes part in the distance called ``name``."""
    return parameter.ndim > 1 or name != "layerwise-cosine"


_BY_NAME: dict[str, Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]] = {
    "layerwise-cosine": layerwise_cosine_distance,
    "squared-euclidean": squared_euclidean_distance,
    "cosine": flat_cosine_distance,
}


def _flat(gradients: Sequence[Tensor]) -> Float[Tensor, " n"]:
    return torch.cat([gradient.flatten() for gradient in gradients])

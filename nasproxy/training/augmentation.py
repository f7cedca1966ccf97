"""Random transformations of a training batch, for each image its own, on the device that holds it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nasproxy.training.strategy import siamese_kinds
from nasproxy.training.transforms import draw_transform, mirror, shift

_SHIFT = 4  # pixels at 32×32, the field's habit; in proportion at other sizes


def augment(images: Float[Tensor, "n c h w"], kind: str, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Transforms each image by parameters of its own.

    ``crop`` shifts by up to an eighth of the size (zeros move in), ``crop-flip`` also mirrors half of the images.
    ``siamese`` draws one kind of transformation for the batch, as Zhao & Bilen (2021) do where they train on the images
    that they have condensed: there, real and synthetic images share the parameters too; here nothing is to be compared.

    Args:
        images: a batch.
        kind: ``none``, ``crop``, ``crop-flip``, or ``siamese`` with the kinds to draw from, see
            :func:`nasproxy.training.strategy.siamese_kinds`.
        generator: on the CPU, whatever the device of the images.
    """
    if kind == "none":
        return images
    count, _, height, width = images.shape
    if (kinds := siamese_kinds(kind)) is not None:
        return draw_transform(kinds, (height, width), generator, count=count)(images)
    down, right = (_shifts(count, side, generator) for side in (height, width))
    shifted = shift(images, down=down, right=right)
    if kind == "crop":
        return shifted
    return mirror(shifted, chosen=torch.rand(count, 1, generator=generator) < 0.5)


def _shifts(count: int, side: int, generator: torch.Generator) -> Tensor:
    most = max(1, side * _SHIFT // 32)
    return most - torch.randint(0, 2 * most + 1, (count,), generator=generator)

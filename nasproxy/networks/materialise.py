"""A network out of a search space, made ready to train: lazy layers get their shapes, the output's shape is checked."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nasproxy.errors import SpaceError


def materialise(model: nn.Module, images: Float[Tensor, "n c h w"], num_classes: int) -> nn.Module:
    """Runs two or more images through ``model`` in evaluation mode and returns it.

    Args:
        model: on the device of ``images``; it is left in training mode.
        images: any.
        num_classes: logits expected for each image.

    Raises:
        SpaceError: the output is not one row of ``num_classes`` logits for each image.
    """
    model.eval()
    with torch.no_grad():
        logits = model(images)
    model.train()
    expected = (len(images), num_classes)
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != expected:
        raise SpaceError(
            f"The network returned {shape} for {len(images)} images of {num_classes} classes, expected {expected}.",
            "build must return a module that maps images to one row of logits for each.",
        )
    return model

"""One step of gradient descent on one batch."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from nasproxy.training.precision import autocast
from nasproxy.training.recipe import TrainingRecipe

Stepped = tuple[Float[Tensor, "batch classes"], Float[Tensor, ""]]
Targets = Int64[Tensor, " batch"] | Float[Tensor, "batch classes"]
"""The class of each image, or the probability of each class."""


@runtime_checkable
class Step(Protocol):
    """Takes one step of cross-entropy on a batch; returns its logits and its mean loss, both of before the step.

    The next call may overwrite what this one returned.
    """

    def __call__(self, images: Float[Tensor, "batch c h w"], targets: Targets) -> Stepped:
        """Takes the step."""

    def set_rate(self, learning_rate: float) -> None:
        """The learning rate of the steps that follow."""


class PlainStep:
    """SGD by torch, operation after operation.

    The learning rate lies in a tensor on the device, where a recorded step reads it at each replay. On the CPU torch
    turns it back into the number it is: results are those of a number.

    Args:
        model: trained in place.
        recipe: the optimiser's settings.
        precision: ``bfloat16`` or ``float32``.
        device: that the model is on.
    """

    def __init__(self, model: nn.Module, recipe: TrainingRecipe, precision: str, device: torch.device) -> None:
        self.model = model
        self._precision = precision
        self._rate = torch.tensor(recipe.learning_rate, device=device)
        parameters = list(model.parameters())
        # One kernel for all parameters; the only kind that reads a rate from the device without waiting for it.
        fused = device.type == "cuda" and all(parameter.is_floating_point() for parameter in parameters)
        self.optimizer = make_sgd(parameters, self._rate, recipe, fused=fused)

    def __call__(self, images: Float[Tensor, "batch c h w"], targets: Targets) -> Stepped:
        """See :class:`Step`."""
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self._precision, images.device):
            logits = self.model(images)
        loss = F.cross_entropy(logits.float(), targets)
        loss.backward()
        self.optimizer.step()
        return logits.detach(), loss.detach()

    def set_rate(self, learning_rate: float) -> None:
        """See :class:`Step`."""
        self._rate.fill_(learning_rate)


def make_sgd(
    parameters: list[nn.Parameter], rate: Float[Tensor, ""], recipe: TrainingRecipe, *, fused: bool
) -> torch.optim.SGD:
    """SGD of ``recipe``, by one kernel for all parameters or as torch chooses."""
    decay = recipe.weight_decay
    optimizer = torch.optim.SGD(parameters, rate, recipe.momentum, weight_decay=decay, fused=fused or None)
    if fused and recipe.momentum:
        # torch makes momentum for all or for none: it fails at a parameter whose first gradient comes later.
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer

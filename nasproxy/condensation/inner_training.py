"""The network's own training between two matching steps (Algorithm 1, last line of the inner loop)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn

from nasproxy.condensation.mean_gradients import mean_gradients
from nasproxy.condensation.outer_loop import Material
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.train import in_batches, step_of

_Step = Callable[[Tensor, Tensor], object]
"""Takes a step of plain SGD on images and their labels."""


class InnerTraining:
    """``inner_epochs`` epochs of plain SGD on the synthetic set, as often as they are asked for.

    A GPU replays a recorded step (:mod:`nasproxy.training.recorded`), where that pays and ``chunk`` is 0. It is
    recorded once for all trainings of a network. By arithmetic, not measured: three steps beside the 450 of an outer
    iteration at 10 images a class and the paper's values, and some milliseconds in which torch gives its spare memory
    back to the card. One recording for all networks would save these, and keep its memory from the matching steps.

    Args:
        network: trained in place, in the mode it is in.
        material: of the images as they are when a training begins.
        recipe: the settings.
    """

    def __init__(self, network: nn.Module, material: Material, recipe: MatchingRecipe) -> None:
        self._network, self._material, self._recipe = network, material, recipe

    def run(self) -> None:
        """One of the trainings."""
        material, device = self._material, self._material.images.device
        images, labels = material.images.detach(), material.labels
        for _ in range(self._recipe.inner_epochs):
            order = torch.randperm(len(labels), generator=material.generator)
            # The host would wait here, in each epoch, for all that it has asked of a GPU.
            order = order.to(device, non_blocking=device.type == "cuda")
            for picked in in_batches(order, self._recipe.network_batch):
                # Nothing is compared here, so each image has parameters of its own, as in the published code.
                self._step(material.draw_transform(len(picked))(images[picked]), labels[picked])

    @cached_property
    def _step(self) -> _Step:
        """Made when first needed: a network without parameters has been refused by then."""
        on_gpu = self._material.images.device.type == "cuda"
        make = _whole_step if on_gpu and not self._recipe.chunk else _step_in_chunks
        return make(self._network, self._material, self._recipe)


def _whole_step(network: nn.Module, material: Material, recipe: MatchingRecipe) -> _Step:
    settings = TrainingRecipe(recipe.inner_epochs, recipe.network_learning_rate, momentum=0.0, weight_decay=0.0)
    batches = len(in_batches(material.labels, recipe.network_batch))
    steps = (recipe.matching_steps - 1) * recipe.inner_epochs * batches
    return step_of(network, settings, material.precision, material.images.device, steps)


def _step_in_chunks(network: nn.Module, material: Material, recipe: MatchingRecipe) -> _Step:
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=recipe.network_learning_rate)

    def step(images: Tensor, labels: Tensor) -> None:
        gradients = mean_gradients(
            network, parameters, images, labels, chunk=recipe.chunk, precision=material.precision
        )
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()

    return step

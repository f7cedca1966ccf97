"""The optimiser of steps, by one kernel for all parameters as on a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.step import make_sgd


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_parameter_may_have_its_first_gradient_after_the_first_step(momentum):
    recipe = TrainingRecipe(epochs=1, learning_rate=0.1, momentum=momentum)

    def trained(*, fused):
        early, late = (nn.Parameter(torch.arange(3.0)) for _ in range(2))
        optimizer = make_sgd([early, late], torch.tensor(recipe.learning_rate), recipe, fused=fused)
        for step in range(3):
            early.grad, late.grad = torch.ones(3), torch.full((3,), 2.0) if step else None
            optimizer.step()
        return early.detach(), late.detach()

    for one, other in zip(trained(fused=True), trained(fused=False), strict=True):
        torch.testing.assert_close(one, other)

"""The resumable training against plain gradient descent, written out."""

import torch
import torch.nn.functional as F
from torch import nn

from nasproxy.finalists.checkpoint import Checkpoint
from nasproxy.finalists.course import course
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.train import Images


def _images(count: int) -> Images:
    generator = torch.Generator().manual_seed(count)
    return Images(torch.randn(count, 1, 4, 4, generator=generator), torch.arange(count) % 3)


def test_each_epoch_is_gradient_descent_with_momentum_on_its_own_order():
    torch.manual_seed(0)
    model, data, validation = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), _images(13), _images(7)
    recipe = TrainingRecipe(epochs=3, learning_rate=0.1, batch_size=4)
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    velocity = {name: torch.zeros_like(value) for name, value in weights.items()}
    states = course(
        model, data, recipe, validation, seed_of=lambda epoch: 10 + epoch, precision="float32", done=Checkpoint()
    )
    assert next(states).history[0].epoch == 0
    for number, rate in ((1, 0.1), (2, 0.1), (3, 0.01)):
        order = torch.randperm(13, generator=torch.Generator().manual_seed(10 + number))
        losses = 0.0
        for picked in (order[:4], order[4:8], order[8:13]):  # a single last image joins the batch before
            free = {name: value.clone().requires_grad_() for name, value in weights.items()}
            loss = F.cross_entropy(
                data.images[picked].flatten(1) @ free["1.weight"].T + free["1.bias"], data.labels[picked]
            )
            gradients = dict(zip(free, torch.autograd.grad(loss, list(free.values())), strict=True))
            losses += loss.item() * len(picked)
            for name, value in weights.items():
                velocity[name] = 0.9 * velocity[name] + gradients[name] + 5e-4 * value
                weights[name] = value - rate * velocity[name]
        latest = next(states).history[-1]
        assert (latest.epoch, latest.learning_rate) == (number, rate)
        torch.testing.assert_close(torch.tensor(latest.train_loss), torch.tensor(losses / 13))
        for name, value in model.named_parameters():
            torch.testing.assert_close(value.detach(), weights[name])
    assert next(states, None) is None

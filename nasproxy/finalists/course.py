"""A long training, epoch by epoch, that goes on after any interruption as if there had been none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasproxy.finalists.checkpoint import Checkpoint, Epoch, finite
from nasproxy.training.augmentation import augment
from nasproxy.training.precision import autocast
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.train import Images, evaluate


def course(
    model: nn.Module,
    data: Images,
    recipe: TrainingRecipe,
    validation: Images,
    *,
    seed_of: Callable[[int], int],
    precision: str,
    done: Checkpoint,
) -> Iterator[Checkpoint]:
    """Trains ``model`` in place and yields ``done`` after each epoch that is added to it.

    Order, augmentation and whatever the network draws depend on the epoch's own seed, so that nothing of a random
    generator need be kept.

    Args:
        model: on the device of ``data``, with the weights that the training begins with.
        data: all training images.
        recipe: the optimiser's settings.
        validation: images that each epoch is scored on.
        seed_of: the seed of an epoch, counted from 1.
        precision: ``bfloat16`` or ``float32``.
        done: what an earlier invocation finished. Where that is nothing, epoch 0 is the weights as they are.
    """
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    if done.history:
        done.restore(model, optimizer)
    else:
        score = evaluate(model, validation, epoch=0, precision=precision)
        first = Epoch(0, recipe.learning_rate, None, None, finite(score.cross_entropy), score.accuracy, 0.0)
        done.take(first, model, optimizer)
        yield done
    while len(done.history) <= recipe.epochs and not done.history[-1].diverged:
        began, number = time.perf_counter(), len(done.history)
        rate = recipe.learning_rate_at(number - 1)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, accuracy = _train_epoch(model, data, recipe, optimizer, seed_of(number), precision)
        score = evaluate(model, validation, epoch=number, precision=precision)
        seconds = time.perf_counter() - began
        epoch = Epoch(number, rate, finite(loss), accuracy, finite(score.cross_entropy), score.accuracy, seconds)
        done.take(epoch, model, optimizer)
        yield done


def _train_epoch(
    model: nn.Module, data: Images, recipe: TrainingRecipe, optimizer: torch.optim.Optimizer, seed: int, precision: str
) -> tuple[float, float]:
    """Visits all images once; returns mean loss and accuracy before each step."""
    generator, device = torch.Generator().manual_seed(seed), data.labels.device
    torch.manual_seed(seed)  # of what the network draws, as dropout does
    model.train()
    total, right = torch.zeros((), device=device), torch.zeros((), device=device)
    for picked in _batches(len(data), recipe.batch_size, generator):
        positions = picked.to(device, non_blocking=device.type == "cuda")
        images, labels = augment(data.images[positions], recipe.augmentation, generator), data.labels[positions]
        optimizer.zero_grad(set_to_none=True)
        with autocast(precision, device):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(labels)
        right += (logits.detach().argmax(1) == labels).sum()
    return float(total) / len(data), float(right) / len(data)


def _batches(count: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """Positions in random order; a last single image, which batch normalisation cannot take, joins those before."""
    batches = list(torch.randperm(count, generator=generator).split(size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
